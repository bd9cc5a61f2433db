"""uvicorn's HTTP protocol with bounds on what a client may make us wait for, or hold: a head, a body, an answer.

Nothing of ours has run when a head arrives: no token was looked at, no rate counted. uvicorn keeps headers for as long
as they come, and waits for them for ever; so without this any stranger could fill the pod's memory, or its table of
connections (Slowloris). It also reads a body on for as long as one comes, after the answer too, and keeps an answer
for whoever never takes it (``taking``). How large a body may be, its route says (``dependencies.read_body``); how many
connections there may be, ``doors``.
"""

import asyncio
from typing import Any, Final

import httptools
import uvicorn
from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from common.wire.messages import MAX_DEADLINE_MS
from rest_api import cycles, doors, turns, upgrades
from rest_api.taking import Taking
from rest_api.turnstile import STATE, Turnstile

MAX_HEAD_BYTES: Final = 32 * 1024
"""Request line and headers: four times what browsers and proxies are used to send. As much again may wait, of heads
that came before the answer to one before them; and of bodies what one read brings (``cycles.Flow``)."""
HEAD_WITHIN_S: Final[float] = 10.0
"""From the connection, or from the first byte of a later request, to the end of its headers."""
SLICE_BYTES: Final = 8 * 1024
"""As much is parsed at a time, and then counted. A read may bring 256 KiB."""

MOST_PIPELINED: Final = 16
"""Requests that may wait on a connection for the answer to one before them. All that one read brings are parsed at
once, and each is a kilobyte of ours; browsers and clients send one at a time."""
BODY_WITHIN_S: Final[float] = MAX_DEADLINE_MS / 1000 + 1
"""From the end of the headers to that of the body. A route gives up at its deadline, and says so."""

_BAD: Final = b"400 Bad Request"
_TOO_LARGE: Final = b"431 Request Header Fields Too Large"
_TOO_SLOW: Final = b"408 Request Timeout"

_OVERRIDDEN: Final = (
    "_should_upgrade _start_asgi_task _unset_keepalive_if_required handle_websocket_upgrade"
    " on_response_complete timeout_keep_alive_handler"
)


def check(protocol: type) -> None:
    """Refuse a protocol that lacks what is called or overridden here: the bounds would be gone, and nobody told.

    Raises:
        ImportError: with the names.
    """
    missing = [name for name in _OVERRIDDEN.split() if not callable(getattr(protocol, name, None))]
    if missing:
        raise ImportError(
            f"uvicorn {uvicorn.__version__} has no {', '.join(missing)}: install the version of requirements.lock"
        )


check(HttpToolsProtocol)


class Stop(Exception):
    """Raised out of a callback to make the parser stop at once."""


class BoundedHttp(HttpToolsProtocol):
    """For ``uvicorn.Config(http=...)``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._asked = self._told = False
        self._parsed_bytes = self._unparsed_bytes = 0
        self._too_large = self._over = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._door = doors.of(self.server_state)
        self._answering: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = cycles.Flow(transport, self.pipeline)
        self._taking = Taking(transport, self._abort)
        self._head_timer = self.loop.call_later(HEAD_WITHIN_S, self._too_slow)
        self._door.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        self._give_up()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        async def watched(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
            try:
                await app(scope, receive, send)
            finally:
                # Where it failed in the middle of an answer, uvicorn closes, and waits for that half to be taken.
                if not cycle.response_complete and not self._over:
                    self._taking.watch()

        self._answering = cycle
        if (refusal := self._refusal(cycle)) is not None:
            cycle.response_started = cycle.response_complete = True
            self.transport.write(refusal)
            self.on_response_complete()
            return
        cycle.scope[turns.GONE] = cycles.gone(cycle)  # type: ignore[typeddict-unknown-key]
        super()._start_asgi_task(cycle, watched)

    def _refusal(self, cycle: RequestResponseCycle) -> bytes | None:
        turnstile: Turnstile | None = self.app_state.get(STATE)
        if turnstile is None or not cycle.keep_alive or self.flow.write_paused:
            return None
        return turnstile.refusal(cycle.scope, cycle.default_headers)

    def _owes(self) -> bool:
        """Whether some answer is not whole yet. They are made in order: the one that was asked for last tells."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn has none before the first request
        return cycle is not None and not cycle.response_complete

    def _give_up(self) -> None:
        """Nobody will take any more answers. uvicorn tells this to the last request only, not to those before it that
        came with it; they would be answered into a closed connection, each an error with a traceback in the log."""
        for cycle, _ in self.pipeline:
            # uvicorn does so when it has been answered; else it and this would be a circle, left to the collector.
            cycle.on_response = cycles.nothing
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
        """Another protocol goes on with this connection: not while an answer of ours would be written into its."""
        if self._owes():
            self._abort()
            return
        self._let_go()
        super().handle_websocket_upgrade()

    def _let_go(self) -> None:
        self._over = True
        self._door.leave(self)
        self._stop_timer()
        self._stop_body_timer()
        self._taking.stop()
        # uvicorn leaves it where the connection was reset: all of this would stay until then.
        self._unset_keepalive_if_required()

    def cut(self) -> None:
        """End the connection at once, to make room for others."""
        self._abort()

    # --- what comes

    def data_received(self, data: bytes) -> None:
        """Parse slice by slice. In place of uvicorn's, which warns of each request that it does not understand."""
        self._unset_keepalive_if_required()
        for at in range(0, len(data), SLICE_BYTES):
            if not self._parse(data[at : at + SLICE_BYTES]):
                break
        self._wait_on()

    def _parse(self, part: bytes) -> bool:
        """Whether to go on with the next."""
        self._told = False
        try:
            self.parser.feed_data(part)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
                return False
            plain = upgrades.plain_head(self.parser, self.url, self.headers)
            self.parser = upgrades.parser_of(self)
            return self._parse(plain + part[upgrade.args[0] :])  # as deep as requests may wait
        except httptools.HttpParserError:
            self._end(_TOO_LARGE if self._too_large else _BAD)
            return False
        # A header is handed over when it is whole, and a chunk's size never: what comes of an endless one counts here.
        self._unparsed_bytes = 0 if self._told else self._unparsed_bytes + len(part)
        if self._unparsed_bytes > MAX_HEAD_BYTES:
            self._end(_TOO_LARGE)
            return False
        return True

    def _wait_on(self) -> None:
        """See that whatever we wait for now has an end."""
        if self._over or self.transport.is_closing():
            return
        if self._in_head:
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_WITHIN_S, self._too_slow)
        elif self._body_timer is None and not self._owes():
            # What came began no request, or one that was refused by now: the end of a body whose answer was there
            # before, an empty line.
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    # --- the parser's callbacks

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MOST_PIPELINED:
            self._abort()
            raise Stop
        self._in_head = self._told = self._asked = True
        self._parsed_bytes = sum(cycles.head_bytes(cycle) for cycle, _ in self.pipeline)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._told = True
        self._count(len(name) + len(value) + cycles.PER_HEADER_BYTES)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.get_method() == b"CONNECT":
            raise Stop  # what is to go through a tunnel must not be read as requests
        if self._comes_again():
            return
        super().on_headers_complete()
        self._in_head = False
        self._stop_timer()
        self._body_timer = self.loop.call_later(BODY_WITHIN_S, self._body_too_slow)

    def on_body(self, body: bytes) -> None:
        self._told = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._comes_again():
            return
        self._stop_body_timer()
        if self._owes():
            self._door.owe(self)
        super().on_message_complete()

    def _comes_again(self) -> bool:
        """Whether this head asks for a protocol that we do not speak: it is read once more, without that."""
        return self.parser.should_upgrade() and not self._should_upgrade()

    # --- the answer

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            self.flow.resume_reading()  # the last that waited may have its turn now
        self._taking.watch()
        # The next may have begun.
        if self._answering is None or self._answering.response_complete or self._answering.more_body:
            self._door.wait(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._taking.watch()

    # --- ends

    def _count(self, size: int) -> None:
        self._parsed_bytes += size
        if self._parsed_bytes > MAX_HEAD_BYTES:
            self._too_large = True
            raise Stop

    def _too_slow(self) -> None:
        self._head_timer = None
        if self.flow.read_paused:  # it may have come: we do not look while an answer is made
            self._head_timer = self.loop.call_later(HEAD_WITHIN_S, self._too_slow)
        else:
            self._end(_TOO_SLOW if self._asked else b"")

    def _body_too_slow(self) -> None:
        self._body_timer = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self._body_timer = self.loop.call_later(BODY_WITHIN_S, self._body_too_slow)
        elif self._owes():
            self._abort()
        else:
            self.transport.close()

    def _end(self, status: bytes) -> None:
        if self.transport.is_closing():
            return
        if status and self._in_head and not self._owes():
            self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self._taking.watch()
            self.transport.close()
        else:
            # Nobody asked, or it was answered, or an answer to an earlier request is on its way: nothing may be written
            # into that.
            self._abort()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_body_timer(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
