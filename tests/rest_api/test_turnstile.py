"""What a full pod says to requests to sign without the framework: the same words, and nothing else is disturbed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import SpanProcessor

from common.observability.spans import Spans
from rest_api.goodbye import CourteousHttp
from rest_api.turnstile import Turnstile
from tests.brokers import until
from tests.rest_api.connections import Ends, connected
from tests.rest_api.test_direct import seen
from tests.rest_api.world import Asked, Pod, World, running_pod

pytestmark = pytest.mark.anyio

LIMIT = 2
ASK = {"method": "POST", "url": "/v1/sign", "json": {"text": "a"}}


def request(body: bytes = b'{"text":"a"}', *headers: bytes, path: bytes = b"/v1/sign") -> bytes:
    lines = [b"POST %b HTTP/1.1" % path, b"Host: 127.0.0.1", b"Content-Type: application/json", *headers]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


@contextlib.asynccontextmanager
async def full(world: World, **more: Any) -> AsyncIterator[tuple[Pod, list[Asked]]]:
    """A pod with as much under way as it takes; whoever signs one of the list makes room."""
    held: list[Asked] = []
    world.committee.all_do(held.append)
    async with running_pod(world.settings(pending_limit_items=LIMIT), **more) as pod:
        waiting = [asyncio.create_task(pod.http.request(**ASK)) for _ in range(LIMIT)]  # type: ignore[arg-type]
        await until(lambda: pod.gateway.pending() == LIMIT and bool(held), "it is full")
        yield pod, held
        world.committee.reset()
        for asked in held:
            asked.seat.sign(asked)
        await asyncio.gather(*waiting)


async def answer(ends: Ends) -> tuple[int, bytes]:
    """The next answer on a connection: status and body."""
    async with asyncio.timeout(15):
        head = await ends[0].readuntil(b"\r\n\r\n")
        length = next(int(line[16:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: "))
        return int(head.split()[1]), await ends[0].readexactly(length)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the turnstile said."""
    refusals: list[bytes] = []
    plain = Turnstile.refusal

    def told(self: Turnstile, *given: Any) -> bytes | None:
        refusal = plain(self, *given)
        if refusal is not None:
            refusals.append(refusal)
        return refusal

    monkeypatch.setattr(Turnstile, "refusal", told)
    return refusals


async def test_a_pod_that_takes_leave_says_so_with_its_refusal(own_world: World) -> None:
    """Without it the client would send his next request into the close."""
    async with full(own_world) as (pod, _), connected(pod) as ends:
        ends[1].write(request())
        assert (await answer(ends))[0] == 503
        for each in pod.server.server_state.connections:
            assert isinstance(each, CourteousHttp)
            each.last_request()
        ends[1].write(request())
        async with asyncio.timeout(15):
            assert b"\r\nconnection: close\r\n" in (await ends[0].read()).lower()


async def test_the_answer_is_the_one_of_the_route(own_world: World, said: list[bytes]) -> None:
    async with full(own_world) as (pod, _):
        quick = await pod.http.request(**ASK)  # type: ignore[arg-type]
        assert len(said) == 1
        route = await pod.http.request(**ASK, headers={"x-request-id": "mine"})  # type: ignore[arg-type]
        assert len(said) == 1, "whoever names a request gets the name back"
        assert route.headers["x-request-id"] == "mine"
        assert seen(quick) == seen(route)
        assert list(quick.headers) == list(route.headers)
        assert quick.headers["x-request-id"] == quick.json()["request_id"] != route.json()["request_id"]
        assert pod.count("http_requests_total", route="/v1/sign", method="POST", status="503") == 2


@pytest.mark.parametrize(
    "other",
    [
        {"method": "GET", "url": "/v1/keys"},
        {"method": "POST", "url": "/v1/verify", "json": {"text": "a", "signature": "", "public_key": ""}},
        {"method": "GET", "url": "/v1/sign"},
        {**ASK, "headers": {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}},
        {**ASK, "headers": {"connection": "close"}},
    ],
)
async def test_whatever_else_is_asked_goes_its_way(own_world: World, said: list[bytes], other: Any) -> None:
    async with full(own_world) as (pod, _):
        found: httpx.Response = await pod.http.request(**other)
        assert said == []
        assert found.status_code == (
            503 if other["url"] == "/v1/sign" and other["method"] == "POST" else found.status_code
        )
        assert (found.headers.get("connection") == "close") == ("connection" in other.get("headers", {}))


async def test_with_spans_the_framework_refuses(own_world: World, said: list[bytes]) -> None:
    spans = Spans("rest-api", 1, SpanProcessor())
    async with full(own_world, spans=spans) as (pod, _):
        assert (await pod.http.request(**ASK)).status_code == 503  # type: ignore[arg-type]
    spans.close()
    assert said == []


async def test_the_connection_goes_on_after_the_rest_of_the_body(own_world: World, said: list[bytes]) -> None:
    async with full(own_world) as (pod, held), connected(pod) as ends:
        looks_like_one = request()
        whole = request(looks_like_one)
        ends[1].write(whole[: -len(looks_like_one)])
        assert (await answer(ends))[0] == 503
        ends[1].write(whole[-len(looks_like_one) :] + request())
        assert (await answer(ends))[0] == 503
        assert len(said) == 2
        own_world.committee.reset()
        for asked in held:
            asked.seat.sign(asked)
        await until(lambda: pod.gateway.pending() == 0, "there is room")
        held.clear()
        ends[1].write(request())
        status, body = await answer(ends)
        assert status == 200, body


async def test_requests_that_come_together_are_answered_in_order(own_world: World, said: list[bytes]) -> None:
    async with full(own_world) as (pod, _), connected(pod) as ends:
        several = [request(), request(path=b"/v1/nothing"), request(), request()]
        ends[1].write(b"".join(several))
        assert [(await answer(ends))[0] for _ in several] == [503, 404, 503, 503]
        assert len(said) == 3


class Watched:
    """A connection's loop that keeps the timers which would end it for being idle."""

    def __init__(self, connection: Any) -> None:
        self._loop, self._connection = connection.loop, connection
        self.armed: list[asyncio.TimerHandle] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_later(self, delay: float, what: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        handle: asyncio.TimerHandle = self._loop.call_later(delay, what, *args)
        if what == self._connection.timeout_keep_alive_handler:
            self.armed.append(handle)
        return handle


async def test_an_idle_connection_has_one_end_to_wait_for(own_world: World, said: list[bytes]) -> None:
    async with full(own_world) as (pod, _):
        here = pod.server.server_state.connections
        before = set(here)
        async with connected(pod) as ends:
            await until(lambda: here - before, "it is there")
            (connection,) = here - before
            watched = connection.loop = Watched(connection)  # type: ignore[assignment]
            ends[1].write(request())
            assert (await answer(ends))[0] == 503
            assert len(said) == 1
            assert [handle.cancelled() for handle in watched.armed].count(False) == 1
