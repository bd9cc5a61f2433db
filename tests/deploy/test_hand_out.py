"""Compose's hand-out: to each process its own keys, and the operator's to nobody."""

import os
import stat
from pathlib import Path
from types import ModuleType

import pytest

from signer_service.provision import Plan, provision
from tests.scripts import load

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def hand_out(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load(ROOT / "docker" / "hand_out.py")
    # Whoever runs the tests may give files to himself only.
    monkeypatch.setattr(module, "USER", os.geteuid())
    return module


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_each_process_gets_its_own_keys_and_the_operators_key_goes_to_nobody(
    hand_out: ModuleType, tmp_path: Path
) -> None:
    keys, given = tmp_path / "keys", tmp_path / "given"
    for volume in ("api", "signer-1", "signer-2"):
        (given / volume).mkdir(parents=True)
    provision(keys, Plan(2, 2), os.urandom)
    hand_out.main(keys, given)
    made = files(keys)
    public = {name: made[name] for name in ("operator.pub", "roster.avro")}
    assert files(given / "api") == public | {"edge.key": made["edge.key"]}
    for seat in (1, 2):
        own = [f"seats/{seat}/identity.key", f"seats/{seat}/sealing.key"]
        assert files(given / f"signer-{seat}") == public | {name: made[name] for name in own}
    for path in given.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_a_newer_roster_replaces_the_old_one_and_a_run_that_was_cut_short_is_finished(
    hand_out: ModuleType, tmp_path: Path
) -> None:
    keys, given = tmp_path / "keys", tmp_path / "given"
    (given / "signer-2").mkdir(parents=True)
    provision(keys, Plan(2, 2), os.urandom)
    hand_out.main(keys, given)
    (given / "signer-2" / "roster.avro.tmp").write_bytes(b"half")
    provision(keys, Plan(3, 2), os.urandom)
    hand_out.main(keys, given)
    assert files(given / "signer-2")["roster.avro"] == files(keys)["roster.avro"]
    assert "roster.avro.tmp" not in files(given / "signer-2")


def test_a_volume_for_nobody_known_is_refused(hand_out: ModuleType, tmp_path: Path) -> None:
    for name in ("operator", "signer-", "signer-x", "signer"):
        with pytest.raises(SystemExit, match="neither api nor"):
            hand_out.wanted(name)
