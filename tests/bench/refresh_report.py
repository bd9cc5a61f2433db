"""Refreshes in the report: what they take, what they cost, what they cost callers, and what their floor is made of."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.bench.plan import REFRESH_TARGETS, Row, not_signed

_NONE = "-"
Report = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]

OPERATIONS = {
    "base": "base point multiplications",
    "mul": "point multiplications",
    "add": "additions",
    "valid": "subgroup checks",
    "seal": "sub-shares sealed",
    "unseal": "sub-shares opened",
    "sign": "Ed25519 signatures",
    "verify": "Ed25519 verifications",
}


def _of(phase: str, cell: Callable[[Row], str]) -> Callable[[Row], str]:
    return lambda row: cell(row[phase]) if row.get(phase) else _NONE


def _rates(phase: Row) -> str:
    rates = (phase["during"]["rate_per_s"], phase["otherwise"]["rate_per_s"])
    return " / ".join(_NONE if rate is None else f"{rate:,.0f}" for rate in rates)


def _dip(phase: Row) -> str:
    return _NONE if phase["dip"] is None else f"{phase['dip']:.0%}"


def _p99(phase: Row) -> str:
    sides = (phase["during"]["latency"], phase["otherwise"]["latency"])
    return " / ".join(f"{side['p99_ms']:.1f}" if side else _NONE for side in sides)


def _failed(phase: Row) -> str:
    return f"{not_signed(phase):,} of {phase['ok'] + not_signed(phase):,}, {phase['refreshes']} refreshes"


LINES: tuple[tuple[str, Callable[[Row], str]], ...] = (
    (
        "a refresh, idle: median / worst, ms",
        _of("idle", lambda it: f"{it['wall_median_ms']:.0f} / {it['wall_worst_ms']:.0f}"),
    ),
    ("CPU ms of it per replica", _of("idle", lambda it: f"{it['cpu_ms_per_replica']:.1f}")),
    ("floor: CPU ms of its group operations alone", _of("idle", lambda it: f"{it['floor_ms']:.1f}")),
    ("as a multiple of the floor (must <= 1.5)", _of("idle", lambda it: f"{it['ratio']:.2f}")),
    ("half load: signatures/s during / otherwise", _of("half", _rates)),
    ("half load: missing during a refresh", _of("half", _dip)),
    ("half load: p99 during / otherwise, ms", _of("half", _p99)),
    ("half load: not signed", _of("half", _failed)),
    ("full load: signatures/s during / otherwise", _of("full", _rates)),
    ("full load: missing during a refresh", _of("full", _dip)),
    ("full load: p99 during / otherwise, ms", _of("full", _p99)),
    ("full load: not signed", _of("full", _failed)),
)


def figures(report: Report) -> Table | None:
    """Head and body; None if no committee was refreshed."""
    rows = [row for row in report.get("refreshes", ()) if any(row.get(name) for name in ("idle", "half", "full"))]
    if not rows:
        return None
    body = [[label, *(cell(row) for row in rows)] for label, cell in LINES]
    measured = [line for line in body if any(cell != _NONE for cell in line[1:])]
    return ["refresh", *(row["name"] for row in rows)], measured


def floor(report: Report) -> Table | None:
    """What the floor of one replica is made of: counts of each operation, and what each costs."""
    rows = [row for row in report.get("refreshes", ()) if row.get("idle")]
    if not rows:
        return None
    body = []
    for name, label in OPERATIONS.items():
        counts = [sum(step[name] for step in row["idle"]["counts"].values()) / row["signers"] for row in rows]
        cost_us = rows[-1]["idle"]["cost_us"][name]
        body.append([label, f"{cost_us:.1f}", *(f"{count:,.0f}" for count in counts)])
    return ["operations of a replica in a refresh", "us each", *(row["name"] for row in rows)], body


def targets(report: Report) -> list[list[str]]:
    """What is owed: committee and figure, measured, must, reached."""
    body = []
    for target in REFRESH_TARGETS:
        for row in report.get("refreshes", ()):
            value = target.of(row) if row["name"] in target.committees else None
            if value is not None:
                must = f"{target.must:g} {target.unit}".rstrip()
                reached = "missed" if target.verdict(value) == "missed" else "must"
                body.append([f"{row['name']}: {target.label}", f"{value:,.4g} {target.unit}".rstrip(), must, reached])
    return body


def remarks(report: Report) -> list[str]:
    """What has to be said besides."""
    found = []
    for row in report.get("refreshes", ()):
        if "error" in row:
            found.append(f"{row['name']}, refreshes: not measured: {row['error']}")
        if (row.get("idle") or {}).get("noisy"):
            moved = row["idle"]["floor_spread"]
            found.append(
                f"{row['name']}, refreshes: noisy: the floor moved by {moved:.0%} between them; do not compare"
            )
        for phase in ("half", "full"):
            for reason, count in ((row.get(phase) or {}).get("failed") or {}).items():
                found.append(f"{row['name']}, refreshes at {phase} load: {count} not signed: {reason}")
            if (row.get(phase) or {}).get("wrong"):
                found.append(f"{row['name']}, refreshes at {phase} load: {row[phase]['wrong']} WRONG signatures")
    return found


def tables(report: Report) -> Sequence[Table]:
    """All of them that there are."""
    return [table for table in (figures(report), floor(report)) if table is not None]
