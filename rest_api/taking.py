"""Ends a connection whose client does not take what was written for him.

A transport keeps it for as long as he likes, and one that is closed waits for him to take the rest.
"""

import asyncio
from collections.abc import Callable
from typing import Final

TAKING_S: Final[float] = 10.0
"""How long a client may take nothing of an answer that waits for it."""
TAKEN_WITHIN_S: Final[float] = 60.0
"""How long it may take it little by little."""


class Taking:
    """Of one connection.

    Args:
        transport: What is written to.
        abort: Ends the connection at once.
    """

    def __init__(self, transport: asyncio.WriteTransport, abort: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._abort = abort
        self._timer: asyncio.TimerHandle | None = None
        self._untaken_bytes = 0
        self._until = 0.0

    def watch(self) -> None:
        """Something was written, and may wait."""
        size = self._transport.get_write_buffer_size()
        if size == 0:
            return
        self._until = self._loop.time() + TAKEN_WITHIN_S
        self._untaken_bytes = size + 1
        if self._timer is None:
            self._timer = self._loop.call_later(TAKING_S, self._look)

    def stop(self) -> None:
        """The connection is gone, or is no HTTP any more; harmless twice."""
        self._abort = _nothing  # else this and the connection would be a circle, which only the collector ends
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        size = self._transport.get_write_buffer_size()
        if size == 0:
            return
        if size >= self._untaken_bytes or self._loop.time() >= self._until:
            self._abort()
            return
        self._untaken_bytes = size
        self._timer = self._loop.call_later(TAKING_S, self._look)


def _nothing() -> None:
    pass
