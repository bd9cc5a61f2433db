"""When a request is sent again, and how often: from a seat that is silent, gone, mute, refusing, or merely slow."""

from common.ids import BootId
from common.wire.messages import MsgSigned, Outcome, RefusalCode, Refused, SignItem
from rest_api.correlation import End
from tests.rest_api.requests_table import BUSY, GOOD, NEVER, ONE, THREE, TWO, US, Table, boot, item, record


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


def answered_after(table: Table, numbers: range, at: float, took: float) -> None:
    """Requests of 5 s that seat 2 answers after ``took`` seconds, the last of them at ``at``."""
    table.correlation.expire(at - took)
    many = [item(n) for n in numbers]
    for each in many:
        table.correlation.open(each, at - took + 5.0)
        table.correlation.sent(each.request_id, record(2), 2, TWO, boot(TWO))
    table.correlation.expire(at)
    outcomes = tuple(Outcome(each.request_id, GOOD) for each in many)
    table.correlation.answered(MsgSigned(record(2), US, outcomes), TWO, table.view)


def test_where_everything_takes_long_nobody_is_asked_beside_the_first() -> None:
    for took, reasons in ((2.0, set()), (0.5, {"overdue"})):
        table = Table(TWO)
        table.answer(GOOD, TWO)
        answered_after(table, range(1, 33), at=100.0, took=took)
        [late] = sent_to_one(table, range(40, 41), at=100.0)
        # Its seat answers something now and then, so it is not mute.
        [other] = sent_to_one(table, range(41, 42), at=101.0)
        outcome = Outcome(other.request_id, GOOD)
        table.correlation.answered(MsgSigned(record(1), US, (outcome,)), ONE, table.view)
        table.correlation.expire(102.75)
        resend = table.correlation.scan(table.view).resend
        assert {again.reason for again in resend} == reasons
        assert {again.item.request_id for again in resend} <= {late.request_id}


def test_that_all_was_slow_is_forgotten_soon() -> None:
    table = Table(TWO)
    table.answer(GOOD, TWO)
    answered_after(table, range(1, 33), at=100.0, took=2.0)
    sent_to_one(table, range(40, 41), at=110.25)
    [other] = sent_to_one(table, range(41, 42), at=111.0)
    table.correlation.answered(MsgSigned(record(1), US, (Outcome(other.request_id, GOOD),)), ONE, table.view)
    table.correlation.expire(112.75)
    assert [again.reason for again in table.correlation.scan(table.view).resend] == ["overdue"]


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


def refused_by_one(table: Table, count: int, refusal: Refused, expires_at: float = 5.0) -> int:
    """So many new requests, each refused by seat 1. Returns how many are to be sent again."""
    resent = 0
    for n in range(1, count + 1):
        each = item(n)
        table.correlation.open(each, expires_at)
        table.correlation.sent(each.request_id, record(n), 1, ONE, boot(ONE))
        outcome = Outcome(each.request_id, refusal)
        resent += len(table.correlation.answered(MsgSigned(record(n), US, (outcome,)), ONE, table.view).resend)
    return resent


def test_resends_after_refusals_are_at_most_a_tenth_of_the_sends() -> None:
    table = Table()
    resent = refused_by_one(table, 1000, BUSY)
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
    resent = refused_by_one(table, 1000, BUSY, expires_at=20_000.0)
    assert 190 <= resent <= 201


def test_what_a_seat_that_goes_away_refuses_is_moved_without_asking_the_budget() -> None:
    table = Table()
    going = Refused(RefusalCode.SHUTTING_DOWN, "", retryable=True)
    table.view.going = {ONE}
    resent = refused_by_one(table, 300, going)
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


def test_a_refusal_with_no_time_left_to_ask_another_is_the_outcome_at_once_and_not_a_never() -> None:
    for refusal in (BUSY, NEVER):
        table = Table()
        table.correlation.expire(4.9)
        step = table.answer(refusal, ONE)
        assert step.resend == []
        [ended] = step.completed
        assert isinstance(ended.result, Refused)
        assert (ended.result.code, ended.result.retryable) == (refusal.code, True)


def test_at_the_deadline_what_everybody_who_was_asked_refused_is_said_to_be_refused() -> None:
    table = Table()
    table.view.up = {ONE, TWO}
    table.correlation.expire(1.0)
    [again] = table.answer(BUSY, ONE).resend
    table.correlation.put_back(again.item.request_id)
    [ended] = table.correlation.expire(5.0).completed
    assert ended.result == BUSY


def test_at_the_deadline_the_outcome_is_unknown_if_somebody_who_was_asked_has_not_said() -> None:
    table = Table()
    table.correlation.expire(1.0)
    table.view.up = {TWO, THREE}
    [again] = table.correlation.scan(table.view).resend  # the first is silent, and may have signed
    assert again.reason == "suspected"
    table.send(TWO)
    [again] = table.answer(BUSY, TWO, to=2).resend
    table.correlation.put_back(again.item.request_id)
    [ended] = table.correlation.expire(5.0).completed
    assert ended.result is End.DEADLINE
