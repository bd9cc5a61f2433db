"""A broker that says which versions it knows and that it is there, and speaks no more of Kafka's protocol.

Layouts: Kafka's protocol guide, ApiVersions v0 and Metadata v1 to v4, big-endian.
"""

import contextlib
import socket
import socketserver
import struct
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

METADATA, API_VERSIONS = 3, 18
HOST = "127.0.0.1"
_UNSUPPORTED_VERSION = 35

APACHE_0_10_2: Mapping[int, int] = {0: 2, 1: 3, 2: 1, METADATA: 2, 8: 2, 9: 2, 10: 0, 11: 1, 12: 0, 13: 0, 14: 0}
"""The newest version of each request that a broker of February 2017 knows: before idempotence (0.11)."""


class FakeBroker:
    """Node 1 of a cluster of one. It answers ApiVersions and Metadata, and leaves all else without an answer."""

    def __init__(self, newest: Mapping[int, int], topics: Sequence[str] = ()) -> None:
        self.newest = {**newest, API_VERSIONS: 0}
        self.topics = tuple(topics)
        broker = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                broker._serve(self.request)

        self._sockets: set[socket.socket] = set()
        self._server = socketserver.ThreadingTCPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    @property
    def bootstrap(self) -> str:
        """Where it is."""
        return f"{HOST}:{self.port}"

    def _serve(self, connection: socket.socket) -> None:
        self._sockets.add(connection)
        try:
            while (head := _exactly(connection, 4)) is not None:
                request = _exactly(connection, struct.unpack(">i", head)[0])
                if request is None:
                    return
                api, version, correlation = struct.unpack_from(">hhi", request)
                if (body := self._answer(api, version)) is not None:
                    connection.sendall(struct.pack(">ii", 4 + len(body), correlation) + body)
        except OSError:
            pass
        finally:
            self._sockets.discard(connection)

    def _answer(self, api: int, version: int) -> bytes | None:
        if api == API_VERSIONS:
            known = b"".join(struct.pack(">hhh", each, 0, newest) for each, newest in sorted(self.newest.items()))
            error = _UNSUPPORTED_VERSION if version > 0 else 0
            return struct.pack(">hi", error, len(self.newest)) + known
        return self._metadata(version) if api == METADATA else None

    def _metadata(self, version: int) -> bytes:
        nodes = [struct.pack(">i", 1) + _text(HOST) + struct.pack(">ih", self.port, -1)]
        replicas = struct.pack(">ii", 1, 1)
        partition = struct.pack(">ihii", 1, 0, 0, 1) + replicas + replicas
        topics = [struct.pack(">h", 0) + _text(name) + b"\0" + partition for name in self.topics]
        cluster = _text("fake") if version >= 2 else b""
        throttled = struct.pack(">i", 0) if version >= 3 else b""
        return throttled + _array(nodes) + cluster + struct.pack(">i", 1) + _array(topics)


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _array(entries: Sequence[bytes]) -> bytes:
    return struct.pack(">i", len(entries)) + b"".join(entries)


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    found = b""
    while len(found) < size:
        more = connection.recv(size - len(found))
        if not more:
            return None
        found += more
    return found
