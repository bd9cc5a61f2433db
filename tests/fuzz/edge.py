"""The HTTP layer under hostile bytes: the application and the parsers of production, on a connection in memory.

What is real: uvicorn's protocols with our bounds on them (httptools for the front port, websockets behind its upgrade,
h11 for the admin port), the whole application, a gateway on the embedded broker, a committee that answers. Only the
socket is not: bytes come as the input says, in pieces, and then the other side is gone. An input is a finding when the
application fails (an error in the log, a 500), or when something of it is still there after it is gone.
"""

import asyncio
import atexit
import base64
import io
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, cast

from common.kafka.embedded import EmbeddedBroker
from common.observability.admin import AdminServer, Health
from common.observability.logging import LogFormat, configure
from tests.fuzz.running import Decoder
from tests.rest_api.world import Pod, running_pod, world

GONE_WITHIN_S: Final = 30.0
"""A request that was on its way to the signers when its client left ends at its deadline, 5 s, at the latest."""
_MOST_PIECES: Final = 64
_ANSWER_TURNS: Final = 4


class MemoryTransport(asyncio.Transport):
    """What a protocol writes to when nobody is there."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 40_000), "sockname": ("127.0.0.1", 8_000)})
        self.protocol: Any = None
        self.out = bytearray()
        self.closing = self.lost = self.paused = False

    def write(self, data: Any) -> None:
        self.out += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.lose)

    def abort(self) -> None:
        self.close()

    def lose(self) -> None:
        """The connection is gone."""
        self.closing = True
        if not self.lost:
            self.lost = True
            self.protocol.connection_lost(None)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast(asyncio.BaseProtocol, self.protocol)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_reading(self) -> bool:
        return not self.paused

    def get_write_buffer_size(self) -> int:
        return 0

    def write_eof(self) -> None:
        self.close()

    def can_write_eof(self) -> bool:
        return True


class Edge:
    """A pod and an admin port, started by the first input and stopped by ``close``."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stack = AsyncExitStack()
        self._pod: Pod | None = None
        self._admin: AdminServer | None = None
        self._log = io.StringIO()
        self._errors: list[str] = []

    def front(self, data: bytes) -> None:
        """Bytes for the front port; the first one says in what pieces they come."""
        self._feed(data, lambda pod, _: pod.server.protocol(), lambda pod, _: pod.server.server_state)

    def admin(self, data: bytes) -> None:
        """Bytes for the admin port."""

        def protocol(_: Pod, admin: AdminServer) -> Any:
            assert admin._server is not None
            config = admin._server.config
            make: Any = config.http_protocol_class
            return make(config=config, server_state=admin._server.server_state, app_state={})

        self._feed(data, protocol, lambda _, admin: admin._server.server_state if admin._server else None)

    def _feed(
        self, data: bytes, protocol: Callable[[Pod, AdminServer], Any], state: Callable[[Pod, AdminServer], Any]
    ) -> None:
        if not data:
            return
        loop = self._start()
        assert self._pod is not None
        assert self._admin is not None
        self._log.seek(0)
        self._log.truncate()
        self._errors.clear()
        pod, admin = self._pod, self._admin
        loop.run_until_complete(_visit(data, lambda: protocol(pod, admin), state(pod, admin)))
        if self._log.getvalue():
            raise AssertionError("an error was logged: " + self._log.getvalue()[:2000])
        if self._errors:
            raise AssertionError("the event loop was told: " + self._errors[0])

    def _start(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop.set_exception_handler(lambda _, said: self._errors.append(str(said)))
            configure(LogFormat.JSON, "error", "rest_api", 0, self._log)
            self._loop.run_until_complete(self._open())
            atexit.register(self.close)
        return self._loop

    async def _open(self) -> None:
        stack = self._stack
        broker = stack.enter_context(EmbeddedBroker())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        corner = await stack.enter_async_context(world(broker, Path(folder) / "trust"))
        self._pod = await stack.enter_async_context(running_pod(corner.settings()))
        calm = Health(ok=True)
        self._admin = AdminServer("127.0.0.1", 0, lambda: calm, lambda: calm, lambda: b"metrics 1\n")
        await self._admin.start()
        stack.push_async_callback(self._admin.close)

    def close(self) -> None:
        """Stop everything; harmless twice."""
        loop, self._loop = self._loop, None
        if loop is not None:
            atexit.unregister(self.close)
            loop.run_until_complete(self._stack.aclose())
            loop.close()


async def _visit(data: bytes, connect: Callable[[], Any], state: Any) -> None:
    loop = asyncio.get_running_loop()
    transport, protocol = MemoryTransport(), connect()
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    size = max(1, -(-len(data) // _MOST_PIECES), (len(data), 1, 7, 64)[data[0] % 4])
    for at in range(1, len(data), size):
        for _ in range(_MOST_PIECES):
            if not transport.paused or transport.closing:
                break
            await asyncio.sleep(0)
        if transport.closing:
            break
        transport.protocol.data_received(data[at : at + size])
        await asyncio.sleep(0)
    for turn in range(_ANSWER_TURNS):
        if transport.closing or not state.tasks:
            break
        await asyncio.sleep(0.001 * turn)
    transport.lose()
    end = loop.time() + GONE_WITHIN_S
    while state.tasks or state.connections:
        if loop.time() >= end:
            raise AssertionError(f"left of a connection that is gone: {state.tasks} {state.connections}")
        await asyncio.sleep(0 if loop.time() < end - GONE_WITHIN_S + 0.001 else 0.001)
    assert b"HTTP/1.1 500 " not in transport.out, "answered with 500"


# --- where inputs begin -----------------------------------------------------------------------------------------------


def _request(method: str, path: str, body: bytes = b"", kind: str = "application/json", *more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *more]
    if body:
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def _frame(payload: bytes, code: int = 0x81) -> bytes:
    """A frame from a client, whole, masked with zeros."""
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes([code]) + size + bytes(4) + payload


_UPGRADE: Final = _request(
    "GET", "/sign/ws", b"", "", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: " + base64.b64encode(bytes(16)).decode(),
)  # fmt: skip
_H2C: Final = _request(
    "POST", "/v1/sign", b'{"text":"hello"}', "application/json", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
    "HTTP2-Settings: AAEAAEAAAAIAAAAB",
)  # fmt: skip
_MULTIPART: Final = b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nhello\r\n--x--\r\n'
_CHUNKED: Final = _request("POST", "/v1/sign", b"", "", "Content-Type: application/json", "Transfer-Encoding: chunked")
WORDS: Final = (
    *(b"\r\n", b"\r\n\r\n", b": ", b"HTTP/1.0", b"HTTP/2.0", b"Expect: 100-continue\r\n", b"Connection: close\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n", b"Content-Length: 99999999999999999999\r\n"),
    *(b"Origin: http://[\r\n", b"Request-Timeout-Ms: 100\r\n", b"X-Forwarded-For: ::1, 10.0.0.1\r\n", b"%00", b"%ff"),
    *(b"Authorization: Bearer sft_x\r\n", b"Accept: text/plain\r\n", b"charset=utf-7", b"\x88\x02\x03\xe8", b"\xff"),
    *(b"/healthz", b"/readyz", b"/v1/keys/", b"/v1/cluster", b"/docs", b"/openapi.json", b"/static/sign.js"),
)


def front_seeds() -> list[bytes]:
    """Each kind of request."""
    verify = b'{"text":"","signature":"AAEC","public_key":"AAEC"}'
    sign = _request("POST", "/v1/sign", b'{"text":"hello"}', "application/json", "X-Request-Id: a", "Origin: http://a")
    streams = [
        sign,
        sign + _request("GET", "/healthz"),
        _H2C + _request("GET", "/healthz", b"", "", "Connection: upgrade", "Upgrade: foo"),
        _request("POST", "/v1/sign/batch", b'{"items":[{"text":"a","reference":"r"},{"data":"AAEC"},7]}'),
        _request("POST", "/v1/verify", verify),
        _request("POST", "/sign", b"text=hello", "application/x-www-form-urlencoded", "Accept: text/plain"),
        _request("POST", "/sign", _MULTIPART, "multipart/form-data; boundary=x; charset=utf-8"),
        _request("GET", "/sign?plain"),
        _request("GET", "/v1/keys/default"),
        _request("HEAD", "/.well-known/jwks.json"),
        _request("POST", "/v1/keys/default/refresh"),
        _request("OPTIONS", "*"),
        _CHUNKED + b'5\r\n{"tex\r\nb;a=b\r\nt":"hello"}\r\n0\r\nX-Trailer: 1\r\n\r\n',
        _UPGRADE + _frame(b'{"id":"1","text":"hello"}') + _frame(b"", 0x89) + _frame(b"\x03\xe8", 0x88),
        _UPGRADE + _frame(b'{"id":"t","token":"sft_x"}', 0x01) + _frame(b"", 0x80),
    ]
    return [bytes([k % 4]) + stream for k, stream in enumerate(streams)]


def admin_seeds() -> list[bytes]:
    """What probes and collectors ask."""
    return [bytes([k]) + _request("GET", path) for k, path in enumerate(("/healthz", "/readyz", "/metrics"))]


EDGE: Final = Edge()


def edges() -> Sequence[Decoder]:
    """The two ports."""
    return (
        Decoder("http-front", EDGE.front, (), front_seeds, WORDS, longest=8192, rounds=150),
        Decoder("http-admin", EDGE.admin, (), admin_seeds, WORDS, longest=4096, rounds=60),
    )
