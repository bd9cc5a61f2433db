"""When a process takes its own readers for stuck: its beats are confirmed, and nobody's comes."""

from dataclasses import dataclass, field

import pytest

from common.kafka.hearing import DEAF_S, GAP_S, Hearing
from common.kafka.port import Delivery

BEAT_S = 0.5


@dataclass
class Process:
    """A process on a clock that only its test moves."""

    now: float = 1_000.0
    renewed: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hearing = Hearing(lambda: self.now, lambda: self.renewed.append(self.now))

    def beats(self, seconds: float, error: str | None = None, heard: bool = False) -> None:
        """Send beats for so long, each with this outcome."""
        for _ in range(round(seconds / BEAT_S)):
            self.now += BEAT_S
            self.hearing.delivered(Delivery("signer.v1.presence", 0, 7 if error is None else -1, error))
            if heard:
                self.hearing.heard()


@pytest.fixture
def process() -> Process:
    """It has just begun: its first beat was confirmed, and came back."""
    made = Process()
    made.beats(BEAT_S, heard=True)
    return made


def test_beats_that_are_confirmed_and_not_heard_renew_the_readers_once(process: Process) -> None:
    process.beats(DEAF_S - BEAT_S)
    assert process.renewed == []
    process.beats(BEAT_S)
    assert process.renewed == [process.now]
    process.beats(DEAF_S - BEAT_S)
    assert len(process.renewed) == 1, "a new reader gets as much time as the one before"
    process.beats(BEAT_S)
    assert len(process.renewed) == 2, "and it may stick, too"


def test_who_hears_anything_renews_nothing(process: Process) -> None:
    process.beats(10 * DEAF_S, heard=True)
    for _ in range(10):
        process.beats(DEAF_S - BEAT_S)
        process.hearing.heard()
    assert process.renewed == []


def test_while_the_broker_is_away_nobody_is_deaf(process: Process) -> None:
    process.beats(DEAF_S - BEAT_S)
    process.hearing.heard()
    process.beats(10 * DEAF_S, error="_MSG_TIMED_OUT")
    assert process.renewed == []
    # It is back. All of that time is no more than a gap.
    process.beats(DEAF_S - GAP_S)
    assert process.renewed == []
    process.beats(GAP_S)
    assert len(process.renewed) == 1


def test_a_process_that_stood_still_is_not_deaf(process: Process) -> None:
    process.beats(BEAT_S)
    process.now += 100 * DEAF_S
    process.beats(DEAF_S - GAP_S - BEAT_S)
    assert process.renewed == []


def test_beats_that_are_confirmed_all_at_once_count_as_one(process: Process) -> None:
    for _ in range(1_000):
        process.hearing.delivered(Delivery("signer.v1.presence", 0, 7, None))
    assert process.renewed == []
