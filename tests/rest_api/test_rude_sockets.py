"""What a stranger may do to WebSockets and to those who have one: heads, ends, pings, places, halves of messages."""

import asyncio
import contextlib
import gc
import json
import weakref

import pytest

from rest_api import sockets
from rest_api.attendance import Sockets
from rest_api.capacity import Bodies
from rest_api.routes import sign_ws
from tests.brokers import until
from tests.rest_api.connections import connected
from tests.rest_api.test_websocket import LONG, UPGRADE, ask, closed, hold, let_go, raw_socket, socket, still_serves
from tests.rest_api.world import Pod, World, running_pod

pytestmark = pytest.mark.anyio
BOUND_S = 30.0


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


async def test_a_goodbye_that_crossed_ours_is_heard_behind_messages_that_nobody_took(
    own_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came before ours left, and nothing comes after it that would have us look."""
    monkeypatch.setattr(sockets, "END_WITHIN_S", 600.0)
    monkeypatch.setattr(sign_ws, "LAST_ANSWERS_S", 0.1)
    own_world.committee.all_do(lambda asked: None)
    async with running_pod(own_world.settings(shutdown_grace_ms=0)) as pod:
        state = pod.server.server_state
        before = set(state.connections)
        reader, writer = await raw_socket(pod)
        (ours,) = set(state.connections) - before
        monkeypatch.setattr(ours, "close_timeout", 600.0)
        message = masked(TEXT, b'{"id": "a", "text": "%s"}' % (b"x" * 64))
        writer.write(message * (sign_ws.WINDOW + 36) + masked(CLOSE))
        await until(lambda: pod.gateway.pending() == sign_ws.WINDOW, "the window is full", BOUND_S)
        pod.gateway.drain(30)
        async with asyncio.timeout(BOUND_S):
            assert (await reader.read()).endswith(b"may have been signed")
        writer.close()


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


class Visitor:
    """A connection that notes its end."""

    def __init__(self) -> None:
        self.gone = False

    def cut(self) -> None:
        self.gone = True


def test_strangers_make_room_first_then_who_has_been_idle_longest_and_never_who_is_owed_an_answer() -> None:
    registry, visitors = Sockets(4), [Visitor() for _ in range(7)]
    busy, idle, lately, stranger, *more = visitors

    def gone() -> list[int]:
        return [number for number, each in enumerate(visitors) if each.gone]

    with contextlib.ExitStack() as stack:
        for each in (stranger, busy, lately, idle):
            stack.enter_context(registry.one(each))
        for each in (busy, idle, lately):
            registry.busy(each)
            registry.known(each)
        registry.idle(idle)
        registry.idle(lately)
        registry.busy(stranger)  # it is none: nobody has said who is there
        for each, expected in zip(more, ([3], [3, 4], [3, 4, 5]), strict=True):
            stack.enter_context(registry.one(each))
            assert gone() == expected
        registry.known(more[-1])
        registry.idle(more[-1])
        with registry.one(Visitor()):
            assert gone() == [1, 3, 4, 5]
            assert registry.count() == 4
        assert not registry.full()
        for each in (lately, more[-1]):
            registry.busy(each)
        with registry.one(last := Visitor()):
            registry.known(last)
            assert registry.full()
        assert not busy.gone
    assert registry.count() == 0


def test_of_strangers_the_one_goes_first_whose_last_message_is_longest_ago() -> None:
    registry, visitors = Sockets(3), [Visitor() for _ in range(3)]
    with contextlib.ExitStack() as stack:
        for each in visitors:
            stack.enter_context(registry.one(each))
        registry.busy(visitors[0])
        for expected in ([1], [1, 2]):
            stack.enter_context(registry.one(Visitor()))
            assert [number for number, each in enumerate(visitors) if each.gone] == expected
        assert registry.count() == 3


async def test_idle_sockets_keep_nobody_out(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """They answer every ping, and would stay for ever."""
    registry = pod.server.config.app.state.services.sockets  # type: ignore[union-attr]
    await until(lambda: registry.count() == 0, "those of before are gone", BOUND_S)
    monkeypatch.setattr(registry, "_most", 8)
    async with contextlib.AsyncExitStack() as stack:
        used = await stack.enter_async_context(socket(pod))
        assert "signature" in await ask(used, {"id": "a", "text": "a"})
        idle = [await stack.enter_async_context(socket(pod)) for _ in range(20)]
        assert await closed(idle[0]) == (1013, "this pod has no room for idle connections; come again later")
        await still_serves(pod)
        assert registry.count() <= 8
        assert "signature" in await ask(used, {"id": "b", "text": "b"})


async def test_a_message_that_begins_and_never_ends_ends_its_connection(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "MESSAGE_WITHIN_S", 0.5)
    half = bytes([0x81, 0xFE, 0x10, 0, 0, 0, 0, 0]) + b" " * 100
    for said in (half, bytes([0x01, 0x81, 0, 0, 0, 0]) + b" ", masked(TEXT, b"{}") * 3 + half):
        reader, writer = await raw_socket(pod)
        try:
            writer.write(said)
            async with asyncio.timeout(BOUND_S):
                assert (await reader.read()).endswith(b"the message did not come in time")
        finally:
            writer.transport.abort()
    await still_serves(pod)


async def test_who_waits_for_us_with_half_a_message_is_not_told_that_he_is_slow(
    pod: Pod, shared_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "MESSAGE_WITHIN_S", 0.3)
    held = hold(shared_world)
    reader, writer = await raw_socket(pod, LONG)
    loop = asyncio.get_running_loop()
    try:
        await reader.readuntil(b"\r\n\r\n")
        message = masked(TEXT, b'{"id": "a", "text": "held"}')
        writer.write(message * (sign_ws.WINDOW + 1) + message[:-1])
        await until(lambda: pod.gateway.pending() == sign_ws.WINDOW, "the window is full", BOUND_S)
        later = loop.time() + 0.6
        await until(lambda: loop.time() > later, "more time than a message has")
        let_go(shared_world, held)
        writer.write(message[-1:])
        got = bytearray()
        async with asyncio.timeout(BOUND_S):
            while got.count(b'"signature"') < sign_ws.WINDOW + 2:
                part = await reader.read(65536)
                assert part, bytes(got[-200:])
                got += part
    finally:
        writer.transport.abort()


async def test_large_messages_that_never_end_share_the_budget_of_bodies(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bodies, "MOST", 200_000)
    bodies = pod.server.config.app.state.services.bodies  # type: ignore[union-attr]
    large = bytes([0x81, 0xFF, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0]) + b" " * 190_000
    _, first = await raw_socket(pod)
    reader, second = await raw_socket(pod)
    try:
        first.write(large)
        await until(lambda: bodies._held > 150_000, "most of it is held", BOUND_S)
        await reader.readuntil(b"\r\n\r\n")
        second.write(large)
        # Its reset may overtake what it is told: it goes on sending.
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(BOUND_S):
                told = await reader.read()
            assert told.endswith(b"too many large messages are on their way to this pod")
        assert bodies._held <= 200_000
        await still_serves(pod)
    finally:
        for each in (first, second):
            each.transport.abort()
    await until(lambda: bodies._held == 0, "nothing is held for who has gone", BOUND_S)


async def test_of_who_has_gone_nothing_waits_for_the_collector(pod: Pod) -> None:
    """Which counts objects, not what they hold: a hundred halves of messages would stay, and the hundred after them."""
    half = bytes([0x81, 0xFF, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0]) + b" " * 190_000
    connections = pod.server.server_state.connections
    gc.collect()
    gc.disable()
    try:
        _, writer = await raw_socket(pod)
        (ours,) = [each for each in connections if isinstance(each, sockets.SignSocketProtocol)]
        left = (weakref.ref(ours), weakref.ref(ours.conn))
        del ours
        writer.write(masked(TEXT, b'{"id": "a", "text": "a"}') + half)

        def here() -> int:
            conn = left[1]()
            return 0 if conn is None else len(conn.reader.buffer)

        await until(lambda: here() == 190_000, "half of it is here", BOUND_S)
        writer.transport.abort()
        await until(lambda: left[0]() is None and left[1]() is None, "nothing is left of it", BOUND_S)
    finally:
        gc.enable()
