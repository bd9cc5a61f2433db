"""Our own beats tell whether we hear: what the ceremonies are told of it, and when."""

from pathlib import Path

import pytest

from signer_service.protocol.machine import Tick
from signer_service.shell.ears import Ears
from tests.brokers import until
from tests.shell.test_copies_at_start import Started


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_end_of_hearing_and_its_return_are_told_once_each() -> None:
    clock = Clock()
    ears = Ears(clock, 1.5)
    clock.now = 100.0
    assert (ears.has_news(), ears.news()) == (False, ()), "before the first beat nothing is known"
    ears.heard()
    clock.now += 1.5
    assert (ears.has_news(), ears.news()) == (False, ())
    clock.now += 0.1
    assert (ears.has_news(), ears.news()) == (True, (False,))
    assert (ears.has_news(), ears.news()) == (False, ())
    ears.heard()
    assert (ears.has_news(), ears.news()) == (True, (True,))
    assert (ears.has_news(), ears.news()) == (False, ())


def test_a_silence_that_was_over_before_anybody_asked_is_told() -> None:
    """A process that stood still: the first thing that it sees may be the beat that comes back."""
    clock = Clock()
    ears = Ears(clock, 1.5)
    ears.heard()
    clock.now = 10.0
    ears.heard()
    ears.heard()
    assert (ears.has_news(), ears.news()) == (True, (False, True))
    assert (ears.has_news(), ears.news()) == (False, ())
    clock.now = 20.0
    ears.heard()
    clock.now = 30.0
    assert ears.news() == (False, True, False)
    ears.heard()
    assert ears.news() == (True,)


@pytest.mark.anyio
async def test_the_machine_learns_that_it_is_deaf_before_its_clock_has_its_say(tmp_path: Path) -> None:
    started = Started(tmp_path)
    started.ears.heard()
    started.now = 10.0

    async def turn() -> bool:
        started.ceremonies.feed(Tick())
        await until(started.ceremonies._queue.empty, "the turn")
        return started.ceremonies.state.soft.deaf_since is not None

    async with started.running():
        assert await turn()
        started.ears.heard()
        assert not await turn()
