"""What a stranger may do to WebSockets and to those who have one: heads, ends, pings, places, halves of messages."""

import asyncio
import json

import pytest

from rest_api import sockets
from tests.brokers import until
from tests.rest_api.connections import connected
from tests.rest_api.test_websocket import LONG, ask, hold, let_go, raw_socket, socket, still_serves
from tests.rest_api.world import Pod, World, running_pod

pytestmark = pytest.mark.anyio
BOUND_S = 30.0
UPGRADE = (
    b"GET /sign/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        (b"".join(b"X-%d: a\r\n" % number for number in range(130)), 431),
        (b"Cookie: " + b"c" * 9_000 + b"\r\n", 431),
        (b"Content-Length: 3\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n", 400),
    ],
)
async def test_an_upgrade_that_cannot_be_read_is_answered_and_its_connection_ends(
    pod: Pod, more: bytes, status: int
) -> None:
    here = set(pod.server.server_state.connections)
    async with connected(pod) as (reader, writer):
        writer.write(UPGRADE + more + b"\r\n")
        async with asyncio.timeout(BOUND_S):
            assert (await reader.read()).startswith(b"HTTP/1.1 %d " % status)
    await until(lambda: pod.server.server_state.connections <= here, "nothing is left of it", BOUND_S)
    await still_serves(pod)


def masked(opcode: int, data: bytes = b"") -> bytes:
    """A frame of a client, whole, with a mask that changes nothing."""
    assert len(data) < 126
    return bytes([0x80 | opcode, 0x80 | len(data), 0, 0, 0, 0]) + data


TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


@pytest.mark.parametrize("way", ["goodbye", "nonsense", "half", "drained"])
async def test_who_ends_a_connection_and_takes_nothing_is_gone_soon(
    own_world: World, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """What it was sent before would wait for it to be taken, and the connection with it, for ever."""
    monkeypatch.setattr(sockets, "END_WITHIN_S", 0.5)
    async with running_pod(own_world.settings()) as pod:
        state = pod.server.server_state
        before = set(state.connections)
        _, writer = await raw_socket(pod)
        (ours,) = set(state.connections) - before
        asked = 0

        def untaken() -> bool:
            nonlocal asked
            answered = pod.count("http_requests_total", route="/sign/ws", method="WS", status="422")
            if answered == asked:
                asked += 20
                writer.write(masked(TEXT, b'{"id": "%s"}' % (b"x" * 64)) * 20)
            return ours.transport.get_write_buffer_size() > 0

        await until(untaken, "what it does not take waits in the pod", BOUND_S)
        match way:
            case "goodbye":
                writer.write(masked(CLOSE))
            case "nonsense":
                writer.write(masked(7))
            case "half":
                writer.write_eof()
            case "drained":
                pod.gateway.drain(5)
        await until(lambda: not state.connections - before, "it is gone", BOUND_S)
        writer.transport.abort()


async def test_who_pings_without_end_is_cut_off_and_told_why(pod: Pod) -> None:
    """Each ping costs us a look at it, and its answer: a read of 64 KiB may be ten thousand."""
    answered = 0
    reader, writer = await raw_socket(pod)
    try:
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(2 * sockets.MOST_CONTROL_FRAMES):
            writer.write(masked(PING))
        async with asyncio.timeout(BOUND_S):
            while (head := await reader.readexactly(2)) == b"\x8a\x00":
                answered += 1
            assert head[0] == 0x88
            assert await reader.read() == (1008).to_bytes(2, "big") + b"too many pings"
    finally:
        writer.transport.abort()
    assert answered >= sockets.MOST_CONTROL_FRAMES
    await still_serves(pod)


async def test_who_answers_what_nobody_asked_is_cut_off(pod: Pod) -> None:
    reader, writer = await raw_socket(pod)
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(masked(PONG, b"never") * 2 * sockets.MOST_CONTROL_FRAMES)
        async with asyncio.timeout(BOUND_S):
            assert (await reader.read()).endswith(b"too many pings")
    finally:
        writer.transport.abort()


async def test_pings_in_between_harm_nobody(own_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "MOST_CONTROL_FRAMES", 20)
    monkeypatch.setitem(sockets.UVICORN, "ws_ping_interval", 0.3)
    async with running_pod(own_world.settings()) as pod, socket(pod) as opened:
        (ours,) = [each for each in pod.server.server_state.connections if isinstance(each, sockets.SignSocketProtocol)]
        last = [0.0]
        for _ in range(5):
            for _ in range(10):
                async with asyncio.timeout(BOUND_S):
                    await (await opened.ping())
            last.append(ours.ping_sent_at)
            await until(lambda: ours.ping_sent_at > last[-1], "the next ping of the pod", BOUND_S)
        assert "signature" in await ask(opened, {"id": "a", "text": "a"})


async def test_who_leaves_keeps_the_places_of_what_he_asked_and_waits_for_no_more(own_world: World) -> None:
    """Half of the places are for others: what somebody asked who is gone is under way all the same."""
    held = hold(own_world)
    async with running_pod(own_world.settings(pending_limit_items=20)) as pod:
        services = pod.server.config.app.state.services  # type: ignore[union-attr]
        window, registry = services.batches.window, services.sockets
        async with socket(pod, additional_headers=LONG) as opened:
            for number in range(10):
                await opened.send(json.dumps({"id": str(number), "text": "held"}))
            await until(lambda: pod.gateway.pending() == 10, "half of the places are taken", BOUND_S)
            opened.transport.abort()
        await until(lambda: registry.count() == 0, "it has left", BOUND_S)
        async with socket(pod, additional_headers=LONG) as opened:
            await opened.send(json.dumps({"id": "a", "text": "held"}))
            await until(lambda: pod.gateway.pending() > 10 or bool(window._waiters), "it was taken", BOUND_S)
            assert pod.gateway.pending() == 10
            assert (await pod.http.post("/v1/sign", json={"text": "others"})).status_code == 200
            opened.transport.abort()
        await until(lambda: registry.count() == 0, "it has left, although its message waits for a place", 10)
        assert not window._waiters
        let_go(own_world, held)
        await until(lambda: not window.locked(), "the places are free again", BOUND_S)
        await still_serves(pod)
