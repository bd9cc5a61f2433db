"""What ends a request: the rules one by one, then all of them under events in any order."""

from collections import Counter
from collections.abc import Set as AbstractSet

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import Bug
from common.ids import BootId, Epoch, Index, RequestId
from common.wire.messages import Accepted, Mode, MsgSigned, Outcome, RefusalCode, Refused, Signed, SignItem
from rest_api.correlation import Completed, Correlation, End, Step
from tests.rest_api.requests_table import (
    BAD,
    BUSY,
    GOOD,
    KEY,
    NEVER,
    ONE,
    THREE,
    TWO,
    US,
    FakeView,
    Table,
    item,
    record,
    verify,
)


def test_a_signature_that_verifies_ends_the_request_whoever_sent_it() -> None:
    table = Table()
    step = table.answer(GOOD, None)
    assert step.completed == [Completed(table.item, GOOD)]
    assert len(table.correlation) == 0


def test_one_that_does_not_verify_is_counted_and_the_request_goes_on() -> None:
    table = Table()
    step = table.answer(BAD, ONE)
    assert (step.completed, step.counts) == ([], Counter(invalid=1))
    assert table.answer(GOOD, ONE).completed


def test_an_answer_after_the_answer_is_a_duplicate_and_after_the_deadline_late() -> None:
    table = Table()
    table.answer(GOOD, ONE)
    assert table.answer(GOOD, ONE).counts == Counter(duplicate=1)
    table = Table()
    assert [done.result for done in table.correlation.expire(5.0).completed] == [End.DEADLINE]
    assert table.answer(GOOD, ONE).counts == Counter(late=1)


def test_an_answer_to_nobodys_question_is_unknown_and_for_another_start_of_the_pod_foreign() -> None:
    table = Table()
    stranger = MsgSigned(record(1), US, (Outcome(item(9).request_id, GOOD),))
    assert table.correlation.answered(stranger, ONE, table.view).counts == Counter(unknown=1)
    assert table.answer(GOOD, ONE, instance=BootId("them")).counts == Counter(foreign=1)
    assert len(table.correlation) == 1


def test_nothing_expires_before_its_deadline_and_only_once() -> None:
    table = Table()
    assert table.correlation.expire(4.999).completed == []
    assert len(table.correlation.expire(5.0).completed) == 1
    assert table.correlation.expire(6.0).completed == []


def test_a_retryable_refusal_sends_the_request_to_another_seat() -> None:
    table = Table()
    step = table.answer(BUSY, ONE)
    [again] = step.resend
    assert (again.item, again.exclude, again.reason) == (table.item, frozenset({ONE}), "refused")
    assert step.completed == []


def test_a_refusal_from_nobody_we_know_is_foreign() -> None:
    table = Table()
    assert table.answer(NEVER, None).counts == Counter(foreign=1)
    assert table.answer(GOOD, ONE).completed


def test_fewer_than_a_blocking_set_cannot_refuse_for_good_even_if_they_say_never() -> None:
    table = Table()
    step = table.answer(NEVER, ONE)
    assert step.completed == []
    assert step.resend
    table.send(TWO)
    [done] = table.answer(NEVER, TWO, to=2).completed
    assert done.result == NEVER


def test_a_refusal_is_final_only_if_enough_seats_call_it_so() -> None:
    table = Table()
    table.answer(NEVER, ONE)
    table.send(TWO)
    [done] = table.answer(BUSY, TWO, to=2).completed
    assert done.result == BUSY


def test_the_same_seat_counts_once_however_often_it_refuses() -> None:
    table = Table()
    table.answer(NEVER, ONE)
    table.send(TWO)
    assert table.answer(NEVER, ONE).counts == Counter(duplicate=1)
    assert table.answer(NEVER, ONE, to=2).completed == []
    assert len(table.correlation) == 1


def test_a_refusal_never_ends_a_request_while_another_send_is_open() -> None:
    table = Table()
    table.answer(BUSY, ONE)
    table.send(TWO)
    # Three refuses unasked: two seats are unwilling now, but Two is still at it.
    assert table.answer(BUSY, THREE, to=2).completed == []
    assert table.answer(GOOD, TWO, to=2).completed[0].result == GOOD


def test_a_liar_cannot_close_the_send_of_another_seat() -> None:
    table = Table(seat=TWO)
    step = table.answer(NEVER, ONE, to=1)
    assert (step.completed, step.resend) == ([], [])
    assert table.answer(GOOD, TWO).completed


def test_when_every_live_seat_has_refused_nobody_waits_for_the_deadline() -> None:
    table = Table()
    table.view.up = {ONE}
    [done] = table.answer(BUSY, ONE).completed
    assert done.result == BUSY


def test_what_could_not_be_produced_ends_at_once_unless_it_was_sent_before() -> None:
    table = Table()
    [done] = table.correlation.unsent(table.item.request_id, record(1)).completed
    assert done.result is End.UNSENT
    table = Table()
    table.answer(BUSY, ONE)
    table.send(TWO)
    assert table.correlation.unsent(table.item.request_id, record(2)).completed == []
    assert len(table.correlation.scan(table.view).resend) == 1


def test_a_request_that_ended_in_the_queue_is_not_produced_any_more() -> None:
    table = Table()
    table.answer(BUSY, ONE)
    table.answer(GOOD, TWO)
    assert table.send(TWO) is False


def test_a_refresh_is_ended_by_a_seat_that_accepted_it_and_not_by_a_signature() -> None:
    accepted = Accepted(KEY, Epoch(1))
    table = Table(mode=Mode.REFRESH)
    assert table.answer(GOOD, ONE).counts == Counter(invalid=1)
    assert table.answer(accepted, None).counts == Counter(foreign=1)
    assert table.answer(accepted, ONE).completed[0].result == accepted
    assert Table().answer(accepted, ONE).counts == Counter(invalid=1)


def test_a_refresh_is_refused_only_when_t_seats_say_so_and_accepted_when_one_does() -> None:
    # n - t + 1 is 2 here. With t = 3 two seats may say so because each waits for others to join it, or lies.
    running = Refused(RefusalCode.CEREMONY_RUNNING, "", retryable=False)
    for last in (Accepted(KEY, Epoch(1)), running):
        table = Table(mode=Mode.REFRESH)
        table.view.t = 3
        for n, seat in enumerate((ONE, TWO), start=1):
            assert table.answer(running, seat, to=n).completed == []
            assert table.send(Index(seat + 1))
        [done] = table.answer(last, THREE, to=3).completed
        assert done.result == last


def test_everything_pending_is_ended_when_the_pod_goes_away() -> None:
    table = Table()
    table.correlation.open(item(7), 5.0)
    assert [done.result for done in table.correlation.abandon().completed] == [End.ABANDONED, End.ABANDONED]
    assert len(table.correlation) == 0


def test_a_request_id_cannot_be_used_twice_at_once() -> None:
    table = Table()
    with pytest.raises(Bug):
        table.correlation.open(table.item, 5.0)


def test_only_so_many_ended_requests_are_remembered() -> None:
    correlation = Correlation(US, verify, remembered=10)
    view = FakeView()
    for n in range(30):
        correlation.open(item(n), 1.0)
    correlation.expire(1.0)

    def kind(n: int) -> Counter[str]:
        answer = MsgSigned(record(1), US, (Outcome(item(n).request_id, GOOD),))
        return correlation.answered(answer, ONE, view).counts

    assert kind(0) == Counter(unknown=1)
    assert kind(29) == Counter(late=1)


SEATS = st.sampled_from([ONE, TWO, THREE])
EVENTS = st.one_of(
    st.tuples(st.just("open")),
    st.tuples(st.just("good"), st.integers(0, 5), st.none() | SEATS, st.integers(0, 8)),
    st.tuples(st.just("bad"), st.integers(0, 5), st.none() | SEATS, st.integers(0, 8)),
    st.tuples(st.just("busy"), st.integers(0, 5), st.none() | SEATS, st.integers(0, 8)),
    st.tuples(st.just("never"), st.integers(0, 5), st.none() | SEATS, st.integers(0, 8)),
    st.tuples(st.just("foreign"), st.integers(0, 5), SEATS, st.integers(0, 8)),
    st.tuples(st.just("down"), SEATS),
    st.tuples(st.just("up"), SEATS),
    st.tuples(st.just("reboot"), SEATS),
    st.tuples(st.just("move"), st.integers(1, 3), SEATS),
    st.tuples(st.just("drain"), SEATS),
    st.tuples(st.just("unsent"), st.integers(0, 5), st.integers(0, 8)),
    st.tuples(st.just("scan")),
    st.tuples(st.just("wait"), st.floats(0, 2)),
)


@settings(max_examples=300)
@given(st.lists(EVENTS, max_size=60))
def test_whatever_happens_each_request_ends_exactly_once_and_never_with_a_forgery(
    events: list[tuple[object, ...]],
) -> None:
    view = FakeView()
    correlation = Correlation(US, verify)
    opened: list[RequestId] = []
    ended: Counter[RequestId] = Counter()
    unwilling: dict[RequestId, set[Index]] = {}
    now, records = 0.0, 0
    kinds: dict[object, Signed | Refused] = {"good": GOOD, "bad": BAD, "busy": BUSY, "never": NEVER, "foreign": GOOD}

    def route(asked: SignItem, exclude: AbstractSet[Index]) -> None:
        nonlocal records
        seat = min(view.live() - exclude, default=None)
        if seat is None and exclude:
            correlation.put_back(asked.request_id)
            return
        records += 1
        correlation.sent(
            asked.request_id, record(records % 9), seat or 1, seat, view.boots[seat] if seat is not None else None
        )

    def apply(step: Step) -> None:
        for done in step.completed:
            ended[done.item.request_id] += 1
            assert done.result != BAD
            if done.result == NEVER:
                assert len(unwilling[done.item.request_id]) >= 2
        for again in step.resend:
            assert not view.live() <= again.exclude
            route(again.item, again.exclude)

    for event in events:
        match event:
            case ("open",):
                asked = item(len(opened))
                opened.append(asked.request_id)
                unwilling[asked.request_id] = set()
                correlation.open(asked, now + 5)
                route(asked, frozenset())
            case (("good" | "bad" | "busy" | "never" | "foreign") as kind, int(n), seat, int(of)):
                request_id = item(n).request_id
                if kind == "never" and seat is not None and request_id in unwilling:
                    unwilling[request_id].add(seat)  # type: ignore[arg-type]
                instance = BootId("them") if kind == "foreign" else US
                answer = MsgSigned(record(of), instance, (Outcome(request_id, kinds[kind]),))
                apply(correlation.answered(answer, seat, view))  # type: ignore[arg-type]
            case ("down", seat):
                view.up.discard(seat)
            case ("up", seat):
                view.up.add(seat)  # type: ignore[arg-type]
                view.going.discard(seat)
            case ("reboot", seat):
                view.boots[seat] = BootId(view.boots[seat] + "'")  # type: ignore[index]
            case ("move", int(partition), seat):
                view.owners[partition] = seat  # type: ignore[assignment]
            case ("drain", seat):
                view.going.add(seat)  # type: ignore[arg-type]
            case ("unsent", int(n), int(of)):
                apply(correlation.unsent(item(n).request_id, record(of)))
            case ("scan",):
                apply(correlation.scan(view))
            case ("wait", float(seconds)):
                now += seconds
                apply(correlation.expire(now))
        assert len(correlation) == len(opened) - len(ended)
        assert all(count >= 0 for count in correlation.in_flight.values())
    apply(correlation.expire(now + 5))
    assert dict(ended) == dict.fromkeys(opened, 1)
    assert len(correlation) == 0
    assert all(count == 0 for count in correlation.in_flight.values())
