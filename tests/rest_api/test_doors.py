"""How many connections strangers may hold, for how long, and how much of our memory: what is bounded beside heads."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from common.wire.messages import MAX_DEADLINE_MS
from rest_api import doors, heads, taking
from rest_api.capacity import Batches, Bodies
from rest_api.doors import Door
from tests.brokers import until
from tests.rest_api.connections import connected
from tests.rest_api.world import Pod

pytestmark = pytest.mark.anyio
POST = b"POST /v1/sign HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
BOUND_S = 30.0


class Visitor:
    """A connection that notes its end."""

    def __init__(self) -> None:
        self.gone = False

    def cut(self) -> None:
        self.gone = True


def test_the_one_that_has_kept_us_waiting_longest_makes_room_and_who_is_owed_an_answer_stays() -> None:
    door = Door(3)
    owed, idle, late = Visitor(), Visitor(), Visitor()
    for each in (owed, idle, late):
        door.enter(each)
    door.owe(owed)
    door.enter(Visitor())
    assert (owed.gone, idle.gone, late.gone) == (False, True, False)
    door.wait(owed)  # answered: now it keeps us waiting, but not for as long as the others
    door.enter(Visitor())
    assert (owed.gone, late.gone) == (False, True)
    assert len(door) == 3


def test_where_everybody_is_owed_an_answer_the_newcomer_goes() -> None:
    door = Door(2)
    owed = [Visitor(), Visitor()]
    for each in owed:
        door.enter(each)
        door.owe(each)
    late = Visitor()
    door.enter(late)
    assert late.gone
    assert not any(each.gone for each in owed)
    assert len(door) == 2


def test_who_was_answered_before_its_body_came_keeps_its_place_in_the_line() -> None:
    door = Door(2)
    early, late = Visitor(), Visitor()
    door.enter(early)
    door.enter(late)
    door.wait(early)
    door.enter(Visitor())
    assert (early.gone, late.gone) == (True, False)
    door.leave(early)
    door.leave(late)
    assert len(door) == 1


def test_there_are_no_more_connections_than_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, expected in (
        (3000, 3000 - doors.KEPT_BACK),
        (1024, 256),
        (100, doors.LEAST),
        (10**6, doors.MOST_CONNECTIONS),
        (resource.RLIM_INFINITY, doors.MOST_CONNECTIONS),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, resource.RLIM_INFINITY))
        assert doors.room() == expected


@pytest.fixture
def narrow(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> Pod:
    """The pod with room for eight connections from now on."""
    monkeypatch.setitem(doors._doors, pod.server.server_state, Door(8))
    return pod


@contextlib.asynccontextmanager
async def silent(pod: Pod, count: int, said: bytes) -> AsyncIterator[list[asyncio.StreamReader]]:
    async with contextlib.AsyncExitStack() as stack:
        readers = []
        for _ in range(count):
            reader, writer = await stack.enter_async_context(connected(pod))
            writer.write(said)
            readers.append(reader)
        yield readers


@pytest.mark.parametrize("said", [b"", POST, POST + b"Content-Length: 1000\r\n\r\n{"])
async def test_silent_connections_beyond_the_cap_keep_nobody_from_being_served(narrow: Pod, said: bytes) -> None:
    async with silent(narrow, 24, said) as readers:
        for _ in range(3):
            assert (await narrow.http.post("/v1/sign", json={"text": "hello"})).status_code == 200
        async with asyncio.timeout(BOUND_S):
            with contextlib.suppress(ConnectionError):
                await readers[0].read()  # the first to come has made room
        assert len(doors.of(narrow.server.server_state)) <= 8


async def test_a_body_that_goes_on_after_its_answer_ends_with_its_connection(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "BODY_WITHIN_S", 0.5)
    async with connected(pod) as (reader, writer):
        writer.write(POST.replace(b"/v1/sign", b"/nowhere") + b"Transfer-Encoding: chunked\r\n\r\n")
        ended = asyncio.create_task(reader.read())
        async with asyncio.timeout(BOUND_S):
            with contextlib.suppress(ConnectionError):
                while not ended.done():
                    writer.write(b"1\r\na\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            answer = b""
            with contextlib.suppress(ConnectionError):
                answer = await ended
    assert answer == b"" or answer.startswith(b"HTTP/1.1 404 ")


async def test_an_answer_that_nobody_takes_ends_with_its_connection(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "TAKING_S", 0.3)
    host, port = pod.url.removeprefix("http://").split(":")
    here = pod.server.server_state.connections
    before = set(here)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
        await fill(pod, client)
        await until(lambda: not set(here) - before, "the connection was cut", BOUND_S)
    assert not pod.server.server_state.tasks


async def fill(pod: Pod, client: socket.socket) -> None:
    """Ask for pages, one after the other, and take none, until no more leave the pod."""
    state = pod.server.server_state

    def full() -> bool:
        if not state.tasks:
            with contextlib.suppress(BlockingIOError):
                client.send(b"GET /docs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        return any(each.transport.get_write_buffer_size() for each in state.connections)

    await until(full, "answers wait to be taken", BOUND_S)


async def test_more_requests_at_once_than_may_wait_end_the_connection(pod: Pod) -> None:
    ask = b"GET /docs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    async with connected(pod) as (reader, writer):
        writer.write(ask * heads.MOST_PIPELINED + ask.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        async with asyncio.timeout(BOUND_S):
            whole = await reader.read()
    assert whole.count(b"HTTP/1.1 200 ") == heads.MOST_PIPELINED + 1
    async with connected(pod) as (reader, writer):
        writer.write(ask * 5_000)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(BOUND_S):
                whole = await reader.read()
            assert whole == b""
    await until(lambda: not pod.server.server_state.tasks, "nothing is left of them", BOUND_S)


def test_large_bodies_share_a_budget_and_small_ones_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bodies, "MOST", 100_000)
    bodies = Bodies()
    with bodies.one() as first, bodies.one() as second:
        assert first(Bodies.FREE + 60_000)
        assert second(Bodies.FREE)
        assert second(Bodies.FREE + 40_000)
        assert not second(Bodies.FREE + 40_001)
    with bodies.one() as again:
        assert again(Bodies.FREE + 100_000)


async def test_large_bodies_that_never_end_leave_room_for_small_ones(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bodies, "MOST", 200_000)
    large = POST + b"Content-Length: 500000\r\nRequest-Timeout-Ms: 30000\r\n\r\n" + b" " * 190_000
    bodies = pod.server.config.app.state.services.bodies  # type: ignore[union-attr]
    async with silent(pod, 1, large):
        await until(lambda: bodies._held > 150_000, "most of it is held", BOUND_S)
        refused = await pod.http.post("/v1/sign", json={"text": "x" * 60_000})
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:signer-flow:problem:in-flight-limit")
        assert (await pod.http.post("/v1/sign", json={"text": "hello"})).status_code == 200
    await until(lambda: bodies._held == 0, "nothing is held for who has gone", BOUND_S)


async def test_batches_whose_bodies_never_end_leave_room_for_whole_ones(pod: Pod) -> None:
    slow = POST.replace(b"/v1/sign", b"/v1/sign/batch") + b"Content-Length: 90\r\nRequest-Timeout-Ms: 30000\r\n\r\n{"
    before = len(pod.server.server_state.tasks)
    async with silent(pod, 2 * Batches.MOST, slow):
        await until(lambda: len(pod.server.server_state.tasks) >= before + 2 * Batches.MOST, "all are read", BOUND_S)
        answer = await pod.http.post("/v1/sign/batch", json={"items": [{"text": "whole"}]})
        assert answer.status_code == 200


async def test_the_kernel_keeps_no_megabytes_for_a_connection(pod: Pod) -> None:
    """Who asks and asks and reads nothing gets as many answers as fit into its buffers: each costs us its making."""
    host, port = pod.url.removeprefix("http://").split(":")
    before = pod.server.server_state.total_requests
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
        page = len((await pod.http.get("/docs")).content)
        await fill(pod, client)
    made = pod.server.server_state.total_requests - before
    assert made * page < 2 * 1024 * 1024


async def test_a_body_has_until_its_deadline_and_the_refusal_names_it(pod: Pod) -> None:
    async with silent(pod, 1, POST + b"Content-Length: 9\r\nRequest-Timeout-Ms: 300\r\n\r\n{") as (reader,):
        async with asyncio.timeout(BOUND_S):
            assert b" 408 " in await reader.readline()
            await reader.readuntil(b"\r\n\r\n")
            assert b"within 0.3 s" in await reader.readuntil(b"}")
    assert heads.BODY_WITHIN_S > MAX_DEADLINE_MS / 1000


async def test_an_origin_that_is_no_address_is_refused_and_fails_nothing(
    pod: Pod, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    for origin in ("http://[", "http://[:1]", "http://[::1"):
        answer = await pod.http.post("/sign", data={"text": "a"}, headers={"Origin": origin})
        assert answer.status_code == 403
    assert [line for line in log_lines() if line.get("level") == "error"] == []
