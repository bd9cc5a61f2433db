"""A roster file that makes no sense is refused before anything starts, with the reason; the one read before stays."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from common.errors import BadInput
from common.ids import Index, KeyId
from common.trust import read_roster
from common.wire.envelope import sign_roster
from common.wire.messages import RosterKey, Seat
from signer_service.shell.roster_file import RosterWatch
from tests import playbook

HOUSE = playbook.House()
GOOD = read_roster(HOUSE.roster(2, (1, 2, 3), version=3), playbook.public("operator"))


def signed(operator: str = "operator", **changes: object) -> bytes:
    return sign_roster(replace(GOOD, **changes), playbook.private(operator))  # type: ignore[arg-type]


def keys(threshold: int) -> tuple[RosterKey, ...]:
    return (RosterKey(KeyId("default"), threshold, b""),)


TWICE = (*GOOD.seats[:2], Seat(Index(2), playbook.public("seat 3")))

SENSELESS = {
    "t above n": (signed(version=4, keys=keys(4)), "threshold 4 is not between 2 and the 3 seats"),
    "t below 2": (signed(version=4, keys=keys(1)), "threshold 1 is not between 2 and the 3 seats"),
    "a seat twice": (signed(version=4, seats=TWICE), "ascend, each once"),
    "one identity for two seats": (
        signed(version=4, seats=(*GOOD.seats[:2], Seat(Index(3), GOOD.seats[0].identity_key))),
        "all different",
    ),
    "another operator": (signed("another operator", version=4), "not signed by this system's operator key"),
    "cut": (signed(version=4)[:-1], "roster"),
}
LATER = {
    **SENSELESS,
    "other bytes": (signed(edge_keys=(playbook.public("another edge"),)), "two different rosters of version 3"),
    "a version that goes back": (signed(version=2), "older than the roster in use"),
    "a log that goes back": (signed(version=4, log_generation=0), "goes back to an older log"),
}


def watching(path: Path) -> tuple[RosterWatch, Path]:
    file = path / "roster.avro"
    file.write_bytes(signed())
    watch = RosterWatch(file, playbook.public("operator"))
    assert watch.first()[1] == GOOD
    return watch, file


@pytest.mark.parametrize("what", SENSELESS)
def test_a_start_with_a_senseless_roster_is_refused_with_the_reason(tmp_path: Path, what: str) -> None:
    raw, reason = SENSELESS[what]
    _, file = watching(tmp_path)
    file.write_bytes(raw)
    with pytest.raises(BadInput, match=reason) as refused:
        RosterWatch(file, playbook.public("operator")).first()
    assert str(file) in refused.value.detail


@pytest.mark.parametrize("what", LATER)
def test_a_roster_that_may_not_follow_is_said_once_and_the_one_before_stays(tmp_path: Path, what: str) -> None:
    raw, reason = LATER[what]
    watch, file = watching(tmp_path)
    taken: list[bytes] = []
    file.write_bytes(raw)
    with capture_logs() as lines:
        for _ in range(3):
            watch.look(taken.append)
    assert not taken
    assert len(lines) == 1
    assert lines[0]["log_level"] in {"warning", "error"}
    assert reason in f"{lines[0]['event']} {lines[0].get('reason', '')}"
    # And a good one of a higher version is taken all the same.
    file.write_bytes(signed(version=5))
    watch.look(taken.append)
    assert taken == [signed(version=5)]


def test_a_file_that_cannot_be_read_for_a_moment_is_read_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, file = watching(tmp_path)
    file.write_bytes(signed(version=5))
    os.utime(file, (0, 0))  # it has settled, so that only a change of it would be looked at
    taken: list[bytes] = []

    def fails(path: Path, mode: str) -> object:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "open", fails)
        watch.look(taken.append)
    assert not taken
    watch.look(taken.append)
    assert taken == [signed(version=5)]
