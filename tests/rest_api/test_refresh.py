"""Asking for a refresh over HTTP: 202 with a place to look, or why not; and what beats show of a ceremony."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from common.ids import Epoch, Index, Instant, Offset
from common.wire import codec
from common.wire.envelope import sign_roster
from common.wire.messages import Accepted, Mode, Outcome, RefusalCode, Roster, Seat
from rest_api import models
from tests.brokers import until
from tests.rest_api.test_sign import a_problem
from tests.rest_api.world import CALM, Asked, Pod, World, keypair, running_pod

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
PATH = "/v1/keys/default/refresh"


async def until_shown(pod: Pod, what: str, shown: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The default key as ``GET /v1/keys/default`` has it, once that is so."""
    for _ in range(200):
        key: dict[str, Any] = (await pod.http.get("/v1/keys/default")).json()
        if shown(key):
            return key
        await asyncio.sleep(0.05)
    pytest.fail(f"not shown in time: {what}")


async def test_a_refresh_is_accepted_by_one_seat_and_says_where_to_look(pod: Pod, shared_world: World) -> None:
    answer = await pod.http.post(PATH)
    assert answer.status_code == 202, answer.text
    body = answer.json()
    models.RefreshResponse.model_validate(body)
    assert (body["key_id"], body["epoch"]) == ("default", 1)
    assert answer.headers["location"] == body["location"] == "/v1/keys/default"
    assert (await pod.http.get(body["location"])).json()["epoch"] == 1
    [(_, item)] = shared_world.committee.asked_items()
    assert (item.mode, item.message, item.principal) == (Mode.REFRESH, b"", "anonymous")
    assert item.request_id == body["request_id"]


async def test_an_unknown_key_is_404_and_one_that_is_still_made_503(pod: Pod, shared_world: World) -> None:
    a_problem(await pod.http.post("/v1/keys/none/refresh"), 404, "unknown-key")
    a_problem(await pod.http.post("/v1/keys/late/refresh"), 503, "no-key-yet")
    assert shared_world.committee.asked_items() == []


async def test_while_one_runs_it_is_409_and_named(pod: Pod, shared_world: World) -> None:
    for seat in shared_world.committee.seats.values():
        seat.key = replace(CALM, phase="deal", attempt=2, awaited=(Index(3),), fold_offset=Offset(20))
    await until_shown(pod, "the ceremony", lambda key: key["ceremony"] is not None)
    shared_world.committee.all_do(lambda asked: asked.seat.refuse(asked, RefusalCode.CEREMONY_RUNNING, retryable=False))
    problem = a_problem(await pod.http.post(PATH), 409, "ceremony-running")
    assert "default (reshare)" in problem["detail"]
    assert "phase deal, attempt 2, waiting for replicas 3" in problem["detail"]


async def test_one_that_was_a_moment_ago_is_409_and_not_told_in_the_words_of_a_seat(
    pod: Pod, shared_world: World
) -> None:
    shared_world.committee.all_do(lambda asked: asked.seat.refuse(asked, RefusalCode.REFRESH_TOO_SOON, retryable=False))
    problem = a_problem(await pod.http.post(PATH), 409, "refresh-too-soon")
    assert "as the test wants" not in problem["detail"]


async def test_one_seat_that_refuses_does_not_keep_a_key_from_being_refreshed(pod: Pod, shared_world: World) -> None:
    for code in (RefusalCode.CEREMONY_RUNNING, RefusalCode.REFRESH_UNAVAILABLE, RefusalCode.QUORUM_LOST):
        for liar in shared_world.committee.seats.values():
            shared_world.committee.reset()
            liar.behaviour = lambda asked, code=code: asked.seat.refuse(asked, code, retryable=False)
            assert (await pod.http.post(PATH)).status_code == 202, (code, liar.index)


async def test_replicas_that_hold_no_ceremonies_are_503(pod: Pod, shared_world: World) -> None:
    code = RefusalCode.REFRESH_UNAVAILABLE
    shared_world.committee.all_do(lambda asked: asked.seat.refuse(asked, code, retryable=False))
    problem = a_problem(await pod.http.post(PATH), 503, "refresh-unavailable")
    assert problem["retryable"] is False


async def test_replicas_that_do_not_agree_are_503_and_worth_another_try(pod: Pod, shared_world: World) -> None:
    codes = [RefusalCode.CEREMONY_RUNNING, RefusalCode.REFRESH_TOO_SOON, RefusalCode.QUORUM_LOST]
    for seat, code in zip(shared_world.committee.seats.values(), codes, strict=True):
        seat.behaviour = lambda asked, code=code: asked.seat.refuse(asked, code, retryable=False)
    problem = a_problem(await pod.http.post(PATH), 503, "quorum-lost")
    assert problem["retryable"] is True


async def test_nobody_answers_is_504_and_says_where_to_look(pod: Pod, shared_world: World) -> None:
    shared_world.committee.all_do(lambda asked: None)
    answer = await pod.http.post(PATH, headers={"Request-Timeout-Ms": "300"})
    assert "/v1/keys/default" in a_problem(answer, 504, "deadline")["detail"]
    refused = await pod.http.post(PATH, headers={"Request-Timeout-Ms": "0"})
    assert a_problem(refused, 422, "invalid-request")["errors"][0]["field"] == "Request-Timeout-Ms"


async def test_a_signature_is_no_answer_to_it(pod: Pod, shared_world: World) -> None:
    def wrong(asked: Asked) -> None:
        [item] = asked.request.items
        signed = shared_world.committee.outcome(replace(item, mode=Mode.SIGN))
        other = Outcome(item.request_id, Accepted(replace(item, key_id="late").key_id, Epoch(1)))  # type: ignore[arg-type]
        asked.seat.answer(asked, signed)
        asked.seat.answer(asked, other)

    shared_world.committee.all_do(wrong)
    a_problem(await pod.http.post(PATH, headers={"Request-Timeout-Ms": "300"}), 504, "deadline")


async def test_a_page_of_another_site_cannot_ask_for_it(pod: Pod, shared_world: World) -> None:
    # A form has no body that would need asking first: without the check any page could burn this system's nonces.
    for header in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://elsewhere.example"}):
        a_problem(await pod.http.post(PATH, headers=header), 403, "cross-site")
    assert shared_world.committee.asked_items() == []


async def test_without_enough_holders_it_is_503_says_who_is_missing_and_asks_nobody(own_world: World) -> None:
    seats = own_world.committee.seats
    async with running_pod(own_world.settings()) as pod:
        await until(lambda: len(pod.gateway.routing.live()) == 3, "all seats are heard")
        seats[Index(2)].beating = False
        seats[Index(3)].key = replace(CALM, holds_share=False)
        await until(lambda: not pod.gateway.routing.fresh(Index(2)), "seat 2 is missed")
        answer = await pod.http.post(PATH)
        problem = a_problem(answer, 503, "quorum-lost")
        assert "takes 2 replicas with a share, and 1 are up" in problem["detail"]
        assert "replica 2 (silent for" in problem["detail"]
        assert "replica 3 (holds no share)" in problem["detail"]
        assert answer.headers["retry-after"]
        assert own_world.committee.asked_items() == []


async def test_what_t_seats_say_of_a_ceremony_is_shown_and_one_liar_shows_nothing(
    pod: Pod, shared_world: World
) -> None:
    seats = shared_world.committee.seats
    lie = replace(CALM, phase="commit", attempt=9, fold_offset=Offset(10**6), next_due_ms=Instant(1))
    seats[Index(1)].key = replace(lie, last_refresh_ms=Instant(10**15))
    for seat in (Index(2), Index(3)):
        seats[seat].key = replace(CALM, next_due_ms=Instant(1_700_000_020_000 + seat))
    key = await until_shown(pod, "the next refresh", lambda key: key["next_refresh"] is not None)
    assert key["ceremony"] is None
    key = await until_shown(pod, "what both honest seats say", lambda key: key["next_refresh"] > "2023")
    assert key["next_refresh"] == "2023-11-14T22:13:40.002Z"
    assert key["last_refresh"] == "2023-11-14T22:13:20.000Z"
    for n, seat in enumerate((Index(2), Index(3))):
        seats[seat].key = replace(CALM, phase="deal", attempt=1, awaited=(Index(1),), fold_offset=Offset(20 - n))
    key = await until_shown(pod, "the ceremony", lambda key: key["ceremony"] is not None)
    assert key["ceremony"] == {"kind": "reshare", "phase": "deal", "attempt": 1, "awaited": [1]}
    [cluster, _] = (await pod.http.get("/v1/cluster")).json()["keys"]
    assert {name: cluster[name] for name in ("epoch", "last_refresh", "next_refresh", "ceremony")} == {
        name: key[name] for name in ("epoch", "last_refresh", "next_refresh", "ceremony")
    }


async def test_a_caller_who_asks_again_and_again_is_held_to_his_rate(own_world: World) -> None:
    async with running_pod(own_world.settings(address_rate="2/minute")) as pod:
        await until(lambda: len(pod.gateway.routing.live()) == 3, "all seats are heard")
        answers: list[httpx.Response] = [await pod.http.post(PATH) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [202, 202, 429, 429]
        assert len(own_world.committee.asked_items()) == 2


async def test_seats_that_a_newer_roster_adds_are_not_missed_before_they_hold_a_share(own_world: World) -> None:
    trust = own_world.trust
    known = codec.decode(trust.roster, Roster)
    seats = (*known.seats, *(Seat(Index(i), keypair()[1]) for i in (4, 5)))
    wider = replace(known, version=2, seats=seats, signature=bytes(64))
    (own_world.folder / "roster.avro").write_bytes(sign_roster(wider, trust.operator))
    async with running_pod(own_world.settings()) as pod:
        await until(lambda: len(pod.gateway.routing.live()) == 3, "all seats of before are heard")
        # q of 2-of-5 is 4, and three hold a share: those are enough for the ceremony that gives the others theirs.
        assert (await pod.http.post(PATH)).status_code == 202
