"""The phases of one system: alone, probes for saturation, full load, half load, batch."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.bench import accounting, stats
from tests.bench.load import DRAIN_S
from tests.bench.plan import (
    BATCH_CALLERS,
    BATCH_ITEMS,
    COMPILE_STEP_S,
    COMPILED_BELOW,
    CONCURRENCIES,
    FLOOR_SAMPLES,
    WORTH,
    Lengths,
)
from tests.bench.system import BenchError, System, Talker, scrape

_STAGES = "signer_flow_stage_duration_seconds"
_HTTP = "signer_flow_http_request_duration_seconds"
_ITEMS = "signer_flow_record_items"


@dataclass(frozen=True, slots=True)
class Tools:
    """The helpers of a run. ``say`` gets one line per phase."""

    load: Talker
    floor: Talker
    say: Callable[[str], None]
    concurrencies: Sequence[int] = CONCURRENCIES
    batch_callers: int = BATCH_CALLERS
    batch_items: int = BATCH_ITEMS


class Measurement:
    """One system under load. ``threshold`` names its floor; None: it has none, and the samples only show noise."""

    def __init__(self, tools: Tools, system: System, threshold: int | None) -> None:
        self._tools, self._system, self._threshold = tools, system, threshold
        self._pids = {**system.pids, "client": tools.load.pid}

    def warm_broker(self, pid: int, most_s: float) -> None:
        """Load it until the broker's JVM has compiled what it needs, but no longer than ``most_s``."""
        end = time.monotonic() + most_s
        while time.monotonic() < end:
            before = accounting.compiler_ms(pid)
            self.phase("warming the broker", "closed", COMPILE_STEP_S, concurrency=64)
            if accounting.compiler_ms(pid) - before < COMPILED_BELOW * COMPILE_STEP_S * 1000:
                return

    def thorough(self, lengths: Lengths) -> dict[str, Any]:
        """Every phase."""
        self.phase("warming up", "closed", lengths.warm, concurrency=32)
        alone = self.phase("one caller", "closed", lengths.alone, concurrency=1)
        full = self._saturation(lengths)
        half = self.phase("half load", "open", lengths.half, rate=max(1.0, full["rate_per_s"] / 2))
        batch = self.phase(
            *("batch", "closed", lengths.batch),
            floor=True,
            concurrency=self._tools.batch_callers,
            items=self._tools.batch_items,
        )
        return self._row({"alone": alone, "full": full, "half": half, "batch": batch})

    def saturation(self, lengths: Lengths) -> dict[str, Any]:
        """Only how many signatures a second."""
        self.phase("warming up", "closed", lengths.warm, concurrency=32)
        return self._row({"full": self._saturation(lengths)})

    def _saturation(self, lengths: Lengths) -> dict[str, Any]:
        best, most = self._tools.concurrencies[0], 0.0
        for concurrency in self._tools.concurrencies:
            probe = self.phase(f"{concurrency} callers", "closed", lengths.probe, concurrency=concurrency)
            if probe["rate_per_s"] > most * WORTH:
                best, most = concurrency, probe["rate_per_s"]
            elif probe["rate_per_s"] < most / WORTH:
                break
        before = [stats.scrape(text) for text in scrape(self._system.scrapes)]
        full = self.phase(f"full load, {best} callers", "closed", lengths.full, floor=True, concurrency=best)
        if not full["ok"]:
            raise BenchError(f"nothing was signed: {full['failed']}")
        after = [stats.scrape(text) for text in scrape(self._system.scrapes)]
        grown = [stats.growth(old, new) for old, new in zip(before, after, strict=True)]
        return full | {"concurrency": best, "stages": _stages(grown)}

    def _row(self, phases: dict[str, dict[str, Any]]) -> dict[str, Any]:
        floors = [ms for phase in phases.values() for ms in phase.get("floor_samples_ms", ())]
        return {
            **phases,
            "floor_spread": round(stats.spread(floors), 3),
            "noisy": stats.noisy(floors),
            "memory_mib": {name: round(accounting.peak_rss_mib(pid), 1) for name, pid in self._pids.items()},
        }

    def phase(
        self,
        what: str,
        kind: str,
        seconds: float,
        *,
        floor: bool = False,
        meanwhile: Callable[[], None] = lambda: None,
        **command: Any,
    ) -> dict[str, Any]:
        """Run one phase. Processes that die in it end the measurement: what is left would be another system.

        Args:
            what: As it is told of.
            kind: Which load (``load``).
            seconds: How long.
            floor: Whether the floor of signing is taken meanwhile.
            meanwhile: Called once, while the load runs.
            command: More for the load client.

        Raises:
            BenchError: a process is gone.
        """
        wanted = {"urls": self._system.urls, "public_key": self._system.public_key, "seconds": seconds}
        samples: list[float] = []
        try:
            before = accounting.snapshot(self._pids)
            if floor:
                self._tools.floor.tell(
                    {"threshold": self._threshold or 2, "samples": FLOOR_SAMPLES, "within_s": seconds * 0.9}
                )
            self._tools.load.tell({"kind": kind, **wanted, **command})
            try:
                meanwhile()
            finally:
                # In any case: the next phase would take this one's answer for its own.
                result = self._tools.load.hear(seconds + 2 * DRAIN_S + 10.0)
            after = accounting.snapshot(self._pids)
            if floor:
                samples = self._tools.floor.hear(seconds + 20.0)["samples_ms"]
        except OSError as gone:
            raise BenchError(f"{what}: a process ended: {gone}") from None
        latency = result["latency"] or {}
        self._tools.say(
            f"  {what}: {result['rate_per_s']:.0f}/s, p50 {latency.get('p50_ms', '-')} ms, "
            f"p99 {latency.get('p99_ms', '-')} ms" + (f", failed {result['failed']}" if result["failed"] else "")
        )
        result |= accounting.used(before, after, result["ok"])
        cost: dict[str, float] | None = result["cpu_ms_per_signature"]
        if samples:
            result["floor_samples_ms"] = [round(each, 4) for each in samples]
        if samples and cost and self._threshold is not None:
            result["floor_ms"] = round(median(samples), 4)
            result["ratio"] = round((cost["api"] + cost.get("signer", 0.0)) / median(samples), 3)
        return result


def _stages(grown: list[dict[str, float]]) -> dict[str, float]:
    """Mean ms of each stage over all processes, and the mean number of items in a record; only what is counted."""
    named = {
        labels.split('"')[1]: round(mean * 1000, 3) for labels, mean in stats.histogram_means(grown, _STAGES).items()
    }
    for labels, mean in stats.histogram_means(grown, _HTTP).items():
        if 'route="/v1/sign"' in labels:
            named["http"] = round(mean * 1000, 3)
    for mean in stats.histogram_means(grown, _ITEMS).values():
        named["items_per_record"] = round(mean, 2)
    return named
