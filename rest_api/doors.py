"""How many connections there may be, and which of them goes when one more comes.

A stranger can open as many as there are descriptors. Refusing the newest would then refuse everybody; so the one goes
that has kept us waiting longest: for a head, or for the rest of a body. Whoever asks and is owed an answer stays.
"""

import resource
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from uvicorn.server import ServerState

from rest_api import sockets
from rest_api.accepting import AT_ONCE

MOST_CONNECTIONS: Final[int] = 4096
"""Of HTTP. Each costs some ten kilobytes while it says nothing."""
KEPT_BACK: Final = sockets.MOST_CONNECTIONS + 2 * AT_ONCE + 256
"""Descriptors for everything else: WebSockets, those who were taken and did not enter yet, as many that were cut
and are not closed yet; the broker, the admin port, files."""
LEAST: Final = 64


class Waiting(Protocol):
    """A connection that can be ended at once."""

    def cut(self) -> None:
        """End it."""


class Door:
    """The connections of one server, by who waits for whom.

    Args:
        most: How many there may be.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._keep_us_waiting: dict[Waiting, None] = {}
        self._are_owed: set[Waiting] = set()

    def __len__(self) -> int:
        return len(self._keep_us_waiting) + len(self._are_owed)

    def enter(self, connection: Waiting) -> None:
        """It was made, and has said nothing yet. Cuts the one that has kept us waiting longest, or else this one."""
        self._keep_us_waiting[connection] = None
        if len(self) > self._most:
            longest = next(iter(self._keep_us_waiting))
            del self._keep_us_waiting[longest]
            longest.cut()

    def owe(self, connection: Waiting) -> None:
        """Its request is whole."""
        if connection in self._keep_us_waiting:
            del self._keep_us_waiting[connection]
            self._are_owed.add(connection)

    def wait(self, connection: Waiting) -> None:
        """It has its answers. Where the request was not whole yet, it keeps its place."""
        if connection in self._are_owed:
            self._are_owed.discard(connection)
            self._keep_us_waiting[connection] = None

    def leave(self, connection: Waiting) -> None:
        """It is gone, or is no HTTP any more; harmless twice."""
        self._keep_us_waiting.pop(connection, None)
        self._are_owed.discard(connection)


_doors: WeakKeyDictionary[ServerState, Door] = WeakKeyDictionary()


def of(server: ServerState) -> Door:
    """The one door of a server; it is made by its first connection."""
    door = _doors.get(server)
    if door is None:
        door = _doors[server] = Door(room())
    return door


def room() -> int:
    """How many connections the descriptors of this process are enough for, ``MOST_CONNECTIONS`` at most.

    A quarter where there are few: fewer would be no service, and not everything else is used up at the same time.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(LEAST, min(MOST_CONNECTIONS, max(soft // 4, soft - KEPT_BACK)))


def widen() -> None:
    """Take the descriptors that we are allowed: a shell gives 1024, and lets us ask for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + KEPT_BACK
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
