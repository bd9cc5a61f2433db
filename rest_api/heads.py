"""uvicorn's HTTP protocol with bounds on the part before a body: how large a head may be, and how long it may take.

Nothing of ours has run when a head arrives: no token was looked at, no rate counted. uvicorn keeps headers for as long
as they come, and waits for them for ever; so without this any stranger could fill the pod's memory, or its table of
connections (Slowloris). Bodies have their own cap and time (``dependencies.read_body``).
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 32 * 1024
"""Request line and headers: four times what browsers and proxies are used to send."""
HEAD_WITHIN_S: Final[float] = 10.0
"""From the connection, or from the first byte of a later request, to the end of its headers."""

_TOO_LARGE: Final = b"431 Request Header Fields Too Large"
_TOO_SLOW: Final = b"408 Request Timeout"


class HeadTooLarge(Exception):
    """Raised out of a callback to make the parser stop at once."""


class BoundedHttp(HttpToolsProtocol):
    """For ``uvicorn.Config(http=...)``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._asked = False
        self._begun = False
        self._parsed_bytes = 0
        self._unparsed_bytes = 0
        self._too_large = False
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_WITHIN_S, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._begun = False
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        # A header is handed over when it is whole: what comes of an endless one is counted here. Not the bytes in
        # which the head began, since the end of a body may be among them; one read brings 256 KiB at most.
        if not self._begun:
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > MAX_HEAD_BYTES:
                self._end(_TOO_LARGE)
                return
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_WITHIN_S, self._too_slow)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn sends when the parser stops."""
        if self._too_large:
            self._end(_TOO_LARGE)
        else:
            super().send_400_response(msg)

    # --- the parser's callbacks

    def on_message_begin(self) -> None:
        self._in_head = self._begun = self._asked = True
        self._parsed_bytes = self._unparsed_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    # --- ends

    def _count(self, size: int) -> None:
        self._parsed_bytes += size
        if self._parsed_bytes > MAX_HEAD_BYTES:
            self._too_large = True
            raise HeadTooLarge

    def _too_slow(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self._end(_TOO_SLOW if self._asked else b"")

    def _end(self, status: bytes) -> None:
        # uvicorn has no cycle before the first request.
        answered = getattr(self.cycle, "response_complete", True)
        if status and answered:
            self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()
        else:
            # Nobody asked, or an answer to an earlier request is on its way: nothing may be written into it.
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
