"""At the cap of WebSockets: who comes is served or told so, who goes has nothing under way, and nobody of us fails."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus
from websockets.http11 import Request

from rest_api import sockets
from rest_api.attendance import Sockets
from rest_api.routes import sign_ws
from tests.brokers import until
from tests.rest_api.connections import connected
from tests.rest_api.test_rude_sockets import TEXT, masked
from tests.rest_api.test_websocket import (
    LONG,
    UPGRADE,
    a_refusal,
    answer,
    ask,
    closed,
    hold,
    let_go,
    raw_socket,
    socket,
    still_serves,
)
from tests.rest_api.world import Pod, World, running_pod

pytestmark = pytest.mark.anyio
BOUND_S = 30.0
SHORT = {"Request-Timeout-Ms": "400"}


async def crowded(pod: Pod, monkeypatch: pytest.MonkeyPatch, most: int) -> Sockets:
    """The registry of the pod, which has room for so many from now on, and nobody in it."""
    registry: Sockets = pod.server.config.app.state.services.sockets  # type: ignore[union-attr]
    await until(lambda: registry.count() == 0, "those of before are gone", BOUND_S)
    monkeypatch.setattr(registry, "_most", most)
    return registry


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})])
async def test_one_that_comes_as_another_leaves_is_served(own_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is lost stands in line until its session has noticed; uvloop, as in a pod, raises if one
    writes to it."""
    async with running_pod(own_world.settings()) as pod:
        registry = await crowded(pod, monkeypatch, 1)
        _, writer = await raw_socket(pod)
        await until(lambda: registry.count() == 1, "it is in", BOUND_S)
        (ours,) = [each for each in pod.server.server_state.connections if isinstance(each, sockets.SignSocketProtocol)]
        connect = sockets.SignSocketProtocol.handle_connect

        def as_it_leaves(self: sockets.SignSocketProtocol, event: Request) -> None:
            ours.transport.abort()
            connect(self, event)

        monkeypatch.setattr(sockets.SignSocketProtocol, "handle_connect", as_it_leaves)
        async with connected(pod) as (reader, newcomer):
            newcomer.write(UPGRADE + b"\r\n")
            async with asyncio.timeout(BOUND_S):
                assert b" 101 " in await reader.readline()
            assert ours.disconnected
            newcomer.transport.abort()
        writer.transport.abort()


async def test_who_has_a_message_unanswered_stays_from_the_moment_it_came(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    """Also before it has a place among those that are signed, and after it is signed until the answer has left."""
    registry = await crowded(pod, monkeypatch, 8)
    async with contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(socket(pod)) for _ in range(8)]
        for each in opened:
            assert "signature" in await ask(each, {"id": "a", "text": "a"})
        turns = pod.server.config.app.state.services.turns  # type: ignore[union-attr]
        turned = asyncio.Event()
        mine = turns.mine

        async def later(*gone: Any) -> None:
            await turned.wait()
            await mine(*gone)

        monkeypatch.setattr(turns, "mine", later)
        for each in opened:
            await each.send(json.dumps({"id": "b", "text": "b"}))
        await until(registry.full, "all wait for their turn", BOUND_S)
        with pytest.raises(InvalidStatus) as refused:
            async with socket(pod):
                pass
        assert refused.value.response.status_code == 503
        turned.set()
        for each in opened:
            assert "signature" in await answer(each)
        await until(lambda: not registry.full(), "nothing is under way", BOUND_S)
    assert [line for line in log_lines() if line.get("level") == "error"] == []


async def test_what_comes_as_its_connection_is_cut_is_not_signed(
    pod: Pod, shared_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could take the answer."""
    turns = pod.server.config.app.state.services.turns  # type: ignore[union-attr]
    async with socket(pod) as opened:
        (ours,) = [each for each in pod.server.server_state.connections if isinstance(each, sockets.SignSocketProtocol)]

        async def cut(*_: Any) -> None:
            ours.cut()

        monkeypatch.setattr(turns, "mine", cut)
        await opened.send(json.dumps({"id": "a", "text": "crossed"}))
        assert (await closed(opened))[0] == 1013
        monkeypatch.undo()
    await still_serves(pod)
    assert b"crossed" not in {item.message for _, item in shared_world.committee.asked_items()}


async def test_a_signature_that_was_made_and_not_sent_yet_keeps_its_connection(
    pod: Pod, shared_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = await crowded(pod, monkeypatch, 1)
    held = hold(shared_world)
    async with socket(pod) as opened:
        await opened.send(json.dumps({"id": "a", "text": "held"}))
        await until(lambda: bool(held), "it is under way", BOUND_S)
        full = []
        signed = sign_ws._Session._signed

        def looked(self: sign_ws._Session, *args: Any) -> None:
            signed(self, *args)
            full.append(registry.full())

        monkeypatch.setattr(sign_ws._Session, "_signed", looked)
        let_go(shared_world, held)
        assert "signature" in await answer(opened)
        assert full == [True]


async def test_an_answer_to_one_that_is_being_closed_is_no_error(
    pod: Pod,
    shared_world: World,
    monkeypatch: pytest.MonkeyPatch,
    log_lines: Callable[[], list[dict[str, Any]]],
) -> None:
    """It may be cut off for what it does while its message is signed: too many pings, or half a message."""
    held = hold(shared_world)
    async with socket(pod) as opened:
        await opened.send(json.dumps({"id": "a", "text": "held"}))
        await until(lambda: bool(held), "it is under way", BOUND_S)
        signed = sign_ws._Session._signed

        def cut(self: sign_ws._Session, *args: Any) -> None:
            signed(self, *args)
            self._connection.cut()

        monkeypatch.setattr(sign_ws._Session, "_signed", cut)
        let_go(shared_world, held)
        assert (await closed(opened))[0] == sockets.TRY_AGAIN
    monkeypatch.undo()
    await still_serves(pod)
    assert [line for line in log_lines() if line.get("level") == "error"] == []


async def takes_all_places(pod: Pod, opened: ClientConnection) -> None:
    """All that are for WebSockets and batches, in a pod that has two of them."""
    for number in range(2):
        await opened.send(json.dumps({"id": str(number), "text": "held"}))
    await until(lambda: pod.gateway.pending() == 2, "all places are taken", BOUND_S)


async def test_who_waits_for_us_to_take_his_messages_is_not_cut_for_a_ping_that_he_could_not_answer(
    own_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes after a message is read when that was taken, the answer to a ping too."""
    monkeypatch.setitem(sockets.UVICORN, "ws_ping_interval", 0.2)
    monkeypatch.setitem(sockets.UVICORN, "ws_ping_timeout", 0.8)
    held = hold(own_world)
    async with (
        running_pod(own_world.settings(pending_limit_items=4)) as pod,
        socket(pod, additional_headers=LONG) as others,
        socket(pod, additional_headers=SHORT) as opened,
    ):
        await takes_all_places(pod, others)
        # Each is more than is parsed at a time, and waits for a place until its deadline.
        for number in range(6):
            await opened.send(json.dumps({"id": str(number), "text": "x" * 2 * sockets.SLICE_BYTES}))
        for number in range(6):
            a_refusal(await answer(opened), str(number), 503, "in-flight-limit")
        let_go(own_world, held)
        assert "signature" in await ask(opened, {"id": "a", "text": "a"})


async def test_messages_that_came_together_have_the_same_deadline(own_world: World) -> None:
    """Not one deadline each, after the one before it: who is refused is refused in time."""
    held = hold(own_world)
    async with (
        running_pod(own_world.settings(pending_limit_items=4)) as pod,
        socket(pod, additional_headers=LONG) as others,
    ):
        await takes_all_places(pod, others)
        reader, writer = await raw_socket(pod, SHORT)
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"".join(masked(TEXT, b'{"id": "%d", "text": "a"}' % number) for number in range(10)))
            got = bytearray()
            async with asyncio.timeout(BOUND_S):
                while got.count(b'"error"') < 10:
                    part = await reader.read(65536)
                    assert part, bytes(got)
                    got += part
        finally:
            writer.transport.abort()
        assert got.count(b"there was no room for this message") <= 2, "the first waits for all of them"
        let_go(own_world, held)
