"""Whatever a crowd does, and whenever it leaves: each place, byte and line that it took is given back in the end.

Each of these is one that nobody else gets while it is lost, and a pod that loses one a day stands still in the end.
"""

import asyncio
import contextlib
import json
import random  # noqa: TID251 (who does what, the same for the same seed)
from collections.abc import Callable
from typing import Any

import pytest

from common.wire.messages import RefusalCode
from tests.brokers import until_async
from tests.rest_api.connections import connected
from tests.rest_api.test_rude_sockets import CLOSE, PING, TEXT, masked
from tests.rest_api.test_websocket import UPGRADE, still_serves
from tests.rest_api.world import Asked, Pod, World, running_pod

pytestmark = pytest.mark.anyio
CROWD = 300
SOON_S = 30.0
GETS = (b"/sign", b"/v1/keys", b"/v1/cluster", b"/docs", b"/healthz")


def request(method: bytes, path: bytes, body: bytes, ms: int) -> bytes:
    head = b"%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nRequest-Timeout-Ms: %d\r\n" % (
        method,
        path,
        ms,
    )
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def batch(chance: random.Random) -> bytes:
    items = [{"text": str(item)} for item in range(chance.choice((1, 5, 60, 400)))]
    if chance.random() < 0.5:
        items[0]["text"] = "x" * 60_000  # counts against what bodies may hold
    return json.dumps({"items": items}).encode()


def messages(chance: random.Random) -> bytes:
    """What goes over a WebSocket: more than its window, pings in between, and an end of some kind, or none."""
    frames = [masked(TEXT, b'{"id": "%d", "text": "a"}' % n) for n in range(chance.choice((1, 3, 70, 200)))]
    frames.insert(chance.randrange(len(frames)), masked(PING))
    return b"".join(frames) + chance.choice((b"", b"", masked(CLOSE), masked(7)))


def what_it_sends(chance: random.Random) -> bytes:
    ms = chance.choice((1, 5, 50, 300))
    match chance.choice(
        ("one", "one", "one", "batch", "batch", "page", "many", "half", "messages", "messages", "messages")
    ):
        case "one":
            return request(b"POST", b"/v1/sign", b'{"text": "a"}', ms)
        case "batch":
            return request(b"POST", b"/v1/sign/batch", batch(chance), ms)
        case "page":
            return request(b"GET", chance.choice(GETS), b"", ms)
        case "many":
            return request(b"POST", b"/v1/sign", b'{"text": "a"}', ms) * chance.randrange(1, 18)
        case "half":
            path = chance.choice((b"/v1/sign/batch", b"/v1/verify"))
            return request(b"POST", path, b"[" * chance.choice((10, 100_000)), ms)[:-1]
        case _:
            return UPGRADE + b"Request-Timeout-Ms: %d\r\n\r\n" % ms + messages(chance)


async def one_of_the_crowd(pod: Pod, chance: random.Random) -> None:
    """Comes, sends all or a part, and leaves at once, soon, or when it has waited."""
    await asyncio.sleep(chance.random())
    left, waits_s = what_it_sends(chance), chance.choice((0.0, 0.0, 0.02, 0.05, 0.6))
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, RuntimeError):
        async with connected(pod) as (reader, writer):
            if left.startswith(UPGRADE):
                head, end, left = left.partition(b"\r\n\r\n")
                writer.write(head + end)
                await reader.readuntil(end)
            while left and chance.random() < 0.9:
                size = chance.choice((len(left), chance.randrange(1, len(left) + 1)))
                writer.write(left[:size])
                left = left[size:]
                await asyncio.sleep(0)
            if waits_s == 0.0:
                writer.transport.abort()
                return
            async with asyncio.timeout(waits_s):
                while await reader.read(65_536):
                    pass


def taken(pod: Pod) -> dict[str, int]:
    """What is not given back, by name."""
    services = pod.server.config.app.state.services  # type: ignore[union-attr]
    window, outbox, correlation = services.batches.window, pod.gateway._outbox, pod.gateway._correlation
    found = {
        "connections": len(pod.server.server_state.connections),
        "tasks": len(pod.server.server_state.tasks),
        "pending": pod.gateway.pending(),
        "futures": len(pod.gateway._futures),
        "owed by seats": sum(correlation.in_flight.values()),
        "to be asked again": len(correlation._waiting),
        "room on partitions": len(outbox._room._records),
        "to be sent": len(outbox._fresh),
        "places of the window": window._places - window._value,
        "places of batches": services.batches.MOST - services.batches._places._value,
        "bytes of bodies": services.bodies._held,
        "WebSockets": services.sockets.count(),
        "turns": len(services.turns._waiting),
    }
    return {name: count for name, count in found.items() if count}


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})])
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize(("seed", "limit"), [(1, 8), (2, 1_000)])
async def test_whatever_a_crowd_took_is_given_back(
    own_world: World, log_lines: Callable[[], list[dict[str, Any]]], seed: int, limit: int, ends: bool
) -> None:
    chance = random.Random(seed)

    def as_it_likes(asked: Asked) -> None:
        match chance.choice(("sign", "refuse", "late", "never")):
            case "sign":
                asked.seat.sign(asked)
            case "refuse":
                asked.seat.refuse(asked, RefusalCode.OVERLOADED, retryable=True)
            case "late":
                asyncio.get_running_loop().call_later(chance.random() / 2, asked.seat.sign, asked)

    own_world.committee.all_do(as_it_likes)
    async with running_pod(own_world.settings(pending_limit_items=limit)) as pod:
        if ends:
            asyncio.get_running_loop().call_later(0.5, pod.gateway.drain, 0.3, 0.1)
        await asyncio.gather(*(one_of_the_crowd(pod, chance) for _ in range(CROWD)))

        async def still_taken() -> dict[str, int]:
            await asyncio.sleep(0.01)
            return taken(pod)

        await until_async(still_taken, {}, SOON_S)
        own_world.committee.reset()
        if not ends:
            await still_serves(pod)
    assert [line for line in log_lines() if line.get("level") == "error"] == []
