"""A pod that ends loses no request of a client who could not know of it yet."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from rest_api import goodbye, server
from tests.brokers import until
from tests.rest_api.connections import Ends, connected
from tests.rest_api.world import Asked, Pod, World, running_pod

pytestmark = pytest.mark.anyio

BODY = b'{"text":"a"}'
SIGN = (
    b"POST /v1/sign HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
GRACE_S = 5.0


@pytest.fixture
async def pod(own_world: World) -> AsyncIterator[Pod]:
    async with running_pod(own_world.settings()) as pod:
        yield pod


async def ask(ends: Ends) -> bytes:
    """One request, and its answer: head and body."""
    ends[1].write(SIGN)
    return await answer(ends)


async def answer(ends: Ends) -> bytes:
    async with asyncio.timeout(20):
        head = await ends[0].readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return head + await ends[0].readexactly(length)


def leave(pod: Pod) -> None:
    """As the process does at SIGTERM."""
    pod.gateway.drain(GRACE_S, server.LAST_ORDERS_S)
    pod.server.should_exit = True


async def gone(pod: Pod) -> None:
    await until(lambda: not pod.server.listeners[0].is_serving(), "it listens no more")


async def test_a_request_on_a_kept_connection_is_answered_and_told_to_be_the_last(pod: Pod) -> None:
    async with connected(pod) as first, connected(pod) as second:
        assert (await ask(first)).startswith(b"HTTP/1.1 200 ")
        assert (await ask(second)).startswith(b"HTTP/1.1 200 ")
        leave(pod)
        assert pod.gateway.standing.readiness().keys() == {"draining"}
        await gone(pod)
        last = await ask(first)
        assert last.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nconnection: close\r\n" in last.lower()
        async with asyncio.timeout(20):
            assert await first[0].read() == b""  # and is closed with it
            assert await second[0].read() == b""  # as is one that nobody used


async def test_a_request_under_way_is_answered_and_its_connection_closed(pod: Pod, own_world: World) -> None:
    held: list[Asked] = []
    own_world.committee.all_do(held.append)
    async with connected(pod) as ends:
        ends[1].write(SIGN)
        await until(lambda: bool(held), "it was asked")
        leave(pod)
        await gone(pod)
        held[0].seat.sign(held[0])
        found = await answer(ends)
        assert found.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nconnection: close\r\n" in found.lower()


async def test_connections_that_were_made_and_not_accepted_yet_are_served(pod: Pod) -> None:
    host, port = pod.url.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()
    made = [socket.socket() for _ in range(8)]
    try:
        # In one turn of the loop, so that the server cannot have accepted them: the kernel has, and they wait there.
        for each in made:
            each.connect((host, int(port)))
            each.sendall(SIGN)
        served = pod.server.server_state.connections
        assert not any(isinstance(each, goodbye.CourteousHttp) for each in served)
        pod.gateway.drain(GRACE_S, server.LAST_ORDERS_S)
        await goodbye.part(pod.server.listeners, served, lambda: True, 60.0)
        assert sum(isinstance(each, goodbye.CourteousHttp) for each in served) >= len(made)
        for each in made:
            each.setblocking(False)
            async with asyncio.timeout(20):
                assert (await loop.sock_recv(each, 65536)).startswith(b"HTTP/1.1 200 ")
    finally:
        for each in made:
            each.close()


async def test_nobody_there_means_that_nobody_is_waited_for(pod: Pod) -> None:
    await pod.http.aclose()
    async with asyncio.timeout(20):
        await goodbye.part((), pod.server.server_state.connections, lambda: False, 60.0)


async def test_a_second_signal_does_not_wait_for_idle_clients(pod: Pod) -> None:
    async with connected(pod) as ends:
        assert (await ask(ends)).startswith(b"HTTP/1.1 200 ")
        async with asyncio.timeout(20):
            await goodbye.part((), pod.server.server_state.connections, lambda: True, 60.0)
