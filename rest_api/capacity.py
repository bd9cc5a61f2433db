"""How much of a pod batches, WebSockets and bodies may take: there is always room for who asks for one signature."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rest_api.problems import Problem


class Window(asyncio.Semaphore):
    """Places, given in the order in which they are asked for."""

    def __init__(self, places: int) -> None:
        super().__init__(places)
        self._places = places

    def crowds(self, pending: int) -> bool:
        """Whether more than half of ``pending`` items are under way with a place of this window."""
        return 2 * (self._places - self._value) > pending


class Batches:
    """How much of a pod batches and WebSockets may take together: half of its pending limit, in the order they came.

    The other half is for requests that come one at a time.
    """

    MOST: Final = 8
    """Batches that run. Whoever was let in before there were so many waits, with his body, for one of them to end."""

    def __init__(self, pending_limit: int) -> None:
        self.window = Window(pending_limit // 2)
        self._places = asyncio.Semaphore(self.MOST)

    def full(self) -> bool:
        """Whether there are so many, or somebody waits, so that no further body should be read."""
        return self._places.locked()

    async def enter(self, ends_at: float) -> None:
        """Wait for a place, in the order of those who do, until this time of the loop; ``leave`` gives it back.

        Raises:
            Problem: 503 when there was none.
        """
        try:
            async with asyncio.timeout_at(ends_at):
                await self._places.acquire()
        except TimeoutError:
            raise Problem("in-flight-limit", "too many batches are under way") from None

    def leave(self) -> None:
        """A batch is over."""
        self._places.release()


class Bodies:
    """How much of bodies and messages that are still coming may be held, all of them together.

    The first ``FREE`` bytes of each count for nothing, so that whoever fills this with large bodies that never end
    keeps nobody else from signing a short message.
    """

    FREE: Final = 16 * 1024
    MOST: Final = 128 * 1024 * 1024

    def __init__(self) -> None:
        self._held = 0

    @contextmanager
    def one(self) -> Iterator[Callable[[int], bool]]:
        """One body; tell how many bytes of it there are now. False: that is too much."""
        held = 0

        def grow(size: int) -> bool:
            nonlocal held
            more = max(0, size - self.FREE) - held
            if self._held + more > self.MOST:
                return False
            held += more
            self._held += more
            return True

        try:
            yield grow
        finally:
            grow(0)
