"""uvicorn's HTTP protocol with bounds on what a client may make us wait for: a head, a body, the taking of an answer.

Nothing of ours has run when a head arrives: no token was looked at, no rate counted. uvicorn keeps headers for as long
as they come, and waits for them for ever; so without this any stranger could fill the pod's memory, or its table of
connections (Slowloris). It also reads a body on for as long as one comes, after the answer too, and keeps an answer
for whoever never takes it. How large a body may be, its route says (``dependencies.read_body``); how many connections
there may be, ``doors``.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final
from weakref import ref

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from rest_api import doors, turns

MAX_HEAD_BYTES: Final = 32 * 1024
"""Request line and headers: four times what browsers and proxies are used to send."""
HEAD_WITHIN_S: Final[float] = 10.0
"""From the connection, or from the first byte of a later request, to the end of its headers."""

MOST_PIPELINED: Final = 16
"""Requests that may wait on a connection for the answer to one before them. All that one read brings are parsed at
once, and each is a kilobyte of ours; browsers and clients send one at a time."""
BODY_WITHIN_S: Final[float] = 31.0
"""From the end of the headers to that of the body. A route gives up a second earlier, and says so."""
TAKING_S: Final[float] = 10.0
"""How long a client may take nothing of an answer that waits for it."""
TAKEN_WITHIN_S: Final[float] = 60.0
"""How long it may take it little by little."""

_TOO_LARGE: Final = b"431 Request Header Fields Too Large"
_TOO_SLOW: Final = b"408 Request Timeout"


class HeadTooLarge(Exception):
    """Raised out of a callback to make the parser stop at once."""


class TooManyAtOnce(Exception):
    """The same, for more requests than may wait."""


def _gone(cycle: "ref[RequestResponseCycle]") -> Callable[[], bool]:
    """Whether nobody waits for that answer any more. It holds nothing: the request's scope holds it."""

    def gone() -> bool:
        there = cycle()
        return there is None or there.disconnected

    return gone


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
        self._body_timer: asyncio.TimerHandle | None = None
        self._taking_timer: asyncio.TimerHandle | None = None
        self._untaken_bytes = 0
        self._taken_until = 0.0
        self._door = doors.of(self.server_state)
        self._answering: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_WITHIN_S, self._too_slow)
        self._door.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        self._give_up()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        cycle.scope[turns.GONE] = _gone(ref(cycle))  # type: ignore[typeddict-unknown-key]
        super()._start_asgi_task(cycle, app)

    def _give_up(self) -> None:
        """Nobody will take any more answers. uvicorn tells this to the last request only, not to those before it that
        came with it; they would be answered into a closed connection, each an error with a traceback in the log."""
        self.pipeline.clear()
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _abort(self) -> None:
        self._give_up()
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.abort()

    def handle_websocket_upgrade(self) -> None:
        """Another protocol goes on with this connection."""
        self._let_go()
        super().handle_websocket_upgrade()

    def _let_go(self) -> None:
        self._door.leave(self)
        self._stop_timer()
        for timer in (self._body_timer, self._taking_timer):
            if timer is not None:
                timer.cancel()
        self._body_timer = self._taking_timer = None

    def cut(self) -> None:
        """End the connection at once, to make room for others."""
        self._abort()

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
        if self.transport.is_closing():
            return
        if self._too_large:
            self._end(_TOO_LARGE)
        else:
            super().send_400_response(msg)

    # --- the parser's callbacks

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MOST_PIPELINED:
            self._abort()
            raise TooManyAtOnce
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
        self._body_timer = self.loop.call_later(BODY_WITHIN_S, self._body_too_slow)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        self._door.owe(self)
        super().on_message_complete()

    # --- the answer

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_taking()
        if self.cycle.response_complete:
            self._door.wait(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_taking()

    def _watch_taking(self) -> None:
        size = self.transport.get_write_buffer_size()
        if size == 0:
            return
        self._taken_until = self.loop.time() + TAKEN_WITHIN_S
        self._untaken_bytes = size + 1
        if self._taking_timer is None:
            self._taking_timer = self.loop.call_later(TAKING_S, self._look_at_taking)

    def _look_at_taking(self) -> None:
        self._taking_timer = None
        size = self.transport.get_write_buffer_size()
        if size == 0:
            return
        if size >= self._untaken_bytes or self.loop.time() >= self._taken_until:
            self._abort()
            return
        self._untaken_bytes = size
        self._taking_timer = self.loop.call_later(TAKING_S, self._look_at_taking)

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

    def _body_too_slow(self) -> None:
        self._body_timer = None
        if self.transport.is_closing():
            return
        # uvicorn has no cycle before the first request.
        if getattr(self.cycle, "response_complete", True):
            self.transport.close()
        else:
            self._abort()

    def _end(self, status: bytes) -> None:
        # uvicorn has no cycle before the first request.
        answered = getattr(self.cycle, "response_complete", True)
        if status and answered:
            self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self._watch_taking()
            self.transport.close()
        else:
            # Nobody asked, or an answer to an earlier request is on its way: nothing may be written into it.
            self._abort()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
