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
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.bench import plan, report, system
from tests.bench.measure import Measurement, Tools
from tests.bench.plan import Committee, Lengths
from tests.bench.system import BenchError, System


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description="Measure signer-flow on Apache Kafka.")
    parser.add_argument("--quick", action="store_true", help="2-of-3 and the baseline only, about a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--apis", type=int, default=1, help="number of API pods (default: %(default)s)")
    parser.add_argument("--only", type=_committee, action="append", metavar="T-of-N", help="only these committees")
    parser.add_argument("--callers", type=int, nargs="+", default=plan.CONCURRENCIES, help="concurrencies to try")
    parser.add_argument("--batch-items", type=int, default=plan.BATCH_ITEMS, help="items per batch request")
    parser.add_argument("--batch-callers", type=int, default=plan.BATCH_CALLERS, help="batch requests at a time")
    parser.add_argument("--no-baseline", action="store_true", help="leave out the service with the key in its memory")
    return parser.parse_args()


def _committee(text: str) -> Committee:
    match = re.fullmatch(r"(\d{1,2})-of-(\d{1,2})", text)
    if match is None or not 2 <= int(match[1]) <= int(match[2]) <= 15:
        raise argparse.ArgumentTypeError("such as 3-of-5, at most 15 replicas")
    return Committee(int(match[1]), int(match[2]))


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
        self._broker_is_warm = False
        self._end = time.monotonic() + plan.TOTAL_S
        self.report: dict[str, Any] = {
            "version": 1,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "mode": "quick" if arguments.quick else "full",
            "machine": _machine(),
            "kafka": broker.about,
            "apis": arguments.apis,
            "rows": [],
            "replicas": [],
            "baseline": None,
        }

    def all(self) -> None:
        """Measure what was asked for."""
        chosen: list[Committee] = self._arguments.only or [plan.MAIN]
        if not self._arguments.quick and not self._arguments.only:
            chosen = list(plan.COMMITTEES)
        for committee in chosen:
            self.report["rows"].append(self._committee(committee))
        if not self._arguments.no_baseline:
            self.report["baseline"] = self._measure(
                "one process", None, system.baseline(self._folder), self._lengths, thorough=True
            )
        if not self._arguments.quick and not self._arguments.only:
            others = [self._committee(committee) for committee in plan.REPLICAS]
            main = [row for row in self.report["rows"] if row["name"] == plan.MAIN.name]
            self.report["replicas"] = sorted([*main, *others], key=lambda row: str(row["name"]))

    def _committee(self, committee: Committee) -> dict[str, Any]:
        started = system.demo(committee, self._arguments.apis, self._broker, self._folder)
        lengths = self._lengths if committee.thorough else plan.QUICK
        found = self._measure(committee.name, committee.threshold, started, lengths, thorough=committee.thorough)
        return {"threshold": committee.threshold, "signers": committee.signers, **found}

    def _measure(
        self,
        name: str,
        threshold: int | None,
        started: AbstractContextManager[System],
        lengths: Lengths,
        *,
        thorough: bool,
    ) -> dict[str, Any]:
        if time.monotonic() > self._end:
            return {"name": name, "error": "no time was left"}
        self._tools.say(f"{name}: starting")
        try:
            with started as measured:
                measurement = Measurement(self._tools, measured, threshold)
                if "broker" in measured.pids and not self._broker_is_warm:
                    measurement.warm_broker(measured.pids["broker"], lengths.compile_most)
                    self._broker_is_warm = True
                phases = measurement.thorough(lengths) if thorough else measurement.saturation(lengths)
                return {"name": name, **phases}
        except BenchError as error:
            self._tools.say(f"{name}: {error}")
            return {"name": name, "error": str(error)}


def _sound(found: dict[str, Any]) -> bool:
    """Whether everything was measured, and every answer was right where there were any."""
    rows = [*found["rows"], *found["replicas"], *filter(None, [found["baseline"]])]
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
