"""Whether the reader of the ceremony log stands still before records that are there, or behind the end of another log.

Nobody's beats come on that log, and for hours nothing may: its silence says nothing. So the broker is asked now and
then where the log ends, by another client than the one in question. A log that is shorter than what was read of it is
another one: of a topic that was made again the client library does not always say so.
"""

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Final

from common.errors import Unavailable
from common.kafka.port import TailConsumer

LOOK_S: Final = 20.0
"""Between two questions: records that were there at one, and not a single one read until the next."""


class Sight(Enum):
    """What the looks show."""

    WELL = "well"
    STUCK = "stuck"
    """Records were there at both, and none was read in between: the reader is to be renewed."""
    LOST = "lost"
    """At both the log ended before what was read of it."""


class Unread:
    """What two looks in a row show. No IO."""

    def __init__(self) -> None:
        self._unread_from: int | None = None
        self._shorter = False

    def looked(self, next_offset: int, end: int) -> Sight:
        """Take a look.

        Args:
            next_offset: Where the reader is.
            end: Where the log ends (exclusive).
        """
        stands, shorter = self._unread_from == next_offset, self._shorter
        # A new client gets as much time as the one before.
        self._unread_from = next_offset if next_offset < end and not stands else None
        self._shorter = end < next_offset
        if stands and next_offset < end:
            return Sight.STUCK
        return Sight.LOST if shorter and self._shorter else Sight.WELL


async def watch(
    asker: TailConsumer,
    topic: str,
    next_offset: Callable[[], int],
    renew: Callable[[], None],
    lost: Callable[[int, int], None],
    look_s: float,
) -> None:
    """Ask every ``look_s`` seconds through ``asker``, until cancelled: a replica signs on without its log.

    Args:
        asker: A client that does not read the log.
        topic: The log.
        next_offset: Where the reader is.
        renew: Called each time that it is stuck.
        lost: Called at each look at a lost log, with where the reader is and where the log ends.
        look_s: Between two looks. One at which the broker gives no answer shows nothing.
    """
    unread = Unread()
    while True:
        await asyncio.sleep(look_s)
        # Before the question: what is read while the answer is under way lies behind the end that it tells.
        at = next_offset()
        try:
            marks = await asker.watermarks(topic)
        except Unavailable:
            unread = Unread()
            continue
        sight = unread.looked(at, marks.high)
        if sight is Sight.STUCK:
            renew()
        elif sight is Sight.LOST:
            lost(at, marks.high)
