"""``inspect`` tells what a state directory holds at any moment of a ceremony, and never a secret."""

import base64
import os
from pathlib import Path

import pytest

from common.ids import Index
from common.secret import Secret
from signer_service.frost.group import encode_scalar
from signer_service.inspection import inspect
from signer_service.protocol.ceremony_state import KeySecrets
from signer_service.shell.journal import Saved, StateDir
from signer_service.shell.keystore import Sealer
from tests import playbook
from tests.system.secret_forms import found_in
from tests.world import World

SEALING = b"s" * 32


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, Path]:
    """State directory, seat folder, operator's public key; nothing saved yet."""
    seat = tmp_path / "seats" / "1"
    seat.mkdir(parents=True)
    key = seat / "sealing.key"
    key.write_bytes(SEALING)
    key.chmod(0o600)
    operator = tmp_path / "operator.pub"
    operator.write_bytes(playbook.public("operator"))
    return tmp_path / "state", seat, operator


def inspected(world: World, places: tuple[Path, Path, Path], seat: int = 1) -> list[str]:
    """Save what the seat has on its disk now, and look at it."""
    disk = world.seats[seat].disk
    assert disk is not None
    sealer = Sealer(Secret(SEALING), playbook.public("operator"), Index(seat), os.urandom)
    directory = StateDir.open(places[0], sealer)
    directory.load()
    directory.save(Saved(disk.public, disk.secrets))
    directory.close()
    return list(inspect(*places, seat))


def secrets_of(mine: KeySecrets) -> dict[str, bytes]:
    found = {f"share {each.epoch}": encode_scalar(each.share.expose()) for each in mine.held}
    if mine.part is not None and mine.part.transport is not None:
        found["transport key"] = encode_scalar(mine.part.transport.expose())
    if mine.part is not None and mine.part.staged is not None:
        found["staged share"] = encode_scalar(mine.part.staged.share.expose())
    return found


def test_at_any_moment_of_a_ceremony_inspect_names_what_is_kept_and_shows_no_secret(
    places: tuple[Path, Path, Path],
) -> None:
    world = World(2, 3)
    world.start()
    told: dict[str, int] = {}
    seen: set[str] = set()

    def look(epoch: int) -> bool:
        state = world.seats[1].state
        assert state is not None
        mine = state.of_key(playbook.KEY)
        secrets = secrets_of(mine)
        part = mine.part
        stage = f"{sorted(secrets)} {part is not None and part.deal is not None} {world.key().epoch}"
        if stage not in seen:
            seen.add(stage)
            lines = inspected(world, places)
            told.update({line.strip(): 1 for line in lines})
            assert not found_in({**secrets, "sealing key": SEALING}, "\n".join(lines).encode())
        return world.holds(epoch)

    world.run(lambda: look(1))
    world.run_for(2_500)
    world.ask_refresh(1)
    world.run(lambda: look(2))
    for words in [
        "key default: not generated yet",
        "key default: epoch 1",
        "no share on this disk",
        "shares on this disk: of epochs [1]",
        "shares on this disk: of epochs [1, 2]",
        "ceremony: generate, attempt 1, phase announce",
        "ceremony: reshare, attempt 1, phase deal",
        "of the open ceremony: a transport key, the Announce",
        "of the open ceremony: a transport key, the Announce, the Deal",
        "of the open ceremony: a staged share, the Announce, the Deal, the Verdict, the Ready",
        "epoch 1: not erased by seats [1, 2, 3] yet",
    ]:
        assert words in told, (words, sorted(told))
    assert len(seen) >= 6


def test_inspect_shows_the_hash_that_an_audit_of_the_log_shows(places: tuple[Path, Path, Path]) -> None:
    from tests.audit.logs import audited

    world = World(2, 3)
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(1_000)
    lines = inspected(world, places)
    assert f"running hash {audited(world.log).running_hash.hex()}" in lines
    assert f"read up to offset {len(world.log) - 1}" in lines
    current = world.key().current
    assert current is not None
    public_key = base64.b64encode(current.record.public_key).decode()
    assert f"  public key {public_key}, 2 of seats [1, 2, 3]" in lines


def test_inspect_says_aloud_that_a_seat_lacks_its_share_or_has_left(places: tuple[Path, Path, Path]) -> None:
    world = World(2, 3)
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(1_000)
    world.lose_disk(1)
    world.start(1)
    world.run_for(1_000)
    lines = inspected(world, places)
    assert "  ALARM: no share of epoch 1: this seat cannot sign until it is healed" in lines
    assert "  asked to be healed: seats [1]" in lines
    world.run(lambda: world.agrees(2))
    world.run_for(2_500)
    world.give_roster(world.house.roster(2, (2, 3), version=2))
    world.run_for(5_000)
    assert "ALARM: this seat is not in the roster any more" in inspected(world, places)
