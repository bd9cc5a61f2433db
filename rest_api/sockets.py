"""WebSockets under uvicorn: its options, a goodbye that waits for answers, and what a client can make one hold.

uvicorn ends each WebSocket at once when the server stops, whatever is still to come on it. Ours are ended by the
application, which knows: it sends the answers that are under way, then a close frame with a reason.

It also takes all messages that one read brings, however many, any number of empty fragments and pings, waits for ever
for the rest of a message, and for a client to take what it was sent before the connection closes: each of these is time
or memory that costs a stranger a few bytes. How many WebSockets there may be, ``attendance``.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

MAX_FRAME_BYTES: Final = 512 * 1024
"""As much as a body may have: 64 KiB of text may be written with six characters for each byte."""
PING_EVERY_S: Final = 20.0
PONG_WITHIN_S: Final = 45.0
"""More than the longest deadline: while a message waits for a place nothing is read, a pong neither. Where several wait
one after the other it takes longer, and each that is taken counts as a pong."""
MOST_CONNECTIONS: Final = 512
SLICE_BYTES: Final = 1024
"""As much is parsed at a time. A read may bring 256 KiB, which could be forty thousand messages."""
MOST_FRAGMENTS: Final = 512
"""Of one message. Browsers send whole ones, or pieces of kilobytes."""
MOST_CONTROL_FRAMES: Final = 256
"""Pings, and pongs that nobody asked for, between two pings of ours (20 s). Programs send a few, browsers none."""
MESSAGE_WITHIN_S: Final[float] = 31.0
"""From the first byte of a message that we hold to its last, as for a body."""
END_WITHIN_S: Final[float] = 20.0
"""From a goodbye, whoever says it, to the end: 10 s for the other's goodbye, and as long to take what is on its way."""

TRY_AGAIN: Final = 1013
CONNECTION: Final = "signer_flow.connection"
"""Of a WebSocket's scope: its ``SignSocketProtocol``."""
_NO_UPGRADE: Final = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def _anything(_: int) -> bool:
    return True


class SignSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, except in how it ends, and in what a client can make it hold."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unparsed = bytearray()
        self._control_frames = 0
        self._parsed_at = 0.0
        self._taken_at = 0.0
        self._end_timer: asyncio.TimerHandle | None = None
        self._message_timer: asyncio.TimerHandle | None = None
        self.may_hold: Callable[[int], bool] = _anything
        """Told how many bytes of an unfinished message there are. False: that is too much."""
        self.came_at = 0.0
        """When the message that was taken last was whole, ``time.perf_counter``: it may have waited since."""
        self.over: asyncio.Future[None] = self.loop.create_future()
        """Done when the connection is lost: the application may be busy with one message, and not at the next."""

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        for timer in (self._end_timer, self._message_timer):
            if timer is not None:
                timer.cancel()
        self.may_hold(0)
        # The parser holds the connection that holds it, with all that came, until the collector looks: which counts
        # objects, not what they hold.
        self.conn.parser.close()
        self._unparsed.clear()
        if not self.over.done():
            self.over.set_result(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse slice by slice; what comes after a message waits until the application has taken that."""
        self._unparsed += data
        self._parse()
        self._watch_end()

    def eof_received(self) -> None:
        """The other side says no more; its transport is closed when this returns."""
        self._watch_end(closing=True)

    def _watch_end(self, *, closing: bool = False) -> None:
        """Cut what is closing, in the end: a transport waits for ever for the other side to take what it was sent."""
        closing = closing or self.close_sent or self.transport.is_closing()
        if closing and not self.disconnected and self._end_timer is None:
            self._end_timer = self.loop.call_later(END_WITHIN_S, self.transport.abort)

    def _parse(self) -> None:
        while self._unparsed and not self.read_paused:
            if self.transport.is_closing():
                self._unparsed.clear()
                return
            part = bytes(self._unparsed[:SLICE_BYTES])
            del self._unparsed[:SLICE_BYTES]
            self._parsed_at = time.perf_counter()
            super().data_received(part)
            if self.conn.handshake_exc is not None:
                self._refuse_head()
        self._watch_message()

    def _watch_message(self) -> None:
        """A message that has begun is memory of ours until it is whole: it has to end in time, and share a budget."""
        held = (
            0 if self.disconnected or self.close_sent else len(self.conn.reader.buffer) + (self.conn.current_size or 0)
        )
        if not self.may_hold(held):
            self._fail(TRY_AGAIN, "too many large messages are on their way to this pod")
            return
        # While nothing is read it is we who keep the other side waiting.
        if held == 0 or self.read_paused:
            if self._message_timer is not None:
                self._message_timer.cancel()
                self._message_timer = None
        elif self._message_timer is None:
            self._message_timer = self.loop.call_later(MESSAGE_WITHIN_S, self._message_too_slow)

    def _message_too_slow(self) -> None:
        self._message_timer = None
        self._fail(1008, "the message did not come in time")
        self._watch_end()

    def cut(self) -> None:
        """End the connection, to make room for others."""
        if self.handshake_complete:
            self._fail(TRY_AGAIN, "this pod has no room for idle connections; come again later")
            self._watch_end()
        else:
            self.transport.abort()

    def _refuse_head(self) -> None:
        """Say what is wrong with a head that ``websockets`` does not take: uvicorn would neither answer it nor end."""
        self.transport.write(b"".join(self.conn.data_to_send()) or _NO_UPGRADE)
        self.transport.close()
        self.close_sent = self.handshake_complete = True

    async def receive(self) -> Any:
        """The next event of the application."""
        event = await super().receive()
        # All that wait are of one slice: the next is parsed when they are taken.
        self.came_at = self._parsed_at
        self._taken_at = self.loop.time()
        self._parse()
        return event

    async def send(self, message: Any) -> None:
        """An event of the application.

        Raises:
            ClientDisconnected: for an answer that comes after a goodbye, or after the end.
        """
        await self.writable.wait()
        if self.close_sent and message["type"] == "websocket.send":
            # To uvicorn it is an error of the application, which cannot know that we have cut the connection off.
            raise ClientDisconnected
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            # Refused, and said so: uvicorn would write an error into the log for each.
            self.handshake_complete = True
        if self.close_sent:
            self._parse()  # the other's goodbye may be behind messages that nobody takes any more
        self._watch_end()

    async def run_asgi(self) -> None:
        """Serve it."""
        await super().run_asgi()
        self._watch_end()

    def handle_connect(self, event: Request) -> None:
        """An upgrade: the application is told who we are."""
        super().handle_connect(event)
        if not self.close_sent:
            self.scope[CONNECTION] = self  # type: ignore[typeddict-unknown-key]

    def handle_cont(self, event: Frame) -> None:
        """A fragment that goes on with a message."""
        if len(self.frames) >= MOST_FRAGMENTS:
            self._fail(1009, "too many fragments")
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        """It is answered already; the answer only has to go."""
        if self._may_come():
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        """The answer to a ping of ours, or to none."""
        if self._may_come():
            super().handle_pong(event)

    def send_keepalive_ping(self) -> None:
        """Time for one of ours."""
        self._control_frames = 0
        super().send_keepalive_ping()

    def _may_come(self) -> bool:
        """Frames that bring no message are bounded only here: they pause nothing, and wait for no turn."""
        self._control_frames += 1
        if self._control_frames > MOST_CONTROL_FRAMES and not self.transport.is_closing():
            if self.close_sent:
                self.transport.abort()
            else:
                self._fail(1008, "too many pings")
        return not self.transport.is_closing()

    def send_receive_event_to_app(self) -> None:
        """A message is whole."""
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                # uvicorn would write an error with a traceback into the log for each.
                self._fail(1007, "not UTF-8")
                return
        super().send_receive_event_to_app()

    def _fail(self, code: int, reason: str) -> None:
        self.frames = []
        # One that is lost may not be written to: whoever is here for its place would be told that we failed.
        if not self.close_sent and not self.disconnected:
            self.conn.fail(code, reason)
            self.handle_parser_exception()

    def shutdown(self) -> None:
        """Leave an open connection to the application, which was told by the gateway's drain; uvicorn waits for it."""
        if not self.handshake_complete or self.close_sent:
            super().shutdown()
            self._watch_end()

    def keepalive_timeout(self) -> None:
        """Cut off a peer that answers no ping: a mere close would wait for ever for it to take what it was sent.

        Its pong may be behind messages that wait for us; but whoever takes nothing is not kept waiting by us alone.
        """
        within_s = self.ping_timeout or 0.0
        if self._taken_at > self.loop.time() - within_s and not self.transport.get_write_buffer_size():
            self._control_frames = 0
            self.pong_timer = self.loop.call_later(within_s, self.keepalive_timeout)
            return
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
