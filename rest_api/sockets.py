"""WebSockets under uvicorn: its options, a goodbye that waits for answers, and how many there may be.

uvicorn ends each WebSocket at once when the server stops, whatever is still to come on it. Ours are ended by the
application, which knows: it sends the answers that are under way, then a close frame with a reason.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

MAX_FRAME_BYTES: Final = 512 * 1024
"""As much as a body may have: 64 KiB of text may be written with six characters for each byte."""
PING_EVERY_S: Final = 20.0
PONG_WITHIN_S: Final = 45.0
"""More than the longest deadline: while a window is full nothing is read, a pong neither."""
MOST_CONNECTIONS: Final = 512


class SignSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, except in how it ends."""

    def shutdown(self) -> None:
        """Leave an open connection to the application, which was told by the gateway's drain; uvicorn waits for it."""
        if not self.handshake_complete or self.close_sent:
            super().shutdown()

    def keepalive_timeout(self) -> None:
        """Cut off a peer that answers no ping: a mere close would wait for ever for it to take what it was sent."""
        super().keepalive_timeout()
        self.transport.abort()


UVICORN: Final[dict[str, Any]] = {
    "ws": SignSocketProtocol,
    "ws_max_size": MAX_FRAME_BYTES,
    "ws_ping_interval": PING_EVERY_S,
    "ws_ping_timeout": PONG_WITHIN_S,
    # A kilobyte of a stranger's could unpack to a full frame; our own messages are mostly incompressible.
    "ws_per_message_deflate": False,
}
"""Keyword arguments of ``uvicorn.Config``."""


class Sockets:
    """The WebSockets that are open on this pod."""

    def __init__(self, most: int = MOST_CONNECTIONS) -> None:
        self._most = most
        self._open = 0

    def full(self) -> bool:
        """Whether no further one should be taken."""
        return self._open >= self._most

    def count(self) -> int:
        """How many there are."""
        return self._open

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count a connection while it is open."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
