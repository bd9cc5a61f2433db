"""Takes connections from a listening socket: in one turn of the event loop as many as wait there, up to a bound.

libuv takes one in a turn, and in a crowd a turn is long: whoever comes would wait in the kernel, unread and not
refused, for as many turns as there are connections before him; once the kernel's queue is full he is not even that, and
tries again after one, two, four and eight seconds.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

BACKLOG: Final = 2048
"""How many may wait in the kernel, and how many are still taken at the close: in a flood more come all the time."""
AT_ONCE: Final = 256
"""How many may have been taken and have no protocol yet. Each costs a tenth of a millisecond. A bound, because those
who are inside want something, too, and because nobody counts these (``doors.KEPT_BACK`` has their descriptors)."""
AGAIN_S: Final = 0.1
"""How long nobody is taken when the process or the machine has no descriptor left."""
SAY_AGAIN_S: Final = 10.0
"""As often it is said, while it lasts."""

_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_logger = logging.getLogger(__name__)


class Listener:
    """One listening socket, from its making to ``close``.

    Args:
        listening: Bound, listening, not blocking; ours from now on.
        serve: Makes the protocol of a connection.
    """

    def __init__(self, listening: socket.socket, serve: Callable[[], asyncio.Protocol]) -> None:
        self.listening = listening
        self._loop = asyncio.get_running_loop()
        self._serve = serve
        self._serving = True
        self._making: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        self._say_at = self._loop.time()
        self._loop.add_reader(listening.fileno(), self._take)

    def is_serving(self) -> bool:
        """Whether connections are taken."""
        return self._serving

    async def close(self) -> None:
        """Take no more connections but those that wait already, which would be reset; return when they are served."""
        if not self._serving:
            return
        self._serving = False
        self._loop.remove_reader(self.listening.fileno())
        if self._again is not None:
            self._again.cancel()
        left = BACKLOG
        try:
            while left:
                await self._made()
                taken = self._take_some(left)
                if not taken:
                    break
                left -= taken
        except OSError as error:
            _logger.warning("connections that waited are lost: %s", error.strerror)
        finally:
            self.listening.close()
        await self._made()

    async def _made(self) -> None:
        """Wait until each connection that was taken has its protocol."""
        if self._making:
            await asyncio.wait(self._making)

    def _take(self) -> None:
        try:
            self._take_some(AT_ONCE)
        except OSError as error:
            # No descriptor or no memory: the socket stays readable, and looked at at once it would say so for ever.
            if self._loop.time() >= self._say_at:
                self._say_at = self._loop.time() + SAY_AGAIN_S
                _logger.warning("no connection can be taken: %s", error.strerror)
            self._loop.remove_reader(self.listening.fileno())
            self._again = self._loop.call_later(AGAIN_S, self._loop.add_reader, self.listening.fileno(), self._take)

    def _take_some(self, most: int) -> int:
        """Returns how many were taken, those that were gone again included."""
        room = max(0, min(most, AT_ONCE - len(self._making)))
        for taken in range(room):
            if not self._take_one():
                return taken
        return room

    def _take_one(self) -> bool:
        try:
            connection, _ = self.listening.accept()
        except BlockingIOError:
            return False
        except ConnectionAbortedError:
            return True
        except OSError as error:
            if self._serving or error.errno in _SHORTAGES:
                raise
            return True  # of that connection alone (accept(2) has many): those behind it are not lost for it
        connection.setblocking(False)
        task = self._loop.create_task(self._make(connection))
        self._making.add(task)
        task.add_done_callback(self._making.discard)
        return True

    async def _make(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._serve, connection)
        except OSError as error:
            connection.close()
            _logger.debug("a connection went before it was served: %s", error.strerror)
