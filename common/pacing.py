"""Work that is cheaper together: done at once after a pause, and else so seldom that more of it comes together."""

import asyncio
from collections.abc import Callable


class Pace:
    """Calls ``work`` at the end of the turn in which it was asked to, but not within ``interval_s`` of the last time.

    So a single request never waits, and of many that come one after the other most travel with others: each record has
    costs of its own (a signature, a verification, the broker's time) at every hop. An interval that changes is asked
    for anew each time.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, interval_s: float | Callable[[], float], work: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._interval_s = interval_s if callable(interval_s) else lambda: interval_s
        self._work = work
        self._due = False
        self._not_before = 0.0

    def ask(self) -> None:
        """There is something to do."""
        if self._due:
            return
        self._due = True
        wait = self._not_before - self._loop.time()
        if wait > 0:
            self._loop.call_later(wait, self._run)
        else:
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._due = False
        self._not_before = self._loop.time() + self._interval_s()
        self._work()
