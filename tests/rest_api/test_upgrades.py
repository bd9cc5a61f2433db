"""Who asks for a protocol that we do not speak is answered as if he had not, with his body where it belongs.

A parser of HTTP takes what follows such a head for the other protocol's. A body would then be lost, or be run as a
request of its own, behind the back of whatever stands in front of the pod. Honest clients ask so: the JDK's sends
``Upgrade: h2c`` with the first request of each connection that has no TLS.
"""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

from rest_api import heads
from tests.brokers import until
from tests.rest_api.connections import Bare, Ends, connected, serving
from tests.rest_api.world import Pod

pytestmark = pytest.mark.anyio
BOUND_S = 30.0

ASK = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
# What a body must not become.
INNER = b"GET /inner HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def echo(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Answers with the method, the path and the body."""
    assert scope["type"] == "http", scope["type"]
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request", message
        body += message["body"]
        more = message["more_body"]
    said = b"<%s %s %s>" % (scope["method"].encode(), scope["path"].encode(), body)
    length = (b"content-length", b"%d" % len(said))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": said, "more_body": False})


@pytest.fixture
async def bare() -> AsyncIterator[Bare]:
    async with serving(echo) as made:
        yield made


def head(path: bytes, body: bytes = b"", ask: bytes = ASK, method: bytes = b"POST") -> bytes:
    return b"%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s%s\r\n" % (method, path, ask, body)


async def to_end(ends: Ends) -> bytes:
    async with asyncio.timeout(BOUND_S):
        return await ends[0].read()


def bodies(answers: bytes) -> list[bytes]:
    return [part.partition(b">")[0] for part in answers.split(b"<")[1:]]


@pytest.mark.parametrize(
    "ask", [ASK, b"connection: upgrade\r\nupgrade: foo\r\n", ASK.replace(b"h2c", b"websocket, h2c")]
)
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("split", ["nowhere", "after the head", "in the body"])
async def test_the_body_of_who_asks_for_another_protocol_is_his(
    bare: Bare, ask: bytes, framing: str, split: str
) -> None:
    if framing == "length":
        body, said = INNER, b"Content-Length: %d\r\n" % len(INNER)
    else:
        body, said = b"%x\r\n%s\r\n0\r\n\r\n" % (len(INNER), INNER), b"Transfer-Encoding: chunked\r\n"
    first = head(b"/first", said, ask)
    at = {"nowhere": 0, "after the head": len(first), "in the body": len(first) + 9}[split]
    sent = first + body
    async with connected(bare) as ends:
        if at:
            ends[1].write(sent[:at])
            await until(lambda: any(each.cycle for each in bare.here), "the head was read", BOUND_S)
        # What comes later comes on the same connection: it goes on as HTTP.
        ends[1].write(sent[at:] + head(b"/second", method=b"GET", ask=b"") + LAST)
        assert bodies(await to_end(ends)) == [b"POST /first " + INNER, b"GET /second ", b"GET /last "]


@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS"])
async def test_who_asks_without_a_body_is_answered_and_goes_on(bare: Bare, method: bytes) -> None:
    async with connected(bare) as ends:
        ends[1].write(head(b"/first", method=method) * 3 + LAST)
        assert bodies(await to_end(ends)) == [method + b" /first "] * 3 + [b"GET /last "]


async def test_wherever_a_read_ends_the_requests_are_the_same(bare: Bare) -> None:
    sent = head(b"/a", b"Content-Length: 5\r\n") + b"01234" + head(b"/b", method=b"GET") + LAST
    for at in range(1, len(sent)):
        async with connected(bare) as ends:
            await until(lambda: bool(bare.here), "it is there", BOUND_S)
            (connection,) = bare.here
            connection.data_received(sent[:at])
            connection.data_received(sent[at:])
            assert bodies(await to_end(ends)) == [b"POST /a 01234", b"GET /b ", b"GET /last "], at
            await until(lambda: not bare.here, "it is gone", BOUND_S)


async def test_heads_that_ask_are_held_to_the_bounds_of_others(bare: Bare) -> None:
    async with connected(bare) as ends:
        ends[1].write(head(b"/a", b"X: " + b"a" * heads.MAX_HEAD_BYTES + b"\r\n"))
        assert (await to_end(ends)).startswith(b"HTTP/1.1 431 ")
    body = b"a" * 100_000
    async with connected(bare) as ends:
        ends[1].write(head(b"/a", b"Content-Length: 100000\r\n") + body + LAST)
        assert bodies(await to_end(ends)) == [b"POST /a " + body, b"GET /last "]


@pytest.mark.parametrize("where", [b"127.0.0.1:80", b"http://127.0.0.1/inner"])
@pytest.mark.parametrize("ask", [b"", ASK, ASK.replace(b"h2c", b"websocket")])
async def test_a_tunnel_is_refused_and_what_is_sent_into_it_is_not_run(bare: Bare, where: bytes, ask: bytes) -> None:
    async with connected(bare) as ends:
        ends[1].write(head(where, b"Content-Length: %d\r\n" % len(INNER), ask, b"CONNECT") + INNER)
        answer = await to_end(ends)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_a_text_of_a_client_that_asks_for_http_2_is_signed(pod: Pod) -> None:
    body = b'{"text":"hello"}'
    said = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    async with connected(pod) as ends:
        ends[1].write(head(b"/v1/sign", said) + body + LAST)
        answer = await to_end(ends)
    first, _, rest = answer.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert "signature" in json.JSONDecoder().raw_decode(rest.decode())[0]
