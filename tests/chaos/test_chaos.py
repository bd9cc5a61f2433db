"""The short form: a small run on a real Apache Kafka, with kills and a refresh, and everything checked."""

import asyncio
from pathlib import Path

import pytest

from tests.chaos import history, report
from tests.chaos.plan import BROKER, Scale, Step, draw, each_once
from tests.chaos.run import Options, Run, judge

SHORT = Options(
    seed=7,
    requests=150,
    steps=(Step("kill", "signer 2"), Step("kill", "api 0")),
    refreshes=1,
    rate=20.0,
    callers=(3, 1, 1),
    timeout_ms=15_000,  # what is lost is lost for good, however long one waits: a slow machine must not look like it
    most_s=150.0,
)

LATE_MS = 15_000


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_p6_through_kills_and_a_refresh_each_question_has_one_outcome_and_each_signature_a_question(
    apache: str, tmp_path: Path
) -> None:
    lines: list[str] = []
    asyncio.run(Run(SHORT, tmp_path, lines.append).all(apache))
    outcome = judge(tmp_path, LATE_MS)
    said = "\n".join([*lines, *report.lines(outcome)])
    # A machine that lets replicas stand still for seconds makes them call each other silent, and say 503: no speed is
    # asserted here. That no loss of n-t seats refuses anything is defended where time is simulated.
    assert {finding.rule for finding in outcome.findings} <= {"failed"}, said
    assert outcome.broken is None, said
    figures = report.figures(outcome.rows)
    assert figures["signed"] >= SHORT.requests / 2, said
    assert figures["faults"] == len(SHORT.steps), said
    assert {record.epoch for record in outcome.evidence.key_records} >= {1, 2}, said
    assert outcome.evidence.commits, said
    assert {ask.way for ask in history.only(outcome.rows, history.Ask)} == {"single", "batch", "socket"}, said


def test_the_same_seed_brings_the_same_faults() -> None:
    scale = Scale(kills=20, brokers=5, signers=3, pods=2)
    assert draw(1, scale) == draw(1, scale)
    assert draw(1, scale) != draw(2, scale)


def test_a_plan_has_what_was_asked_for_and_reaches_everybody() -> None:
    steps = draw(3, Scale(kills=20, brokers=5, signers=3, pods=2))
    assert sum(step.target == BROKER for step in steps) == 5
    assert sum(step.target != BROKER for step in steps) == 20
    assert {step.target for step in steps if step.kind == "kill"} >= {"signer 1", "signer 2", "signer 3", BROKER}
    assert {step.target for step in each_once(3, 2)} == {"signer 1", "signer 2", "signer 3", "api 0", "api 1"}
