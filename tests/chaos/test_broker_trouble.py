"""A broker stands still, and then its disk is full, under a whole system that is asked to sign: everything is checked.

``make chaos ARGS=--broker-trouble`` does more of it, for longer: it is restarted, crashes and stands still for 30 s.
"""

import asyncio
import logging
from pathlib import Path

import pytest

from tests.brokers import require_tools
from tests.chaos import history, report
from tests.chaos.faults import may_mount
from tests.chaos.plan import BROKER, Step, broker_trouble
from tests.chaos.run import Options, Run, judge

STEPS = (Step("pause", BROKER, 3.0), Step("narrow", BROKER, 3.0), Step("full" if may_mount() else "kill", BROKER))
LATE_MS = 30_000

_logger = logging.getLogger(__name__)


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_p6_through_a_broker_that_stands_still_takes_little_or_has_a_full_disk_each_question_has_one_outcome(
    tmp_path: Path,
) -> None:
    require_tools()
    options = Options(
        seed=11,
        requests=80,
        steps=STEPS,
        refreshes=1,
        rate=15.0,
        callers=(2, 1, 1),
        timeout_ms=10_000,
        most_s=300.0,
    )
    lines: list[str] = []
    asyncio.run(Run(options, tmp_path, lines.append).all(None))
    outcome = judge(tmp_path, LATE_MS)
    said = "\n".join([*lines, *report.lines(outcome)])
    # How long it took until everybody was ready again is told (--log-cli-level=INFO), and no test.
    _logger.info("%s", said)
    # As in the other short run: a machine that stands still for seconds may make somebody say 503 at another time.
    assert {finding.rule for finding in outcome.findings} <= {"failed"}, said
    assert outcome.broken is None, said
    answers = history.only(outcome.rows, history.Answer)
    assert {answer.status for answer in answers} <= {200, 503, 504}, said
    figures = report.figures(outcome.rows)
    assert figures["signed"] >= options.requests / 4, said
    assert figures["faults"] == len(STEPS), said
    assert all(fault.over_ms for fault in history.only(outcome.rows, history.Fault)), said


def test_the_trouble_of_a_broker_is_restart_crash_short_and_long_pause_a_full_disk_and_a_small_limit() -> None:
    assert [str(step) for step in broker_trouble()] == [
        *(
            "term broker",
            "kill broker",
            "pause broker for 3.0 s",
            "pause broker for 30.0 s",
            "full broker",
            "narrow broker for 4.0 s",
        ),
    ]
