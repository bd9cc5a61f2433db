"""A replica whose files are wrong says which and what to do, in one line, and does not start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import BadInput, SignerFlowError, Unavailable
from common.ids import Epoch, Index, Instant, KeyId
from common.observability.metrics import Metrics
from common.secret import Secret
from signer_service.app import make_log_trust, read_files
from signer_service.frost.group import Scalar
from signer_service.inspection import inspect
from signer_service.protocol import ceremony
from signer_service.protocol.ceremony_disk import durable
from signer_service.protocol.ceremony_state import CeremonyTiming, HeldShare, KeySecrets, RosterFile
from signer_service.protocol.snapshot import pack
from signer_service.provision import Plan, provision
from signer_service.settings import load
from signer_service.shell import disk
from signer_service.shell.journal import Saved, StateDir
from signer_service.shell.keystore import Sealer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    provision(tmp_path / "keys", Plan(3, 2), os.urandom)
    return tmp_path


def variables(root: Path, **extra: str) -> dict[str, str]:
    named = {
        "INDEX": "1",
        "KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "SECRETS_DIR": str(root / "keys"),
        "STATE_DIR": str(root / "state"),
        "ADMIN_PORT": "0",
        **extra,
    }
    return {f"SIGNER_SERVICE_{name}": value for name, value in named.items()}


def refused(root: Path, *words: str, error: type[SignerFlowError] = BadInput, **extra: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(root, **extra).items():
            patch.setenv(name, value)
        with pytest.raises(error) as caught:
            read_files(load(), Metrics())
    assert "\n" not in caught.value.detail
    for word in words:
        assert word in caught.value.detail


def sealer(root: Path, seat: int = 1) -> Sealer:
    key = (root / "keys/seats" / str(seat) / "sealing.key").read_bytes()
    return Sealer(Secret(key), (root / "keys/operator.pub").read_bytes(), Index(seat), os.urandom)


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("seats/1/identity.key", "missing", ("identity key", "missing", "provision")),
        ("seats/1/sealing.key", "missing", ("sealing key", "--insecure-dev")),
        ("operator.pub", "missing", ("operator public key", "missing")),
        ("roster.avro", "missing", ("roster.avro", "provision")),
        ("seats/1/identity.key", "open", ("identity.key", "chmod 600")),
        ("seats/1/sealing.key", "open", ("sealing.key", "chmod 600")),
        ("seats/1/identity.key", "short", ("identity.key", "bytes, not 32")),
        ("roster.avro", "flipped", ("roster.avro", "bring the one of this system")),
    ],
)
def test_a_wrong_key_file_is_named(root: Path, name: str, damage: str, words: tuple[str, ...]) -> None:
    path = root / "keys" / name
    if damage == "missing":
        path.unlink()
    elif damage == "open":
        path.chmod(0o644)
    else:
        raw = path.read_bytes()
        path.write_bytes(raw[:-1] if damage == "short" else raw[:-1] + bytes([raw[-1] ^ 1]))
    refused(root, *words)


def test_a_wrong_state_file_is_named(root: Path) -> None:
    state = root / "state"
    directory = StateDir.open(state, sealer(root))
    directory.load()
    directory.save(Saved(b"a journal of nobody", {KeyId("default"): Secret(b"a share of nobody")}))
    directory.close()
    share = state / "shares/default"
    whole = share.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        share.write_bytes(damaged)
        refused(root, "shares/default", "move the whole state directory away")
    share.write_bytes(whole)
    refused(root, "state/journal", "another seat: 1, here it is 2", INDEX="2")
    share.write_bytes(sealer(root).seal("share", "other", b"x"))
    refused(root, "shares/default", "another key")
    share.write_bytes(whole)
    # Whole and ours, but not what this program writes.
    refused(root, "journal", "move the whole state directory away")


def test_a_state_directory_in_use_is_left_to_its_user(root: Path) -> None:
    disk.make_private_dir(root / "state")
    with disk.locked(root / "state/lock", ""):
        refused(root, "another process", error=Unavailable)


def refusal(root: Path) -> str:
    """What the real process says when it refuses to start: one line, and exit code 2."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SIGNER_")}
    done = subprocess.run(
        [sys.executable, "-m", "signer_service", "run"],
        env=inherited | variables(root),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    return done.stderr


def test_the_refusal_is_one_line_on_standard_error_and_exit_code_2(root: Path) -> None:
    (root / "keys/seats/1/sealing.key").chmod(0o644)
    said = refusal(root)
    assert "sealing.key" in said
    assert "chmod 600" in said


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("cut", "does not open: it was cut or changed"),
        ("flipped", "does not open: it was cut or changed"),
        ("of another seat", "is of another seat: 2, here it is 1"),
        ("of another key", "is of another key: 'other', here it is 'default'"),
        ("of another epoch", "is of another epoch or moment than the journal"),
    ],
)
def test_a_replica_with_a_wrong_share_file_says_which_and_what_to_do_and_ends(
    root: Path, damage: str, words: str
) -> None:
    share = root / "state/shares/default"
    roster = (root / "keys/roster.avro").read_bytes()
    trust = make_log_trust("", (root / "keys/operator.pub").read_bytes())
    state = ceremony.step(
        ceremony.start(Index(1), trust, CeremonyTiming()), RosterFile(roster), Instant(1), os.urandom
    ).state
    kept = []
    directory = StateDir.open(root / "state", sealer(root))
    directory.load()
    for epoch in (7, 8):
        directory.save(Saved(durable(state).public, {KeyId("default"): Secret(_share(epoch))}))
        kept.append(share.read_bytes())
    directory.close()
    before, now = kept
    share.write_bytes(
        {
            "cut": now[:-1],
            "flipped": now[:-1] + bytes([now[-1] ^ 1]),
            "of another seat": sealer(root, 2).seal("share", "default", _share()),
            "of another key": sealer(root).seal("share", "other", _share()),
            "of another epoch": before,
        }[damage]
    )
    said = refusal(root)
    assert said.startswith(f"signer_service: {share} {words}")
    if damage == "of another seat":
        assert said.endswith("put that right; delete and move nothing, what is in it is whole\n")
    else:
        assert "and while t other replicas hold shares, move the whole state directory away" in said
        assert said.endswith("let the replica be healed, one replica at a time\n")


def test_without_sealing_key_a_replica_starts_only_when_told_that_this_is_insecure(root: Path) -> None:
    (root / "keys/seats/1/sealing.key").unlink()
    refused(root, "--insecure-dev")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(root, INSECURE_DEV="true").items():
            patch.setenv(name, value)
        read_files(load(), Metrics()).directory.close()


def test_inspect_tells_what_a_directory_holds_and_refuses_what_is_damaged(root: Path) -> None:
    places = root / "state", root / "keys/seats/1", root / "keys/operator.pub"
    with pytest.raises(BadInput, match="nothing was ever saved"):
        inspect(*places, None)
    roster = (root / "keys/roster.avro").read_bytes()
    trust = make_log_trust("", (root / "keys/operator.pub").read_bytes())
    state = ceremony.start(Index(1), trust, CeremonyTiming())
    state = ceremony.step(state, RosterFile(roster), Instant(1), os.urandom).state
    kept = durable(state)
    directory = StateDir.open(root / "state", sealer(root))
    directory.load()
    directory.save(Saved(kept.public, {KeyId("default"): Secret(_share())}))
    directory.close()
    lines = inspect(*places, None)
    assert lines[0] == "seat 1 on signer.v1.ceremony"
    assert any("shares on this disk: of epochs [7]" in line for line in lines)
    assert str(12345) not in "".join(lines)
    with pytest.raises(BadInput, match="another seat"):
        inspect(root / "state", root / "keys/seats/1", root / "keys/operator.pub", 2)


def _share(epoch: int = 7) -> bytes:
    held = HeldShare(Epoch(epoch), Secret(Scalar(12345)), bytes(32))
    return pack(KeySecrets, KeySecrets(KeyId("default"), (held,), ever_held=True))
