"""Work that is cheaper together."""

import asyncio

from common.pacing import Pace
from tests.brokers import until


def test_what_comes_alone_is_done_in_the_same_turn_and_what_follows_at_once_is_done_together() -> None:
    async def scenario() -> list[list[int]]:
        waiting: list[int] = []
        done: list[list[int]] = []
        interval_s = 0.05

        def work() -> None:
            done.append(list(waiting))
            waiting.clear()

        loop = asyncio.get_running_loop()
        pace = Pace(loop, interval_s, work)

        def add(number: int) -> None:
            waiting.append(number)
            pace.ask()

        add(1)
        await asyncio.sleep(0)
        assert done == [[1]], "alone: at once"
        began = loop.time()
        for number in (2, 3):
            add(number)
            await asyncio.sleep(0)
        assert done == [[1]]
        await until(lambda: len(done) == 2, "the second time")
        # A timer of the loop may ring a millisecond early.
        assert loop.time() - began >= interval_s - 0.002
        await asyncio.sleep(interval_s)
        add(4)
        await asyncio.sleep(0)
        return done

    assert asyncio.run(scenario()) == [[1], [2, 3], [4]]


def test_an_interval_that_changes_is_asked_for_each_time() -> None:
    async def scenario() -> list[str]:
        intervals = iter([0.0, 3600.0, 0.0])
        done: list[str] = []
        loop = asyncio.get_running_loop()
        pace = Pace(loop, lambda: next(intervals), lambda: done.append("done"))
        for _ in range(4):
            pace.ask()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return done

    assert asyncio.run(scenario()) == ["done", "done"], "none for the first, an hour after the second"
