"""P6: one answer per request, or a clear error before its deadline; and 503 before the body when there is no room."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from common.ids import BootId, Index, Instant, PodIndex
from common.kafka.embedded import EmbeddedBroker
from common.wire.messages import RefusalCode
from rest_api.backlog import PLENTY
from rest_api.gateway import core
from rest_api.gateway.beats import Pods
from tests.brokers import until
from tests.rest_api.test_routing import Clock, a_beat
from tests.rest_api.test_sign import a_problem, raw_request, signed
from tests.rest_api.world import Asked, Pod, World, running_pod, world

pytestmark = pytest.mark.anyio

PRODUCE = 0
TOO_LARGE, INVALID_RECORD = 10, 87


async def test_without_an_answer_the_deadline_says_that_the_outcome_is_unknown(pod: Pod, shared_world: World) -> None:
    shared_world.committee.all_do(lambda asked: None)
    began = time.monotonic()
    answer = await pod.http.post("/v1/sign", json={"text": "a"}, headers={"Request-Timeout-Ms": "400"})
    assert 0.4 <= time.monotonic() - began < 4.0
    assert "outcome is unknown" in a_problem(answer, 504, "deadline")["detail"]


async def test_an_answer_after_the_deadline_is_late_and_dropped(pod: Pod, shared_world: World) -> None:
    kept: list[Asked] = []
    shared_world.committee.all_do(kept.append)
    answer = await pod.http.post("/v1/sign", json={"text": "a"}, headers={"Request-Timeout-Ms": "200"})
    assert answer.status_code == 504
    before = pod.count("answers_total", kind="late")
    kept[0].seat.sign(kept[0])
    await until(lambda: pod.count("answers_total", kind="late") == before + 1, "the late answer is counted")


async def test_a_second_answer_is_a_duplicate_and_dropped(pod: Pod, shared_world: World) -> None:
    def twice(asked: Asked) -> None:
        asked.seat.sign(asked)
        asked.seat.sign(asked)
        asked.seat.refuse(asked, RefusalCode.UNKNOWN_KEY, retryable=False)

    shared_world.committee.all_do(twice)
    before = pod.count("answers_total", kind="duplicate")
    signed(await pod.http.post("/v1/sign", json={"text": "a"}), b"a")
    await until(lambda: pod.count("answers_total", kind="duplicate") == before + 2, "two duplicates")


async def test_a_record_may_be_answered_in_pieces_and_in_any_order(pod: Pod, shared_world: World) -> None:
    def in_pieces(asked: Asked) -> None:
        for item in reversed(asked.request.items):
            asked.seat.answer(asked, shared_world.committee.outcome(item))

    shared_world.committee.all_do(in_pieces)
    answer = await pod.http.post("/v1/sign/batch", json={"items": [{"text": str(n)} for n in range(10)]})
    assert all("signature" in result for result in answer.json()["results"])


async def test_at_the_in_flight_limit_a_request_is_refused_before_its_body_is_read(own_world: World) -> None:
    async with running_pod(own_world.settings(pending_limit_items=3)) as pod:
        kept: list[Asked] = []
        own_world.committee.all_do(kept.append)
        waiting = [asyncio.create_task(pod.http.post("/v1/sign", json={"text": "a"})) for _ in range(3)]
        await until(lambda: pod.gateway.pending() == 3, "three are pending")
        # The body is announced and never sent.
        raw = await raw_request(pod, b"Content-Length: 100000\r\n", b"")
        assert raw.startswith(b"HTTP/1.1 503")
        assert b"in-flight-limit" in raw
        assert b"retry-after: 1" in raw.lower()
        assert (await pod.http.get("/readyz")).status_code == 503
        own_world.committee.all_do(lambda asked: asked.seat.sign(asked))  # what is still on its way
        for asked in kept:
            asked.seat.sign(asked)
        for answer in await asyncio.gather(*waiting):
            signed(answer, b"a")
        assert (await pod.http.get("/readyz")).status_code == 200


async def test_busy_signers_are_not_given_what_they_could_not_do_in_time(own_world: World) -> None:
    async with running_pod(own_world.settings()) as pod:
        for seat in own_world.committee.seats.values():
            seat.queue_wait_ms = 600
        await until(lambda: pod.gateway.standing.queue_wait_ms == 600, "beats say so")
        headers = {"Request-Timeout-Ms": "2000"}
        a_problem(await pod.http.post("/v1/sign", json={"text": "a"}, headers=headers), 503, "overloaded")
        # A quarter of a longer deadline is enough, and one idle seat is enough for all.
        signed(await pod.http.post("/v1/sign", json={"text": "a"}, headers={"Request-Timeout-Ms": "4000"}), b"a")


async def test_what_is_pending_at_a_silent_seat_is_answered_by_another(own_world: World) -> None:
    async with running_pod(own_world.settings()) as pod:
        committee = own_world.committee
        dead = committee.seats[Index(1)]
        dead.behaviour = lambda asked: None
        batch = asyncio.create_task(
            pod.http.post("/v1/sign/batch", json={"items": [{"text": str(n)} for n in range(400)]})
        )
        await until(lambda: len(dead.asked) > 0, "the seat got something")
        dead.beating = False
        results = (await batch).json()["results"]
        assert all("signature" in result for result in results)
        assert pod.count("resends_total", reason="suspected") > 0
        # From now on nothing is sent to it at all.
        before = len(dead.asked)
        for _ in range(10):
            signed(await pod.http.post("/v1/sign", json={"text": "a"}), b"a")
        assert len(dead.asked) == before
        ids = [item.request_id for seat, item in committee.asked_items() if seat == 1]
        again = [item.request_id for seat, item in committee.asked_items() if seat != 1]
        assert set(ids) <= set(again), "sent again under the same request id"


async def test_a_slow_seat_that_is_alive_keeps_its_request(pod: Pod, shared_world: World) -> None:
    committee = shared_world.committee

    def slow(asked: Asked) -> None:
        asyncio.get_running_loop().call_later(1.5, asked.seat.sign, asked)

    committee.all_do(slow)
    signed(await pod.http.post("/v1/sign", json={"text": "slow"}), b"slow")
    assert len(committee.asked_items()) == 1


async def test_a_seat_that_beats_and_swallows_what_it_reads_costs_time_and_no_request(
    pod: Pod, shared_world: World
) -> None:
    committee = shared_world.committee
    swallowed: list[Asked] = []

    def swallow(asked: Asked) -> None:
        # Whoever is asked first: which that is, chance decides.
        if not swallowed or asked.seat.index == swallowed[0].seat.index:
            swallowed.append(asked)
        else:
            asked.seat.sign(asked)

    committee.all_do(swallow)
    many = [f"{i}" for i in range(60)]
    answers = await asyncio.gather(*(pod.http.post("/v1/sign", json={"text": text}) for text in many))
    for text, answer in zip(many, answers, strict=True):
        signed(answer, text.encode())
    assert swallowed, "the liar was asked"
    # Known for what it is, it is asked no more.
    before = len(swallowed)
    for text in many[:20]:
        signed(await pod.http.post("/v1/sign", json={"text": text}), text.encode())
    assert len(swallowed) == before


async def test_a_retryable_refusal_is_asked_of_another_seat(pod: Pod, shared_world: World) -> None:
    committee = shared_world.committee
    refused: list[int] = []

    def first_refuses(asked: Asked) -> None:
        if not refused:
            refused.append(asked.seat.index)
            asked.seat.refuse(asked, RefusalCode.OVERLOADED, retryable=True)
        else:
            asked.seat.sign(asked)

    committee.all_do(first_refuses)
    signed(await pod.http.post("/v1/sign", json={"text": "a"}), b"a")
    assert [seat for seat, _ in committee.asked_items() if seat not in refused] != []


async def test_with_nobody_up_the_request_waits_in_its_partition_for_whoever_comes_back(own_world: World) -> None:
    async with running_pod(own_world.settings()) as pod:
        committee = own_world.committee
        for seat in committee.seats.values():
            seat.beating, seat.behaviour = False, lambda asked: None
        await until(lambda: not pod.gateway.routing.live(), "all are suspected")
        answer = await pod.http.post("/v1/sign", json={"text": "a"}, headers={"Request-Timeout-Ms": "500"})
        a_problem(answer, 504, "deadline")
        assert len(committee.asked_items()) == 1


async def test_while_the_broker_is_away_new_requests_are_told_so_and_then_they_are_taken_again(
    own_world: World,
) -> None:
    with EmbeddedBroker() as broker:
        async with world(broker, own_world.folder / "outage") as place, running_pod(place.settings()) as pod:
            signed(await pod.http.post("/v1/sign", json={"text": "a"}), b"a")
            broker.set_down()
            await until(lambda: "broker" in pod.gateway.standing.readiness(), "the pod sees the outage")
            answer = await pod.http.post("/v1/sign", json={"text": "a"})
            a_problem(answer, 503, "broker-unavailable")
            assert "retry-after" in answer.headers
            # Liveness never asks the broker.
            assert (await pod.http.get("/healthz")).status_code == 200
            broker.set_up()
            await until(lambda: not pod.gateway.standing.readiness(), "the pod is ready again", 15)
            signed(await pod.http.post("/v1/sign", json={"text": "b"}), b"b")


@pytest.mark.parametrize(
    ("error", "status", "code"), [(TOO_LARGE, 503, "broker-unavailable"), (INVALID_RECORD, 504, "deadline")]
)
async def test_a_record_that_is_known_to_be_unwritten_is_refused_at_once_and_one_in_doubt_at_its_deadline(
    own_world: World, error: int, status: int, code: str
) -> None:
    with EmbeddedBroker() as broker:
        async with world(broker, own_world.folder / "refused") as place, running_pod(place.settings()) as pod:
            signed(await pod.http.post("/v1/sign", json={"text": "a"}), b"a")
            broker.push_errors(PRODUCE, [error] * 1_000)  # beats are refused as well
            began = time.monotonic()
            answer = await pod.http.post("/v1/sign", json={"text": "a"}, headers={"Request-Timeout-Ms": "3000"})
            took_s = time.monotonic() - began
            broker.clear_errors(PRODUCE)
            a_problem(answer, status, code)
            assert (took_s < 2.0) == (status == 503), took_s
            await until(lambda: not pod.gateway.standing.readiness(), "the pod is ready", 15)
            signed(await pod.http.post("/v1/sign", json={"text": "b"}), b"b")


async def test_who_has_less_time_than_those_before_him_will_take_is_refused_at_once(own_world: World) -> None:
    async with running_pod(own_world.settings()) as pod:
        kept: list[Asked] = []
        own_world.committee.all_do(kept.append)
        patient = {"Request-Timeout-Ms": "30000"}
        items = {"items": [{"text": str(n)} for n in range(2 * PLENTY)]}
        crowd = asyncio.create_task(pod.http.post("/v1/sign/batch", json=items, headers=patient))
        hurried = {"Request-Timeout-Ms": "1000"}
        await until(lambda: pod.gateway._correlation.wait_s() > 5, "it shows that nothing is answered")
        refused = await pod.http.post("/v1/sign", json={"text": "a"}, headers=hurried)
        a_problem(refused, 503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        own_world.committee.all_do(lambda asked: asked.seat.sign(asked))
        for asked in kept:
            for item in asked.request.items:
                asked.seat.answer(asked, own_world.committee.outcome(item))
        results = (await crowd).json()["results"]
        assert len(results) == 2 * PLENTY
        assert not any("error" in result for result in results)
        signed(await pod.http.post("/v1/sign", json={"text": "a"}, headers=hurried), b"a")


async def test_a_pod_that_ends_answers_what_it_took_and_takes_no_more(own_world: World) -> None:
    async with running_pod(own_world.settings()) as pod:
        kept: list[Asked] = []
        own_world.committee.all_do(kept.append)
        waiting = asyncio.create_task(pod.http.post("/v1/sign", json={"text": "a"}))
        hopeless = asyncio.create_task(pod.http.post("/v1/sign", json={"text": "b"}))
        await until(lambda: len(kept) == 2 or sum(len(asked.request.items) for asked in kept) == 2, "both are sent")
        pod.gateway.drain(1.0)
        a_problem(await pod.http.post("/v1/sign", json={"text": "c"}), 503, "shutting-down")
        assert (await pod.http.get("/readyz")).status_code == 503
        for asked in kept:
            for item in asked.request.items:
                if item.message == b"a":
                    asked.seat.answer(asked, own_world.committee.outcome(item))
        signed(await waiting, b"a")
        # Answered at the end of the grace, not left hanging until its own deadline. It was taken: a 503 would say that
        # nothing was done.
        assert "may still be signed" in a_problem(await hopeless, 504, "interrupted")["detail"]


async def test_a_pod_that_ends_in_an_outage_takes_nothing_that_nobody_would_end(
    own_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is pending is given up early then. A broker that comes back meanwhile must not let others in behind it."""
    monkeypatch.setattr(core, "OUTAGE_GRACE_S", 0.0)
    async with running_pod(own_world.settings()) as pod:
        own_world.committee.all_do(lambda asked: None)
        with monkeypatch.context() as away:
            away.setattr(pod.gateway._kafka, "up", lambda: False)
            pod.gateway.drain(5.0, 5.0)
        a_problem(await pod.http.post("/v1/sign", json={"text": "a"}), 503, "shutting-down")


async def test_a_caller_who_goes_away_leaves_nothing_behind(pod: Pod, shared_world: World) -> None:
    kept: list[Asked] = []
    shared_world.committee.all_do(kept.append)
    with pytest.raises(httpx.ReadTimeout):
        await pod.http.post("/v1/sign", json={"text": "a"}, timeout=0.3)
    await until(lambda: len(kept) == 1, "it was sent")
    kept[0].seat.sign(kept[0])
    await until(lambda: pod.gateway.pending() == 0, "nothing is pending")


async def test_of_two_pods_with_one_index_both_say_so_and_the_younger_is_not_ready(
    own_world: World, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    quick = {"beat_interval_ms": 300}
    async with running_pod(own_world.settings(0, **quick)) as older:
        began = time.time_ns() // 1_000_000  # the order of their starts is by the millisecond
        await until(lambda: time.time_ns() // 1_000_000 > began, "a later millisecond")
        async with running_pod(own_world.settings(0, **quick), wait=False) as younger:
            await until(lambda: "index" in younger.gateway.standing.readiness(), "the younger yields")
            answer = await younger.http.get("/readyz")
            assert answer.status_code == 503
            assert "index" in answer.json()["checks"]
            assert (await older.http.get("/readyz")).status_code == 200

            def said() -> list[dict[str, Any]]:
                return [line for line in log_lines() if line["event"].startswith("another live pod")]

            await until(lambda: len(said()) == 2, "both say so")
            assert {line["instance_id"] for line in said()} == {older.gateway.instance_id, younger.gateway.instance_id}
            # They read one topic, and neither takes the other's answers.
            signed(await older.http.post("/v1/sign", json={"text": "a"}), b"a")
            await until(lambda: younger.count("answers_total", kind="foreign") >= 1, "counted as foreign")
        async with running_pod(own_world.settings(1, **quick)) as other:
            assert (await other.http.get("/readyz")).status_code == 200


def test_the_younger_is_ready_once_the_older_is_silent_for_six_seconds() -> None:
    clock = Clock()
    ours = Pods(PodIndex(0), BootId("b"), Instant(2000), clock)
    ours.heard(PodIndex(0), BootId("a"), a_beat(1, (), started_ms=1000))
    ours.heard(PodIndex(1), BootId("c"), a_beat(1, (), started_ms=500))
    assert ours.must_yield()
    clock.now += 5.9
    assert not ours.heard(PodIndex(0), BootId("a"), a_beat(1, (), started_ms=1000)), "a replayed beat is no beat"
    assert ours.must_yield()
    clock.now += 0.2
    assert not ours.must_yield()
    ours.heard(PodIndex(0), BootId("d"), a_beat(1, (), started_ms=3000))
    assert ours.rivals()
    assert not ours.must_yield()
