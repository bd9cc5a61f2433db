"""The order of a run: broker, load client and floor, then one system after another, then the report.

Exit codes: 0 measured, 1 something could not be measured or a signature was wrong, 2 usage, 130 interrupted. Missed
targets and a noisy machine are said, and are no error: figures are not tests.
"""

import argparse
import json
import os
import platform
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.bench import overload, plan, report, system
from tests.bench.ceremonies import Ceremonies
from tests.bench.measure import Measurement, Tools
from tests.bench.plan import Committee, Lengths
from tests.bench.system import BenchError, System


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description="Measure signer-flow on Apache Kafka.")
    parser.add_argument("--quick", action="store_true", help="2-of-3, the baseline, few refreshes: about two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--apis", type=int, default=1, help="number of API pods (default: %(default)s)")
    parser.add_argument("--only", type=_committee, action="append", metavar="T-of-N", help="only these committees")
    parser.add_argument("--callers", type=int, nargs="+", default=plan.CONCURRENCIES, help="concurrencies to try")
    parser.add_argument("--batch-items", type=int, default=plan.BATCH_ITEMS, help="items per batch request")
    parser.add_argument("--batch-callers", type=int, default=plan.BATCH_CALLERS, help="batch requests at a time")
    parser.add_argument(
        "--refreshes", type=_count, metavar="N", help="only this many refreshes under load, nothing else"
    )
    parser.add_argument(
        "--overload",
        type=_count,
        metavar="SECONDS",
        help="only so many seconds at three times the capacity, nothing else (60 is what figures are owed for)",
    )
    parser.add_argument("--no-baseline", action="store_true", help="leave out the service with the key in its memory")
    return parser.parse_args()


def _committee(text: str) -> Committee:
    match = re.fullmatch(r"(\d{1,2})-of-(\d{1,2})", text)
    if match is None or not 2 <= int(match[1]) <= int(match[2]) <= 15:
        raise argparse.ArgumentTypeError("such as 3-of-5, at most 15 replicas")
    return Committee(int(match[1]), int(match[2]))


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError("a number from 1 to 1000")
    return int(text)


def _machine() -> dict[str, Any]:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / 1024 / 1024) if memory else None,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


class Run:
    """One run and its report as it grows."""

    def __init__(self, arguments: argparse.Namespace, tools: Tools, broker: system.Broker, folder: Path) -> None:
        self._arguments, self._tools, self._broker, self._folder = arguments, tools, broker, folder
        self._lengths: Lengths = plan.QUICK if arguments.quick else plan.FULL
        self._refreshes = plan.QUICK_REFRESHES if arguments.quick else plan.FULL_REFRESHES
        self._broker_is_warm = False
        self._end = time.monotonic() + plan.TOTAL_S
        self.report: dict[str, Any] = {
            "version": 1,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "mode": _mode(arguments),
            "machine": _machine(),
            "kafka": broker.about,
            "apis": arguments.apis,
            "rows": [],
            "refreshes": [],
            "overload": [],
            "replicas": [],
            "baseline": None,
        }

    def all(self) -> None:
        """Measure what was asked for."""
        if self._arguments.overload is not None:
            for committee in self._arguments.only or [plan.MAIN]:
                self._overload(committee, self._arguments.overload)
            return
        if self._arguments.refreshes is not None:
            for committee in self._arguments.only or [plan.MAIN]:
                self._only_refreshes(committee, idle=0, loaded=self._arguments.refreshes)
            return
        chosen: list[Committee] = self._arguments.only or [plan.MAIN]
        whole = not self._arguments.quick and not self._arguments.only
        if whole:
            chosen = list(plan.COMMITTEES)
        for committee in chosen:
            self.report["rows"].append(self._committee(committee))
        if not self._arguments.no_baseline:
            self.report["baseline"] = self._measure(
                "one process", None, system.baseline(self._folder), lambda measured, _: measured.thorough(self._lengths)
            )
        if not self._arguments.only:
            for committee in self._refreshes.committees:
                if committee not in chosen:
                    self._only_refreshes(committee, idle=self._refreshes.idle, loaded=0)
        if whole:
            others = [self._committee(committee) for committee in plan.REPLICAS]
            main = [row for row in self.report["rows"] if row["name"] == plan.MAIN.name]
            self.report["replicas"] = sorted([*main, *others], key=lambda row: str(row["name"]))

    def _committee(self, committee: Committee) -> dict[str, Any]:
        def phases(measured: Measurement, running: System) -> dict[str, Any]:
            if not committee.thorough:
                return measured.saturation(plan.QUICK)
            found = measured.thorough(self._lengths)
            if committee in self._refreshes.committees or self._arguments.only:
                counts = self._refreshes
                self._refresh(committee, measured, running, found["full"], counts.idle, counts.loaded)
            return found

        started = system.demo(committee, self._arguments.apis, self._broker, self._folder)
        found = self._measure(committee.name, committee.threshold, started, phases)
        return {"threshold": committee.threshold, "signers": committee.signers, **found}

    def _only_refreshes(self, committee: Committee, idle: int, loaded: int) -> None:
        def phases(measured: Measurement, running: System) -> dict[str, Any]:
            full = measured.saturation(plan.QUICK)["full"] if loaded else {}
            self._refresh(committee, measured, running, full, idle, loaded)
            return {}

        started = system.demo(committee, self._arguments.apis, self._broker, self._folder)
        found = self._measure(committee.name, committee.threshold, started, phases)
        if "error" in found:
            self.report["refreshes"].append({**_named(committee), "error": found["error"]})

    def _overload(self, committee: Committee, seconds: float) -> None:
        def phases(measured: Measurement, running: System) -> dict[str, Any]:
            capacity = measured.saturation(plan.QUICK)["full"]["rate_per_s"]
            return overload.measure(measured, running, capacity, seconds)

        started = system.demo(committee, self._arguments.apis, self._broker, self._folder)
        self.report["overload"].append(self._measure(committee.name, committee.threshold, started, phases))

    def _refresh(
        self, committee: Committee, measured: Measurement, running: System, full: dict[str, Any], idle: int, loaded: int
    ) -> None:
        """Refresh a running committee; ``full`` is what was measured at saturation."""
        row = _named(committee)
        self.report["refreshes"].append(row)
        ceremonies = Ceremonies(self._tools, running, committee, measured)
        try:
            if idle:
                row["idle"] = ceremonies.idle(idle)
            if loaded:
                rate, callers = max(1.0, full["rate_per_s"] / 2), full["concurrency"]
                row["half"] = ceremonies.under_load("half load", -(-loaded // 2), "open", rate=rate)
                if loaded > 1:
                    row["full"] = ceremonies.under_load("full load", loaded // 2, "closed", concurrency=callers)
        except BenchError as error:
            self._tools.say(f"{committee.name}: {error}")
            row["error"] = str(error)

    def _measure(
        self,
        name: str,
        threshold: int | None,
        started: AbstractContextManager[System],
        phases: Callable[[Measurement, System], dict[str, Any]],
    ) -> dict[str, Any]:
        if time.monotonic() > self._end:
            return {"name": name, "error": "no time was left"}
        self._tools.say(f"{name}: starting")
        try:
            with started as running:
                measured = Measurement(self._tools, running, threshold)
                if "broker" in running.pids and not self._broker_is_warm:
                    measured.warm_broker(running.pids["broker"], self._lengths.compile_most)
                    self._broker_is_warm = True
                return {"name": name, **phases(measured, running)}
        except BenchError as error:
            self._tools.say(f"{name}: {error}")
            return {"name": name, "error": str(error)}


def _mode(arguments: argparse.Namespace) -> str:
    if arguments.overload is not None:
        return "overload"
    return "refreshes" if arguments.refreshes else "quick" if arguments.quick else "full"


def _named(committee: Committee) -> dict[str, Any]:
    return {"name": committee.name, "threshold": committee.threshold, "signers": committee.signers}


def _sound(found: dict[str, Any]) -> bool:
    """Whether everything was measured, and every answer was right where there were any."""
    rows = [
        *found["rows"],
        *found["replicas"],
        *found["refreshes"],
        *found["overload"],
        *filter(None, [found["baseline"]]),
    ]
    phases = [row.get(name) or {} for row in rows for name in ("alone", "full", "half", "batch")]
    failed = (phase.get("wrong") or phase.get("ok") == 0 for phase in phases)
    return not any("error" in row for row in rows) and not any(failed)


def main() -> int:
    """Run; see the module's docstring for the exit codes."""
    arguments = _arguments()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    said = Console(stderr=True)

    def say(line: str) -> None:
        said.print(line, markup=False, highlight=False, soft_wrap=True)

    with tempfile.TemporaryDirectory(prefix="signer-flow-bench-") as name:
        folder = Path(name)
        try:
            say("starting Apache Kafka")
            with (
                system.broker(folder) as broker,
                system.talker("load", folder) as load,
                system.talker("floor", folder) as floor,
            ):
                tools = Tools(load, floor, say, arguments.callers, arguments.batch_callers, arguments.batch_items)
                run = Run(arguments, tools, broker, folder)
                run.all()
        except BenchError as error:
            say(f"make bench: {error}")
            return 1
        except KeyboardInterrupt:
            say("interrupted")
            return 130
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(run.report, indent=1) + "\n")
    # In a file or a pipe there is no width to fit into.
    report.show(run.report, Console(width=None if sys.stdout.isatty() else 150))
    return 0 if _sound(run.report) else 1


if __name__ == "__main__":
    sys.exit(main())
