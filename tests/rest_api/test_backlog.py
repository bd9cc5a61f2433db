"""Who is refused at once because there is more before him than he has time for."""

from collections import deque

import pytest

from common.wire.messages import MsgSigned, Outcome, Refused
from rest_api.backlog import KNOWN_AFTER_S, PLENTY, Backlog
from tests.rest_api.requests_table import BUSY, NEVER, ONE, TWO, US, Table, boot, item, record

TICK_S = 0.025


def after(backlog: Backlog, seconds: float, per_s: float, pending: int, start: float = 0.0) -> float:
    """Run ``seconds`` with so many answers a second; return the time at the end."""
    now, owed = start, 0.0
    for _ in range(round(seconds / TICK_S)):
        now += TICK_S
        owed += per_s * TICK_S
        while owed >= 1:
            backlog.answered()
            owed -= 1
        backlog.look(pending, now)
    return now


@pytest.mark.parametrize("per_s", [40.0, 400.0, 4000.0])
def test_the_wait_is_what_is_pending_over_what_is_answered(per_s: float) -> None:
    backlog = Backlog()
    after(backlog, 5.0, per_s, 2000)
    assert backlog.wait_s(2000) == pytest.approx(2000 / per_s, rel=0.1)


def test_a_stream_with_little_to_do_says_nothing_about_what_the_system_can_do() -> None:
    backlog = Backlog()
    now = after(backlog, 10.0, 5.0, 3)
    assert backlog.wait_s(1000) == 0, "a thousand at once after five a second: nobody knows yet"
    now = after(backlog, KNOWN_AFTER_S / 2, 0.0, 1000, now)
    assert backlog.wait_s(1000) == 0, "the first of them are still on their way"
    after(backlog, 2.0, 800.0, 1000, now)
    assert backlog.wait_s(1000) < 3


def test_with_little_to_do_nobody_waits_and_what_was_known_is_forgotten() -> None:
    backlog = Backlog()
    now = after(backlog, 5.0, 10.0, 500)
    assert backlog.wait_s(500) > 30
    assert backlog.wait_s(PLENTY - 1) == 0
    after(backlog, TICK_S, 10.0, PLENTY - 1, now)
    assert backlog.wait_s(500) == 0


def test_where_no_answer_comes_the_wait_is_long_and_becomes_short_when_they_come_again() -> None:
    backlog = Backlog()
    now = after(backlog, 5.0, 400.0, 400)
    assert backlog.wait_s(400) < 1.5
    now = after(backlog, 8.0, 0.0, 400, now)
    assert backlog.wait_s(400) > 20
    after(backlog, 5.0, 400.0, 400, now)
    assert backlog.wait_s(400) < 1.5


@pytest.mark.parametrize(("refusal", "is_work"), [(NEVER, True), (BUSY, False)])
def test_what_is_refused_for_a_reason_of_its_own_was_worked_off(refusal: Refused, *, is_work: bool) -> None:
    table, now, n = Table(), 0.0, 0
    under_way: deque[int] = deque()
    for _ in range(round(3 * KNOWN_AFTER_S / TICK_S)):
        now += TICK_S
        while len(under_way) < 2 * PLENTY:
            n += 1
            under_way.append(n)
            table.correlation.open(item(n), 1000.0)
            table.correlation.sent(item(n).request_id, record(n), 1, ONE, boot(ONE))
        for _ in range(PLENTY // 2):
            ended = under_way.popleft()
            for seat in (ONE, TWO):
                answer = MsgSigned(record(ended), US, (Outcome(item(ended).request_id, refusal),))
                table.correlation.answered(answer, seat, table.view)
        table.correlation.expire(now)
    assert (table.correlation.wait_s() < 1.0) is is_work
