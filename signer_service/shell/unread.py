"""Whether the reader of the ceremony log stands still before records that are there.

Nobody's beats come on that log, and for hours nothing may: its silence says nothing. So the broker is asked now and
then where the log ends, by another client than the one in question.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from common.errors import Unavailable
from common.kafka.port import TailConsumer

LOOK_S: Final = 20.0
"""Between two questions: records that were there at one, and not a single one read until the next."""


class Unread:
    """What two looks in a row show. No IO."""

    def __init__(self) -> None:
        self._before: int | None = None

    def looked(self, next_offset: int, end: int) -> bool:
        """Whether the reader is to be renewed.

        Args:
            next_offset: Where it is.
            end: Where the log ends (exclusive).
        """
        stands = self._before == next_offset
        # A new client gets as much time as the one before.
        self._before = next_offset if next_offset < end and not stands else None
        return stands and next_offset < end


async def watch(
    asker: TailConsumer, topic: str, next_offset: Callable[[], int], renew: Callable[[], None], look_s: float
) -> None:
    """Ask every ``look_s`` seconds through ``asker``, until cancelled; a broker that gives no answer shows nothing."""
    unread = Unread()
    while True:
        await asyncio.sleep(look_s)
        try:
            marks = await asker.watermarks(topic)
        except Unavailable:
            unread = Unread()
            continue
        if unread.looked(next_offset(), marks.high):
            renew()
