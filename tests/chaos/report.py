"""The figures of a run, as lines for a person."""

from collections import Counter
from collections.abc import Sequence

from common.wire.messages import Signed
from tests.chaos import checker
from tests.chaos.history import Answer, Ask, Fault, Refresh, Row, Turned, only
from tests.chaos.run import Outcome


def lines(outcome: Outcome) -> list[str]:
    """What was asked, what came of it, what each fault cost, and what is wrong."""
    rows, evidence = outcome.rows, outcome.evidence
    asks, answers = only(rows, Ask), only(rows, Answer)
    asked = {ask.op: ask for ask in asks}
    statuses = Counter(f"{answer.status} {answer.code}".strip() for answer in answers)
    span_s = (max((each.at_ms for each in answers), default=0) - min((each.at_ms for each in asks), default=0)) / 1000
    asked_for = Counter(refresh.status for refresh in only(rows, Refresh))
    refreshes = ", ".join(f"{count} x {status}" for status, count in sorted(asked_for.items()))
    requests = {item.request_id for item in evidence.items}
    sends = {(item.record_id, item.request_id) for item in evidence.items}
    signatures = sum(isinstance(given.result, Signed) for given in evidence.given)
    said = [
        f"asked: {sum(len(ask.messages) for ask in asks)} messages in {len(asks)} questions, {span_s:.0f} s; "
        + ", ".join(f"{count} {way}" for way, count in sorted(Counter(ask.way for ask in asks).items())),
        "answered: " + ", ".join(f"{count} x {status}" for status, count in statuses.most_common()),
        f"refused connections, made elsewhere: {len(only(rows, Turned))}",
        f"topics: {len(requests)} requests, sent again {len(sends) - len(requests)} "
        f"({(len(sends) - len(requests)) / max(1, len(requests)):.1%}), {signatures} signatures, "
        f"{len(evidence.audited)} audited, {len(evidence.commits)} commits",
        f"refreshes asked: {refreshes or 'none'}; "
        f"epochs committed: {len({record.epoch for record in evidence.key_records})}",
        f"all: {_latency([(asked[each.op], each) for each in answers if each.op in asked])}",
    ]
    for fault in only(rows, Fault):
        pairs = _during(fault, asked, answers)
        said.append(f"{fault.kind} {fault.target}, {lasted(fault)}: {_latency(pairs)}")
    if outcome.broken:
        said.append(f"BROKEN OFF: {outcome.broken}")
    said += [f"FOUND {line}" for line in checker.told(outcome.findings)]
    said.append("nothing is wrong" if not outcome.findings else f"{len(outcome.findings)} findings")
    return said


def lasted(fault: Fault) -> str:
    """How long until everybody was ready again; for a broker also, since it served again."""
    since = f", {(fault.until_ms - fault.over_ms) / 1000:.1f} s of them after it served again" if fault.over_ms else ""
    return f"{(fault.until_ms - fault.from_ms) / 1000:.1f} s until all were ready{since}"


def _during(fault: Fault, asked: dict[int, Ask], answers: Sequence[Answer]) -> list[tuple[Ask, Answer]]:
    """What was under way at any time of the fault."""
    return [
        (asked[answer.op], answer)
        for answer in answers
        if answer.op in asked and asked[answer.op].at_ms <= fault.until_ms and fault.from_ms <= answer.at_ms
    ]


def _latency(pairs: Sequence[tuple[Ask, Answer]]) -> str:
    took = sorted(answer.at_ms - ask.at_ms for ask, answer in pairs if answer.status == 200)
    failed = len(pairs) - len(took)
    if not took:
        return f"{failed} failed of {len(pairs)}"
    p50, p99 = (took[min(len(took) - 1, int(len(took) * share))] for share in (0.5, 0.99))
    return f"{failed} failed of {len(pairs)}, p50 {p50} ms, p99 {p99} ms, slowest {took[-1]} ms"


def figures(rows: Sequence[Row]) -> dict[str, int]:
    """Counts that a test may look at."""
    answers = only(rows, Answer)
    return {
        "signed": sum(answer.status == 200 for answer in answers),
        "answers": len(answers),
        "faults": len(only(rows, Fault)),
        "refreshes": sum(refresh.status == 202 for refresh in only(rows, Refresh)),
    }
