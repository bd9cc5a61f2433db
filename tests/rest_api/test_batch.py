"""POST /v1/sign/batch: order, references, and a bad item that fails alone."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common import ed25519
from common.wire.messages import MAX_MSG_TO_SIGN_BYTES, MAX_SIGN_PACKAGE_BYTES, RefusalCode
from rest_api.capacity import Batches, Bodies
from tests.brokers import until
from tests.rest_api.connections import Ends, connected
from tests.rest_api.test_sign import a_problem, b64
from tests.rest_api.test_websocket import hold, let_go
from tests.rest_api.world import Pod, World, running_pod

pytestmark = pytest.mark.anyio


async def test_a_thousand_items_come_back_in_order_each_signed(pod: Pod, shared_world: World) -> None:
    items = [{"text": f"row {n}", "reference": str(n)} for n in range(1000)]
    answer = await pod.http.post("/v1/sign/batch", json={"items": items}, headers={"Request-Timeout-Ms": "20000"})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result["reference"] for result in results] == [str(n) for n in range(1000)]
    public = shared_world.trust.group_pub
    for n, result in enumerate(results):
        assert ed25519.verify(public, f"row {n}".encode(), base64.b64decode(result["signature"]))
    records = [request for seat in shared_world.committee.seats.values() for request in seat.asked]
    # 64 a record, not one: else a thousand edge signatures.
    assert len(records) < 40
    # Large ones share the seats out, not one seat for all.
    assert all(seat.asked for seat in shared_world.committee.seats.values())


async def test_a_bad_item_fails_alone(pod: Pod) -> None:
    items: list[Any] = [
        {"text": "good", "reference": "a"},
        {"text": "x", "data": "eA==", "reference": "both"},
        {"data": "?", "reference": "wrong"},
        {"text": "x", "colour": 1, "reference": "field"},
        {"data": b64(bytes(65537)), "reference": "long"},
        {"data": b64(b"signer-flow/internal/v1\x00"), "reference": "ours"},
        {"text": "x", "reference": 5},
        "not an object",
        None,
        {"text": "last"},
    ]
    answer = await pod.http.post("/v1/sign/batch", json={"items": items})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result["reference"] for result in results] == [
        "a", "both", "wrong", "field", "long", "ours", None, None, None, None
    ]  # fmt: skip
    statuses = [result["error"]["status"] if "error" in result else 200 for result in results]
    assert statuses == [200, 422, 422, 422, 413, 422, 422, 422, 422, 200]
    assert len({result.get("request_id") or result["error"]["request_id"] for result in results}) == 10


@pytest.mark.parametrize("count", [0, 1001])
async def test_none_and_more_than_a_thousand_are_refused(pod: Pod, count: int) -> None:
    answer = await pod.http.post("/v1/sign/batch", json={"items": [{"text": "a"}] * count})
    assert a_problem(answer, 422, "invalid-request")["errors"][0]["field"] == "items"


async def test_a_batch_names_its_key_once_and_an_unknown_one_refuses_it_all(pod: Pod) -> None:
    answer = await pod.http.post("/v1/sign/batch", json={"items": [{"text": "a"}], "key_id": "other"})
    a_problem(answer, 404, "unknown-key")
    answer = await pod.http.post("/v1/sign/batch", json={"items": [{"text": "a", "key_id": "default"}]})
    assert answer.json()["results"][0]["error"]["errors"][0]["field"] == "key_id"


async def test_a_refused_item_says_so_in_its_own_place(pod: Pod, shared_world: World) -> None:
    shared_world.committee.all_do(lambda asked: asked.seat.refuse(asked, RefusalCode.QUORUM_LOST, retryable=True))
    answer = await pod.http.post("/v1/sign/batch", json={"items": [{"text": "a"}, {"text": "b"}]})
    assert answer.status_code == 200
    errors = [result["error"] for result in answer.json()["results"]]
    assert [(error["status"], error["retryable"]) for error in errors] == [(503, True), (503, True)]


async def test_large_items_are_cut_into_records_that_a_signer_takes(pod: Pod, shared_world: World) -> None:
    message = bytes(64 * 1024)
    items = [{"data": b64(message)} for _ in range(60)]
    answer = await pod.http.post("/v1/sign/batch", json={"items": items}, headers={"Request-Timeout-Ms": "20000"})
    assert all("signature" in result for result in answer.json()["results"])
    records = [request for seat in shared_world.committee.seats.values() for request in seat.asked]
    assert max(len(record.items) for record in records) == 7
    assert 7 * len(message) < MAX_MSG_TO_SIGN_BYTES < MAX_SIGN_PACKAGE_BYTES


async def test_a_batch_never_takes_more_than_half_of_the_room(own_world: World) -> None:
    async with running_pod(own_world.settings(pending_limit_items=20)) as pod:
        most = 0
        committee = own_world.committee

        def slow(asked: Any) -> None:
            nonlocal most
            most = max(most, pod.gateway.pending())
            asyncio.get_running_loop().call_later(0.02, asked.seat.sign, asked)

        committee.all_do(slow)
        items = [{"text": str(n)} for n in range(45)]
        batch = asyncio.create_task(pod.http.post("/v1/sign/batch", json={"items": items}))
        single = await pod.http.post("/v1/sign", json={"text": "between"})
        assert single.status_code == 200
        assert all("signature" in result for result in (await batch).json()["results"])
        assert 1 < most <= 11


async def test_what_finds_no_room_in_time_was_not_sent_and_may_be_tried_again(own_world: World) -> None:
    async with running_pod(own_world.settings(pending_limit_items=4)) as pod:
        own_world.committee.all_do(lambda asked: None)
        items = [{"text": str(n)} for n in range(4)]
        answer = await pod.http.post("/v1/sign/batch", json={"items": items}, headers={"Request-Timeout-Ms": "400"})
        errors = [result["error"] for result in answer.json()["results"]]
        assert [error["status"] for error in errors] == [504, 504, 503, 503]
        assert [error["retryable"] for error in errors] == [False, False, True, True]
        # Once half of the time is over each may be asked of a second seat.
        assert len({item.request_id for _, item in own_world.committee.asked_items()}) == 2


BOUND_S = 30.0
WAITING = 3
LARGE = json.dumps({"items": [{"text": "held" if n == 0 else "x" * 60_000} for n in range(2)]}).encode()


@contextlib.asynccontextmanager
async def more_than_may_run(pod: Pod, last_ms: int) -> AsyncIterator[list[Ends]]:
    """Batches whose bodies come when all of them were let in: so many run, and the last ``WAITING`` find no place."""
    before = len(pod.server.server_state.tasks)
    async with contextlib.AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(connected(pod)) for _ in range(Batches.MOST + WAITING)]
        for number, (_, writer) in enumerate(ends):
            writer.write(
                b"POST /v1/sign/batch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\nRequest-Timeout-Ms: %d\r\n\r\n"
                % (len(LARGE), 30_000 if number < Batches.MOST else last_ms)
            )
        await until(lambda: len(pod.server.server_state.tasks) >= before + len(ends), "all are let in", BOUND_S)
        for number, (_, writer) in enumerate(ends):
            writer.write(LARGE)
            if number == Batches.MOST - 1:
                await until(pod_batches(pod).full, "so many run", BOUND_S)
        yield ends


def pod_batches(pod: Pod) -> Batches:
    found: Batches = pod.server.config.app.state.services.batches  # type: ignore[union-attr]
    return found


async def test_a_batch_that_was_let_in_waits_for_a_place_and_its_body_counts_meanwhile(own_world: World) -> None:
    """It was uploaded, and charged for: to refuse it at once would have all of that done again."""
    held = hold(own_world)
    async with running_pod(own_world.settings()) as pod, more_than_may_run(pod, 30_000) as ends:
        bodies: Bodies = pod.server.config.app.state.services.bodies  # type: ignore[union-attr]
        counted = WAITING * (len(LARGE) - Bodies.FREE)
        await until(lambda: bodies._held == counted, "the bodies of those who wait are counted", BOUND_S)
        # Whoever comes now has sent no body yet.
        refused = await pod.http.post("/v1/sign/batch", json={"items": [{"text": "a"}]})
        a_problem(refused, 503, "in-flight-limit")
        await until(lambda: len(held) > 0, "it is asked for", BOUND_S)
        let_go(own_world, held)
        for reader, _ in ends:
            async with asyncio.timeout(BOUND_S):
                assert b" 200 " in await reader.readline()
        await until(lambda: bodies._held == 0, "no body is held any more", BOUND_S)
        assert (await pod.http.post("/v1/sign/batch", json={"items": [{"text": "a"}]})).status_code == 200


async def test_a_batch_that_finds_no_place_by_its_deadline_is_refused(own_world: World) -> None:
    held = hold(own_world)
    async with running_pod(own_world.settings()) as pod, more_than_may_run(pod, 1_000) as ends:
        for reader, _ in ends[Batches.MOST :]:
            async with asyncio.timeout(BOUND_S):
                assert b" 503 " in await reader.readline()
                await reader.readuntil(b"\r\n\r\n")
                assert b"in-flight-limit" in await reader.readuntil(b"}")
        let_go(own_world, held)
        for reader, _ in ends[: Batches.MOST]:
            async with asyncio.timeout(BOUND_S):
                assert b" 200 " in await reader.readline()
