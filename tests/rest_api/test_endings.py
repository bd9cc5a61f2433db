"""Every connection can be ended, and is: whatever comes after its answer, beside it, or in place of it."""

import asyncio
import base64
import contextlib
import gc
import socket
import struct
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

from rest_api import doors, heads, taking
from rest_api.doors import Door
from rest_api.heads import BoundedHttp
from tests.brokers import until
from tests.rest_api.connections import Bare, Ends, connected, serving
from tests.rest_api.world import Pod

pytestmark = pytest.mark.anyio
BOUND_S = 30.0
GET = b"GET /a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
POST = b"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\n"
LATE = POST + b"Content-Length: 1\r\n\r\n"
HALF = b"Content-Type: application/json\r\nRequest-Timeout-Ms: 30000\r\nContent-Length: 9\r\n\r\n{"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
UPGRADE = b"GET /sign/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
WEBSOCKET = UPGRADE + (
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    + base64.b64encode(bytes(16))
    + b"\r\n\r\n"
)


async def to_end(ends: Ends) -> bytes:
    """What comes until the other side ends it."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(BOUND_S):
            while part := await ends[0].read(65536):
                answer += part
    return answer


async def head_of(ends: Ends) -> bytes:
    async with asyncio.timeout(BOUND_S):
        return await ends[0].readuntil(b"\r\n\r\n")


class Slow:
    """An application whose answers wait for a word of the test; it reads no body."""

    def __init__(self) -> None:
        self.asked = 0
        self.word = asyncio.Event()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "http", scope["type"]
        self.asked += 1
        await self.word.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.fixture
async def slow() -> AsyncIterator[tuple[Slow, Bare]]:
    app = Slow()
    async with serving(app, timeout_keep_alive=1) as bare:
        yield app, bare
        app.word.set()


@pytest.fixture
def narrow(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> Pod:
    """The pod with room for eight connections from now on."""
    monkeypatch.setitem(doors._doors, pod.server.server_state, Door(8))
    return pod


@pytest.mark.parametrize(
    ("first", "then"),
    [(LATE, b"x"), (GET + LATE, b"x"), (GET + POST.replace(b"/nowhere", b"/v1/sign") + HALF, b"")],
    ids=["a late body", "a late body of a second request", "half of a second request"],
)
async def test_whatever_follows_an_answer_keeps_no_place_that_others_need(
    narrow: Pod, first: bytes, then: bytes
) -> None:
    state = narrow.server.server_state
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(24):
            ends = await stack.enter_async_context(connected(narrow))
            ends[1].write(first)
            await head_of(ends)
            ends[1].write(then)
        bodies = {each for each in state.connections if isinstance(each, BoundedHttp)}
        await until(lambda: not then or not any(each._body_timer for each in bodies), "all has come", BOUND_S)
        for _ in range(3):
            assert (await narrow.http.post("/v1/sign", json={"text": "hello"})).status_code == 200


@pytest.mark.parametrize("then", [b"x", b"x\r\n"])
async def test_the_end_of_a_body_that_was_answered_before_does_not_keep_its_connection(
    slow: tuple[Slow, Bare], then: bytes
) -> None:
    app, bare = slow
    app.word.set()
    async with connected(bare) as ends:
        ends[1].write(LATE)
        await head_of(ends)
        ends[1].write(then)
        assert await to_end(ends) == b""


async def test_an_empty_line_between_requests_does_not_keep_a_connection(slow: tuple[Slow, Bare]) -> None:
    app, bare = slow
    app.word.set()
    async with connected(bare) as ends:
        ends[1].write(GET)
        await head_of(ends)
        ends[1].write(b"\r\n")
        assert await to_end(ends) == b""


async def test_a_trailer_without_end_is_cut_off(slow: tuple[Slow, Bare]) -> None:
    _, bare = slow
    async with connected(bare) as ends:
        ends[1].write(CHUNKED + b"1\r\na\r\n0\r\nX: ")
        for _ in range(100):
            if ends[0].at_eof() or ends[0].exception() is not None:
                break
            ends[1].write(b"a" * 4096)
            with contextlib.suppress(ConnectionError):
                await ends[1].drain()
        assert await to_end(ends) == b""
    await until(lambda: not bare.here, "it is gone", BOUND_S)


async def test_a_body_in_many_small_chunks_is_no_trailer(pod: Pod) -> None:
    body = b'{"text":"' + b"a" * 20_000 + b'"}'
    head = POST.replace(b"/nowhere", b"/v1/sign") + b"Content-Type: application/json\r\n"
    async with connected(pod) as ends:
        ends[1].write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        ends[1].write(b"".join(b"1;by=one\r\n%c\r\n" % byte for byte in body) + b"0\r\nX: 1\r\n\r\n")
        assert (await head_of(ends)).startswith(b"HTTP/1.1 200 ")


async def test_nothing_is_written_into_the_place_of_an_answer_under_way(slow: tuple[Slow, Bare]) -> None:
    app, bare = slow
    async with connected(bare) as ends:
        ends[1].write(GET + b"\x00garbage\r\n\r\n")
        assert await to_end(ends) == b""
    app.word.set()
    async with connected(bare) as ends:
        ends[1].write(b"\x00garbage\r\n\r\n")
        assert (await to_end(ends)).startswith(b"HTTP/1.1 400 ")


async def test_no_websocket_begins_while_an_answer_is_owed(slow: tuple[Slow, Bare]) -> None:
    app, bare = slow
    async with connected(bare) as ends:
        ends[1].write(GET + WEBSOCKET)
        assert await to_end(ends) == b""
    app.word.set()
    await until(lambda: not bare.server.server_state.tasks, "nothing is left", BOUND_S)


async def test_what_is_not_understood_fills_no_log(
    slow: tuple[Slow, Bare], log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    app, bare = slow
    app.word.set()
    async with connected(bare) as ends:
        ends[1].write(b"\x00garbage\r\n\r\n")
        assert (await to_end(ends)).startswith(b"HTTP/1.1 400 ")
    async with connected(bare) as ends:
        ends[1].write(UPGRADE + b"Upgrade: h2c\r\n\r\n")
        assert (await head_of(ends)).startswith(b"HTTP/1.1 200 ")  # and on it goes as if it had not asked
        ends[1].write(GET)
        assert (await head_of(ends)).startswith(b"HTTP/1.1 200 ")
    assert [line for line in log_lines() if line.get("level") == "warning"] == []


async def test_half_an_answer_that_nobody_takes_ends_with_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "TAKING_S", 0.3)
    closed = asyncio.Event()

    async def failing(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        (connection,) = bare.here
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not connection.transport.get_write_buffer_size():
            await send({"type": "http.response.body", "body": bytes(1024), "more_body": True})
        closed.set()
        raise RuntimeError("as the test wants")

    async with serving(failing) as bare:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            host, port = bare.url.removeprefix("http://").split(":")
            await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
            client.send(GET)
            async with asyncio.timeout(BOUND_S):
                await closed.wait()
            await until(lambda: not bare.here, "the connection was cut", BOUND_S)


async def test_of_a_connection_that_was_reset_nothing_waits_for_its_next_request(slow: tuple[Slow, Bare]) -> None:
    app, bare = slow
    app.word.set()
    async with connected(bare) as ends:
        ends[1].write(GET)
        await head_of(ends)
        (connection,) = bare.here
        assert connection.timeout_keep_alive_task is not None
        ends[1].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await until(lambda: not bare.here, "it is gone", BOUND_S)
    assert connection.timeout_keep_alive_task is None


@pytest.mark.parametrize("said", [GET, LATE, GET * 5, CHUNKED + b"1\r\na\r\n", b"GET /"])
async def test_of_a_connection_that_has_gone_nothing_waits_for_the_collector(
    slow: tuple[Slow, Bare], said: bytes
) -> None:
    """It counts objects, not what they hold: a thousand heads would stay, and the next thousand with them."""
    app, bare = slow
    gc.collect()
    gc.disable()
    try:
        async with connected(bare) as ends:
            ends[1].write(said)
            await until(lambda: any(each._parsed_bytes for each in bare.here), "it has come", BOUND_S)
            (left,) = [weakref.ref(each) for each in bare.here]
        app.word.set()
        await until(lambda: left() is None, "nothing is left of it", BOUND_S)
    finally:
        gc.enable()


def test_a_uvicorn_without_what_is_overridden_is_refused_by_name() -> None:
    with pytest.raises(ImportError, match=r"has no .*_start_asgi_task.*requirements\.lock"):
        heads.check(asyncio.Protocol)
