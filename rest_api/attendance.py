"""How many WebSockets there may be, and which of them goes when one more comes.

As with connections (``doors``): refusing the newest would let whoever takes all places keep everybody else out. First
goes one on which nobody has said yet who he is, then one on which nothing is under way; of these the one that has been
so, or has said nothing, for longest. Whoever is known and owed an answer stays, from the moment his message came until
the answer has left.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from rest_api.doors import Waiting
from rest_api.sockets import MOST_CONNECTIONS


class Sockets:
    """The WebSockets that are open on this pod.

    Args:
        most: How many there may be.
    """

    def __init__(self, most: int = MOST_CONNECTIONS) -> None:
        self._most = most
        self._strangers: dict[Waiting, None] = {}
        self._idle: dict[Waiting, None] = {}
        self._busy: set[Waiting] = set()

    def full(self) -> bool:
        """Whether no further one should be taken: each of so many is owed an answer."""
        return len(self._busy) >= self._most

    def count(self) -> int:
        """How many there are."""
        return len(self._strangers) + len(self._idle) + len(self._busy)

    @contextmanager
    def one(self, connection: Waiting) -> Iterator[None]:
        """Count a connection while it is open; another one is cut for it, if there are too many."""
        if self.count() >= self._most and (line := self._strangers or self._idle):
            longest = next(iter(line))
            del line[longest]
            longest.cut()
        self._strangers[connection] = None
        try:
            yield
        finally:
            self._strangers.pop(connection, None)
            self._idle.pop(connection, None)
            self._busy.discard(connection)

    def known(self, connection: Waiting) -> None:
        """A message that is owed its answer said who is there."""
        if connection in self._strangers:
            del self._strangers[connection]
            self._busy.add(connection)

    def busy(self, connection: Waiting) -> None:
        """A message came. Whoever is a stranger still is one; those who were silent for longer go before him."""
        if connection in self._strangers:
            del self._strangers[connection]
            self._strangers[connection] = None
        elif connection in self._idle:
            del self._idle[connection]
            self._busy.add(connection)

    def idle(self, connection: Waiting) -> None:
        """All answers have left."""
        if connection in self._busy:
            self._busy.discard(connection)
            self._idle[connection] = None
