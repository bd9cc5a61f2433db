"""Keep-alive HTTP/1.1 connections that cost little, so that the client is not what is measured.

One request at a time per connection (no pipelining: no real client does it). Parsing is httptools', as in uvicorn.
"""

import asyncio
from typing import NamedTuple, cast

import httptools

LIMIT_BYTES = 16 * 1024 * 1024


class Answer(NamedTuple):
    """``status`` 0: no answer came, and ``body`` says why."""

    status: int
    body: bytes
    retry_after: bool = False
    """Whether it says when to come again."""


LOST = Answer(0, b"connection lost")
NOT_CONNECTED = Answer(0, b"cannot connect")


class Connection(asyncio.Protocol):
    """One connection to one server, made when it is first used and again after it was lost."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._retry_after = False
        self._keep = True

    @property
    def connected(self) -> bool:
        """Whether the next request goes out on a connection that is open already."""
        return self._transport is not None

    def head(self, path: str, length: int) -> bytes:
        """The head of a POST of ``length`` bytes of JSON."""
        return (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nContent-Type: application/json\r\n"
            f"Accept: application/json\r\nContent-Length: {length}\r\n\r\n"
        ).encode()

    async def post(self, path: str, body: bytes) -> Answer:
        """Send one request and wait for its whole answer. Never raises for what a server or network does."""
        loop = asyncio.get_running_loop()
        if self._transport is None:
            try:
                await loop.create_connection(lambda: self, self._host, self._port)
            except OSError:
                return NOT_CONNECTED
        if self._transport is None:  # it was lost as soon as it was made
            return LOST
        self._waiting = loop.create_future()
        self._transport.write(self.head(path, len(body)) + body)
        return await self._waiting

    def close(self) -> None:
        """Close it; a request that waits is answered LOST."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with a fresh parser."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what is not HTTP ends the connection."""
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Answer who waits."""
        self._transport = self._parser = None
        self._finish(LOST)

    # --- httptools

    def on_message_begin(self) -> None:
        """A new answer."""
        self._parts = []
        self._size = 0
        self._retry_after = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers."""
        if name.lower() == b"retry-after":
            self._retry_after = value.isdigit()

    def on_body(self, body: bytes) -> None:
        """A piece of it."""
        self._size += len(body)
        if self._size > LIMIT_BYTES:
            self.close()
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """All of it."""
        assert self._parser is not None
        keep = self._parser.should_keep_alive()
        answer = Answer(self._parser.get_status_code(), b"".join(self._parts), self._retry_after)
        transport = self._transport
        if not keep and transport is not None:
            self._transport = None  # the next request makes a new connection
            transport.close()
        self._finish(answer)

    def _finish(self, answer: Answer) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)
