"""Requests that are sent before the answer to the one before them: whole answers, in order, little held meanwhile."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

from rest_api import heads
from tests.brokers import until
from tests.rest_api.connections import Bare, Ends, connected, serving

pytestmark = pytest.mark.anyio
BOUND_S = 30.0
READ_BYTES = 256 * 1024
"""As much as a loop reads at once."""


def request(path: bytes, body: bytes = b"") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s" % (path, len(body), body)


LAST = b"GET /last HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


class Patient:
    """Reads its body, then waits for a word of the test; answers with the path and the length of the body."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.word = asyncio.Event()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "http", scope["type"]
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            size += len(message["body"])
            more = message["more_body"]
        self.read.append(scope["path"])
        await self.word.wait()
        said = b"<%s %d>" % (scope["path"].encode(), size)
        length = (b"content-length", b"%d" % len(said))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": said, "more_body": False})


@pytest.fixture
async def patient() -> AsyncIterator[tuple[Patient, Bare]]:
    app = Patient()
    async with serving(app) as bare:
        yield app, bare
        app.word.set()


async def answers(ends: Ends) -> list[bytes]:
    """What is said until the other side ends it."""
    async with asyncio.timeout(BOUND_S):
        return [part.partition(b">")[0] for part in (await ends[0].read()).split(b"<")[1:]]


async def only(bare: Bare) -> Any:
    await until(lambda: bool(bare.here), "it is there", BOUND_S)
    (connection,) = bare.here
    return connection


async def test_large_bodies_that_wait_cost_no_answer(patient: tuple[Patient, Bare]) -> None:
    app, bare = patient
    large = b"a" * 400_000  # a text of 64 KiB, each letter of it written as \u0061
    async with connected(bare) as ends:
        sending = asyncio.create_task(sent(ends, request(b"/a") + request(b"/b", large) * 3 + LAST))
        await until(lambda: app.read == ["/a"], "the first is being answered", BOUND_S)
        app.word.set()
        assert await answers(ends) == [b"/a 0", *[b"/b 400000"] * 3, b"/last 0"]
        await sending


async def sent(ends: Ends, what: bytes) -> None:
    ends[1].write(what)
    with contextlib.suppress(ConnectionError):
        await ends[1].drain()


async def test_what_waits_for_an_answer_holds_no_more_than_a_read_brings(patient: tuple[Patient, Bare]) -> None:
    app, bare = patient
    async with connected(bare) as ends:
        connection = await only(bare)
        sending = asyncio.create_task(sent(ends, request(b"/a") + request(b"/b", b"b" * 20_000_000) + LAST))
        await until(lambda: app.read == ["/a"] and bool(connection.pipeline), "the second waits", BOUND_S)
        for _ in range(100):
            await asyncio.sleep(0)  # turns in which more would be read
        ((waiting, _),) = connection.pipeline
        assert len(waiting.body) <= READ_BYTES
        assert connection.flow.read_paused
        app.word.set()
        assert await answers(ends) == [b"/a 0", b"/b 20000000", b"/last 0"]
        await sending


@pytest.mark.parametrize("cut", [-9, -60])
async def test_no_clock_runs_against_a_client_whom_we_do_not_read(
    patient: tuple[Patient, Bare], monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """The end of his second request has come, or could have: it waits in the kernel for the answer to the first."""
    monkeypatch.setattr(heads, "HEAD_WITHIN_S", 0.2)
    monkeypatch.setattr(heads, "BODY_WITHIN_S", 0.2)
    app, bare = patient
    said = request(b"/a") + request(b"/b") + request(b"/c", b"c" * 20)  # cut in the body, or in the head
    async with connected(bare) as ends:
        connection = await only(bare)
        ends[1].write(said[:cut])
        name = "_body_timer" if cut == -9 else "_head_timer"
        await until(lambda: bool(connection.pipeline) and getattr(connection, name), "it waits", BOUND_S)
        first = getattr(connection, name)
        ends[1].write(said[cut:] + LAST)
        await until(lambda: getattr(connection, name) is not first, "its time is over", BOUND_S)
        app.word.set()
        assert await answers(ends) == [b"/a 0", b"/b 0", b"/c 20", b"/last 0"]
