"""What ends a request: the rules one by one, then all of them under events in any order."""

import uuid
from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import Bug
from common.ids import BootId, Epoch, Index, Instant, KeyId, RecordId, RequestId
from common.wire.messages import (
    Accepted,
    Mode,
    MsgSigned,
    Outcome,
    RefusalCode,
    Refused,
    Signed,
    SignItem,
)
from rest_api.correlation import Completed, Correlation, End, Step

US = BootId("us")
KEY = KeyId("default")
ONE, TWO, THREE = Index(1), Index(2), Index(3)
GOOD = Signed(b"good" * 16, KEY, Epoch(1), (ONE, TWO))
BAD = Signed(b"evil" * 16, KEY, Epoch(1), (ONE, TWO))
BUSY = Refused(RefusalCode.OVERLOADED, "", retryable=True)
NEVER = Refused(RefusalCode.UNKNOWN_KEY, "", retryable=False)


def item(n: int = 0, mode: Mode = Mode.SIGN) -> SignItem:
    request_id = RequestId(str(uuid.UUID(int=n)))
    return SignItem(request_id, KEY, mode, b"", "anonymous", Instant(0), Instant(5000))


def verify(asked: SignItem, signed: Signed) -> bool:
    return signed.signature == GOOD.signature and signed.key_id == asked.key_id


def boot(seat: int) -> BootId:
    return BootId(f"boot-{seat}")


def record(n: int) -> RecordId:
    return RecordId(f"record-{n}")


@dataclass
class FakeView:
    """A routing table that says what the test wants. Seat i reads partition i."""

    up: set[Index] = field(default_factory=lambda: {ONE, TWO, THREE})
    boots: dict[Index, BootId] = field(default_factory=lambda: {i: boot(i) for i in (ONE, TWO, THREE)})
    going: set[Index] = field(default_factory=set)
    owners: dict[int, Index] = field(default_factory=lambda: {1: ONE, 2: TWO, 3: THREE})
    unread: set[int] = field(default_factory=set)
    t: int = 2

    def live(self) -> AbstractSet[Index]:
        return self.up - self.going

    def suspected(self, seat: Index, boot: BootId) -> bool:
        return seat not in self.up or self.boots[seat] != boot

    def draining(self, seat: Index) -> bool:
        return seat in self.going

    def owner(self, partition: int) -> tuple[Index, BootId] | None:
        seat = self.owners.get(partition)
        return (seat, self.boots[seat]) if seat is not None and seat in self.up else None

    def dark(self, partition: int) -> bool:
        return partition in self.unread

    def blocking(self, key_id: KeyId) -> int:
        return 2

    def threshold(self, key_id: KeyId) -> int:
        return self.t


class Table:
    """A table with one request at a seat."""

    def __init__(self, seat: Index | None = ONE, mode: Mode = Mode.SIGN) -> None:
        self.view = FakeView()
        self.correlation = Correlation(US, verify)
        self.item = item(mode=mode)
        self.records = 0
        self.correlation.open(self.item, 5.0)
        self.send(seat)

    def send(self, seat: Index | None) -> bool:
        self.records += 1
        at = boot(seat) if seat is not None else None
        return self.correlation.sent(self.item.request_id, record(self.records), seat or 1, seat, at)

    def answer(
        self, result: Signed | Refused | Accepted, seat: Index | None, to: int = 1, instance: BootId = US
    ) -> Step:
        outcome = Outcome(self.item.request_id, result)
        return self.correlation.answered(MsgSigned(record(to), instance, (outcome,)), seat, self.view)


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


def test_a_slow_seat_that_is_alive_is_never_asked_twice() -> None:
    table = Table()
    for _ in range(100):
        step = table.correlation.scan(table.view)
        assert (step.resend, step.completed) == ([], [])


def test_what_is_pending_at_a_silent_seat_is_moved_without_asking_the_budget() -> None:
    table = Table()
    many = [item(n) for n in range(1, 500)]
    for each in many:
        table.correlation.open(each, 5.0)
        table.correlation.sent(each.request_id, record(1), 1, ONE, boot(ONE))
    table.view.up = {TWO, THREE}
    step = table.correlation.scan(table.view)
    assert len(step.resend) == 500
    assert {again.reason for again in step.resend} == {"suspected"}
    assert table.correlation.scan(table.view).resend == []


def sent_to_one(table: Table, numbers: range, at: float) -> list[SignItem]:
    """New requests of 5 s, each at seat 1."""
    table.correlation.expire(at)
    many = [item(n) for n in numbers]
    for each in many:
        table.correlation.open(each, at + 5.0)
        table.correlation.sent(each.request_id, record(1), 1, ONE, boot(ONE))
    return many


def test_what_a_seat_that_lives_and_answers_nothing_has_is_moved_without_asking_the_budget() -> None:
    table = Table(TWO)
    table.answer(GOOD, TWO)
    sent_to_one(table, range(1, 501), at=100.0)
    table.correlation.expire(102.25)
    assert table.correlation.scan(table.view).resend == []
    table.correlation.expire(102.5)
    step = table.correlation.scan(table.view)
    assert [again.reason for again in step.resend] == ["mute"] * 500
    assert {again.exclude for again in step.resend} == {frozenset({ONE})}
    assert table.correlation.avoid == {ONE}
    assert table.correlation.scan(table.view).resend == []


def test_a_mute_seat_is_asked_last_until_it_answers_or_for_a_while() -> None:
    for answers in (True, False):
        table = Table(TWO)
        table.answer(GOOD, TWO)
        [asked] = sent_to_one(table, range(1, 2), at=100.0)
        table.correlation.expire(102.5)
        [again] = table.correlation.scan(table.view).resend
        table.correlation.sent(again.item.request_id, record(2), 2, TWO, boot(TWO))
        if answers:
            outcome = Outcome(asked.request_id, GOOD)
            table.correlation.answered(MsgSigned(record(1), US, (outcome,)), ONE, table.view)
        table.correlation.expire(132.25)
        table.correlation.scan(table.view)
        assert table.correlation.avoid == (set() if answers else {ONE})
        table.correlation.expire(132.5)
        table.correlation.scan(table.view)
        assert table.correlation.avoid == set()


def test_a_busy_seat_that_answers_something_keeps_what_it_has() -> None:
    table = Table(TWO)
    table.answer(GOOD, TWO)
    table.view.up = {ONE}
    many = sent_to_one(table, range(1, 21), at=100.0)
    for n, each in enumerate(many):
        table.correlation.expire(100.0 + n / 4)
        outcome = Outcome(each.request_id, GOOD)
        table.correlation.answered(MsgSigned(record(1), US, (outcome,)), ONE, table.view)
        table.view.up = {ONE, TWO, THREE}
        assert {again.reason for again in table.correlation.scan(table.view).resend} <= {"overdue"}
        assert table.correlation.avoid == set()


def test_silence_while_a_seat_could_not_be_heard_is_not_held_against_it() -> None:
    table = Table(TWO)
    table.answer(GOOD, TWO)
    sent_to_one(table, range(1, 2), at=100.0)
    table.view.up = set()
    for quarter in range(12):
        table.correlation.expire(100.0 + quarter / 4)
        assert table.correlation.scan(table.view).resend == []
    table.view.up = {ONE, TWO, THREE}
    table.correlation.expire(103.0)
    assert {again.reason for again in table.correlation.scan(table.view).resend} == {"overdue"}
    assert table.correlation.avoid == set()


def test_at_half_of_its_time_another_seat_is_asked_beside_the_first_as_far_as_the_budget_goes() -> None:
    table = Table(TWO)
    table.answer(GOOD, TWO)
    many = sent_to_one(table, range(1, 501), at=100.0)
    table.correlation.expire(102.0)
    # It answers, so it is not mute; and swallows the rest.
    outcome = Outcome(many[0].request_id, GOOD)
    table.correlation.answered(MsgSigned(record(1), US, (outcome,)), ONE, table.view)
    assert table.correlation.scan(table.view).resend == []
    table.correlation.expire(102.5)
    resend = table.correlation.scan(table.view).resend
    assert {(again.reason, again.exclude) for again in resend} == {("overdue", frozenset({ONE}))}
    assert len(resend) == 85  # 10 to begin with, a tenth of 501, ten for each of two and a half seconds
    # The first may still answer, and a refusal of the second ends nothing.
    table.correlation.sent(resend[0].item.request_id, record(2), 2, TWO, boot(TWO))
    refusal = Outcome(resend[0].item.request_id, BUSY)
    step = table.correlation.answered(MsgSigned(record(2), US, (refusal,)), TWO, table.view)
    assert (step.completed, step.resend) == ([], [])
    signed = Outcome(resend[0].item.request_id, GOOD)
    assert table.correlation.answered(MsgSigned(record(1), US, (signed,)), ONE, table.view).completed


def test_what_is_pending_at_a_seat_that_started_again_is_moved() -> None:
    table = Table()
    table.view.boots[ONE] = BootId("again")
    [again] = table.correlation.scan(table.view).resend
    assert again.reason == "rebooted"
    assert again.exclude == frozenset()


def test_what_is_in_a_partition_that_a_live_seat_gave_up_and_nobody_took_is_moved() -> None:
    table = Table()
    del table.view.owners[1]
    assert table.correlation.scan(table.view).resend == []
    table.view.unread = {1}
    [again] = table.correlation.scan(table.view).resend
    # The seat that gave it up reads others, and may be asked through one of them.
    assert (again.reason, again.exclude) == ("unread", frozenset())
    assert table.correlation.in_flight[ONE] == 0
    assert table.correlation.scan(table.view).resend == []
    table.send(TWO)
    assert table.correlation.scan(table.view).resend == []
    assert table.answer(GOOD, ONE).completed


def test_what_is_in_a_dark_partition_waits_there_while_nobody_else_could_be_asked() -> None:
    table = Table(seat=None)
    table.view.owners = {}
    table.view.unread = {1}
    table.view.up = set()
    assert table.correlation.scan(table.view).resend == []
    table.view.up = {TWO}
    assert [again.reason for again in table.correlation.scan(table.view).resend] == ["unread"]


def test_with_nobody_else_to_ask_a_request_stays_where_it_is() -> None:
    table = Table()
    table.view.up = set()
    assert table.correlation.scan(table.view).resend == []
    table.view.up = {TWO}
    assert len(table.correlation.scan(table.view).resend) == 1


def test_resends_after_refusals_are_at_most_a_tenth_of_the_sends() -> None:
    table = Table()
    resent = 0
    for n in range(1, 1001):
        each = item(n)
        table.correlation.open(each, 5.0)
        table.correlation.sent(each.request_id, record(n), 1, ONE, boot(ONE))
        outcome = Outcome(each.request_id, BUSY)
        resent += len(table.correlation.answered(MsgSigned(record(n), US, (outcome,)), ONE, table.view).resend)
    # 10 to begin with, and a tenth of the thousand.
    assert 100 <= resent <= 111


def test_a_seat_that_refuses_all_it_gets_costs_a_slow_stream_of_requests_no_request() -> None:
    table = Table()
    for second in range(1, 201):
        each = item(second)
        table.correlation.open(each, second + 5.0)
        table.correlation.sent(each.request_id, record(second), 1, ONE, boot(ONE))
        outcome = Outcome(each.request_id, BUSY)
        step = table.correlation.answered(MsgSigned(record(second), US, (outcome,)), ONE, table.view)
        assert [resend.item for resend in step.resend] == [each]
        table.correlation.sent(each.request_id, record(1000 + second), 2, TWO, boot(TWO))
        signed = Outcome(each.request_id, GOOD)
        table.correlation.answered(MsgSigned(record(1000 + second), US, (signed,)), TWO, table.view)
        table.correlation.expire(float(second))


def test_time_earns_no_more_resends_than_the_most_there_can_be() -> None:
    table = Table()
    table.correlation.expire(1.0)
    table.correlation.expire(10_000.0)
    resent = 0
    for n in range(1, 1001):
        each = item(n)
        table.correlation.open(each, 20_000.0)
        table.correlation.sent(each.request_id, record(n), 1, ONE, boot(ONE))
        outcome = Outcome(each.request_id, BUSY)
        resent += len(table.correlation.answered(MsgSigned(record(n), US, (outcome,)), ONE, table.view).resend)
    assert 190 <= resent <= 201


def test_what_a_seat_that_goes_away_refuses_is_moved_without_asking_the_budget() -> None:
    table = Table()
    going = Refused(RefusalCode.SHUTTING_DOWN, "", retryable=True)
    table.view.going = {ONE}
    resent = 0
    for n in range(1, 301):
        each = item(n)
        table.correlation.open(each, 5.0)
        table.correlation.sent(each.request_id, record(n), 1, ONE, boot(ONE))
        outcome = Outcome(each.request_id, going)
        resent += len(table.correlation.answered(MsgSigned(record(n), US, (outcome,)), ONE, table.view).resend)
    assert resent == 300


def test_a_request_in_a_partition_that_nobody_reads_is_followed_to_whoever_takes_it() -> None:
    table = Table(seat=None)
    table.view.owners = {1: TWO}
    assert table.correlation.scan(table.view).resend == []
    assert table.correlation.in_flight[TWO] == 1
    table.view.up = {THREE}
    assert len(table.correlation.scan(table.view).resend) == 1


def test_a_request_whose_partition_moved_is_followed_to_its_new_owner() -> None:
    table = Table()
    table.view.owners = {1: TWO}
    table.correlation.scan(table.view)
    assert (table.correlation.in_flight[ONE], table.correlation.in_flight[TWO]) == (0, 1)
    table.view.up = {ONE, THREE}
    [again] = table.correlation.scan(table.view).resend
    assert TWO not in again.exclude


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
