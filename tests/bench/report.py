"""A run's JSON as tables: for a terminal, and as Markdown for FIGURES.md (``python -m tests.bench.report FILE``)."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import overload, refresh_report
from tests.bench.plan import TARGETS, Row, largest_process

Report = Mapping[str, Any]
_NONE = "-"
_MODES = {
    "quick": "quick run",
    "full": "full run",
    "refreshes": "a run of refreshes alone",
    "overload": "an overload alone",
}


def _number(value: float | None, digits: int = 0) -> str:
    return _NONE if value is None else f"{value:,.{digits}f}"


def _latency(phase: str, *names: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        found = (row.get(phase) or {}).get("latency")
        return _NONE if not found else " / ".join(f"{found[f'{name}_ms']:.1f}" for name in names)

    return cell


def _value(phase: str, field: str, digits: int = 0) -> Callable[[Row], str]:
    return lambda row: _number((row.get(phase) or {}).get(field), digits)


def _cpu(role: str, phase: str = "full") -> Callable[[Row], str]:
    return lambda row: _number(((row.get(phase) or {}).get("cpu_ms_per_signature") or {}).get(role), 2)


def _stage(row: Row) -> str:
    stages = (row.get("full") or {}).get("stages") or {}
    parts = [f"{name} {stages[name]:.1f}" for name in ("queue", "round", "answer", "http") if name in stages]
    return " · ".join(parts) or _NONE


LINES: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("signatures/s at saturation", _value("full", "rate_per_s")),
    ("one caller: p50 / p95 / p99, ms", _latency("alone", "p50", "p95", "p99")),
    ("half load, open loop: p50 / p95 / p99, ms", _latency("half", "p50", "p95", "p99")),
    ("full load: p50 / p95 / p99, ms", _latency("full", "p50", "p95", "p99")),
    ("batch: items/s", _value("batch", "rate_per_s")),
    ("CPU ms per signature: API", _cpu("api")),
    ("CPU ms per signature: all signers", _cpu("signer")),
    ("CPU ms per signature: broker", _cpu("broker")),
    ("CPU ms per signature: load client", _cpu("client")),
    ("floor: CPU ms of the group operations alone", _value("full", "floor_ms", 2)),
    ("API and signers, as a multiple of the floor", _value("full", "ratio", 2)),
    ("the same in a batch", _value("batch", "ratio", 2)),
    ("stages at full load, mean ms", _stage),
    ("memory of the largest process, MiB", lambda row: _number(largest_process(row))),
)


def systems(report: Report) -> list[tuple[str, Row]]:
    """The columns: committees, then what one would pick instead. Only what was measured."""
    columns = [(f"{row['name']}{' (noisy)' if row.get('noisy') else ''}", row) for row in report["rows"]]
    if report.get("baseline"):
        columns.append(("one process, key in RAM", report["baseline"]))
    return [(name, row) for name, row in columns if "error" not in row]


def _cells(report: Report) -> tuple[list[str], list[list[str]]]:
    columns = systems(report)
    body = [[label, *(cell(row) for _, row in columns)] for label, cell in LINES]
    return ["", *(name for name, _ in columns)], body


def _replicas(report: Report) -> list[tuple[str, str]]:
    rows = [row for row in report.get("replicas", ()) if "error" not in row]
    return [(row["name"], _value("full", "rate_per_s")(row)) for row in rows]


def _targets(report: Report) -> list[list[str]]:
    main = next((row for row in report["rows"] if row["name"] == "2-of-3" and "error" not in row), None)
    body = []
    for target in TARGETS if main is not None else ():
        value = target.of(main or {})
        if value is not None:
            digits = 0 if value >= 100 else 1 if value >= 10 else 2
            wanted = [f"{each:g} {target.unit}" for each in (target.must, target.goal)]
            body.append([target.label, f"{_number(value, digits)} {target.unit}", *wanted, target.verdict(value)])
    return body


def _remarks(report: Report) -> list[str]:
    remarks = []
    for row in (
        *report["rows"],
        *report.get("replicas", ()),
        *report.get("overload", ()),
        *filter(None, [report.get("baseline")]),
    ):
        if "error" in row:
            remarks.append(f"{row['name']}: not measured: {row['error']}")
            continue
        if row.get("noisy"):
            remarks.append(
                f"{row['name']}: noisy: the floor moved by {row['floor_spread']:.0%} during the load; do not compare"
            )
        for phase in ("alone", "full", "half", "batch"):
            found = row.get(phase) or {}
            for reason, count in (found.get("failed") or {}).items():
                remarks.append(f"{row['name']}, {phase}: {count} not signed: {reason}")
            if found.get("wrong"):
                remarks.append(f"{row['name']}, {phase}: {found['wrong']} WRONG signatures")
            if found.get("others_busy", 0.0) + found.get("steal", 0.0) > 0.1:
                remarks.append(
                    f"{row['name']}, {phase}: others used {found['others_busy']:.0%} of the machine, "
                    f"the hypervisor took {found['steal']:.0%}"
                )
    remarks += refresh_report.remarks(report)
    return list(dict.fromkeys(remarks))  # 2-of-3 stands in two tables


def machine_line(report: Report) -> str:
    """On what, with what and when."""
    machine, kafka = report["machine"], report["kafka"]
    jvm = " ".join(kafka["jvm"]) or "JVM options unknown"
    return (
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}; {kafka['what']} ({jvm}); {report['apis']} API pod(s); broker, load client and "
        f"everything else on this one machine; {report['when'][:10]}, {_MODES[report['mode']]}."
    )


def markdown(report: Report) -> str:
    """What FIGURES.md shows: what was measured, as Markdown that needs no editing."""
    parts = [machine_line(report)]
    if systems(report):
        parts += ["", *_markdown(*_cells(report))]
    replicas = _replicas(report)
    if replicas:
        parts += ["", "Signatures/s at saturation against the number of replicas, threshold 2:", ""]
        parts += _markdown([name for name, _ in replicas], [[rate for _, rate in replicas]])
    for table in refresh_report.tables(report):
        parts += ["", *_markdown(*table)]
    measured = [*(row for _, row in systems(report)), *report.get("refreshes", ())]
    signed = sum(row[phase]["ok"] for row in measured for phase in ("alone", "full", "half", "batch") if phase in row)
    parts += ["", f"Each of the {signed:,} signatures behind this table was verified by the client."]
    parts += [f"- {remark}" for remark in _remarks(report)]
    return "\n".join(parts) + "\n"


def _markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in head[1:])]
    return [f"| {' | '.join(line)} |" for line in (head, rule, *body)]


def show(report: Report, console: Console) -> None:
    """The same for a person at a terminal, with what is owed."""
    console.print(machine_line(report), soft_wrap=True)
    if systems(report):
        console.print(_table(*_cells(report)))
    replicas = _replicas(report)
    if replicas:
        console.print(_table([name for name, _ in replicas], [[rate for _, rate in replicas]], "signatures/s"))
    for table in refresh_report.tables(report):
        console.print(_table(*table))
    targets = _targets(report)
    if targets:
        console.print(_table(["2-of-3", "measured", "must", "goal", "reached"], targets))
    owed = refresh_report.targets(report)
    if owed:
        console.print(_table(["refresh", "measured", "must", "reached"], owed))
    for row in report.get("overload", ()):
        if "error" not in row:
            head = [
                f"{row['name']}, {overload.TIMES:.0f} x {row['capacity_per_s']:.0f}/s",
                "measured",
                "must",
                "reached",
            ]
            console.print(_table(head, overload.lines(row)))
    for remark in _remarks(report):
        console.print(f"! {remark}", soft_wrap=True, markup=False)


def _table(head: Sequence[str], body: Sequence[Sequence[str]], title: str | None = None) -> Table:
    table = Table(title=title)
    for number, name in enumerate(head):
        table.add_column(name, justify="left" if number == 0 else "right")
    for line in body:
        table.add_row(*line)
    return table


def main() -> None:
    """Print the Markdown of a run's JSON."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.bench.report FILE.json > FILE.md")
    sys.stdout.write(markdown(json.loads(Path(sys.argv[1]).read_text())))


if __name__ == "__main__":
    main()
