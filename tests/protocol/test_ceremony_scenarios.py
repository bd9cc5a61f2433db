"""Each scenario of ``tests/scenarios`` runs: a bug is first a few lines of text there, then a fix."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from common.wire import codec
from common.wire.messages import CeremonyRecord
from tests import playbook
from tests.world import CALM, HOSTILE, World

SCENARIOS = sorted(path for path in (Path(__file__).parent.parent / "scenarios").glob("*.txt") if path.stem.islower())


def numbers(words: Iterable[str]) -> list[int]:
    return [int(word) for word in words]


class Stage:
    """Runs one scenario, line by line. An unknown word is an error, never skipped."""

    def __init__(self) -> None:
        self._world: World | None = None

    @property
    def world(self) -> World:
        assert self._world is not None, "begin with 'committee T of N'"
        return self._world

    def do(self, line: str) -> None:
        word, *rest = line.split()
        action: Callable[[list[str]], None] = getattr(self, f"_{word}")
        action(rest)

    def _committee(self, rest: list[str]) -> None:
        threshold, _, size = rest
        self._world = World(int(threshold), int(size))

    def _weather(self, rest: list[str]) -> None:
        self.world.weather = {"calm": CALM, "hostile": HOSTILE}[rest[0]]
        if len(rest) > 1:
            self.world.random.seed(int(rest[1]))

    def _start(self, rest: list[str]) -> None:
        self.world.start(*([] if rest == ["all"] else numbers(rest)))

    def _stop(self, rest: list[str]) -> None:
        for index in numbers(rest):
            self.world.stop(index)

    def _lose(self, rest: list[str]) -> None:
        for index in numbers(rest):
            self.world.lose_disk(index)

    def _run(self, rest: list[str]) -> None:
        self.world.run_for(int(rest[0]))

    def _ask(self, rest: list[str]) -> None:
        self.world.ask_refresh(int(rest[0]))

    def _mute(self, rest: list[str]) -> None:
        muted = frozenset(rest[1:])

        def tamper(record: CeremonyRecord, _: World) -> list[CeremonyRecord]:
            return [] if type(record).__name__ in muted else [record]

        self.world.seats[int(rest[0])].tamper = tamper

    def _crash(self, rest: list[str]) -> None:
        self.world.seats[int(rest[0])].crash_at = (int(rest[1]), rest[2])

    def _roster(self, rest: list[str]) -> None:
        self.world.give_roster(self._signed(playbook.House(), rest))

    def _foreign(self, rest: list[str]) -> None:
        raw = self._signed(playbook.House("another operator"), rest[1:])
        self.world.say(1, codec.decode_ceremony(raw))

    @staticmethod
    def _signed(house: playbook.House, rest: list[str]) -> bytes:
        version, threshold, _, *seats = rest
        return house.roster(int(threshold), numbers(seats), version=int(version.rstrip(":")))

    def _noise(self, rest: list[str]) -> None:
        for _ in range(int(rest[0])):
            self.world.append(self.world.entropy(100))

    def _replay(self, rest: list[str]) -> None:
        assert not rest
        for raw in list(self.world.log):
            self.world.append(raw)

    def _until(self, rest: list[str]) -> None:
        if rest[0] == "ended":
            self.world.run(lambda: self.world.key().ended >= int(rest[1]))
        else:
            _, epoch, _, *seats = rest
            self.world.run(lambda: self.world.agrees(int(epoch), numbers(seats)))

    def _expect(self, rest: list[str]) -> None:
        what, *values = rest
        world, key = self.world, self.world.key()
        if what == "signs":
            playbook.every_subset_signs(world.keys_at())
        elif what == "quiet":
            assert key.attempt is None
            assert not key.opens
        elif what == "epoch":
            assert key.epoch == int(values[0])
        elif what == "attempts":
            assert key.ended == int(values[0])
        elif what == "phase":
            assert key.attempt is not None
            assert key.attempt.phase.value == values[0]
        elif what == "holders":
            assert sorted(world.keys_at()) == numbers(values)
        elif what == "held":
            *epochs, _, seat = values
            state = world.seats[int(seat)].state
            assert state is not None
            assert [held.epoch for held in state.of_key(playbook.KEY).held] == numbers(epochs)
        else:
            assert what == "qualified", f"no such expectation: {what}"
            assert key.current is not None
            assert key.current.expected is not None
            assert list(key.current.expected.qualified) == numbers(values)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    stage = Stage()
    for line in path.read_text().splitlines():
        words = line.split("#")[0].strip()
        if words:
            stage.do(words)


def test_a_scenario_can_fail() -> None:
    stage = Stage()
    for line in ("committee 2 of 3", "start all", "until epoch 1 at 1 2 3"):
        stage.do(line)
    with pytest.raises(AssertionError):
        stage.do("expect epoch 2")
    with pytest.raises(AttributeError):
        stage.do("explode 1")
