"""What a run measures: committees, lengths of the phases in seconds, refreshes, and the figures that we owe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Seconds of each phase. ``compile_most``: how long a fresh broker's compiler may be waited for."""

    compile_most: float
    warm: float
    alone: float
    probe: float
    full: float
    half: float
    batch: float


@dataclass(frozen=True, slots=True)
class Committee:
    """``thorough``: every phase; otherwise only what saturation needs."""

    threshold: int
    signers: int
    thorough: bool = True

    @property
    def name(self) -> str:
        """As people say it."""
        return f"{self.threshold}-of-{self.signers}"


QUICK = Lengths(compile_most=8, warm=2, alone=3, probe=2, full=7, half=6, batch=5)
FULL = Lengths(compile_most=16, warm=4, alone=8, probe=4, full=20, half=20, batch=12)

MAIN = Committee(2, 3)
COMMITTEES = (MAIN, Committee(3, 5), Committee(5, 7))
"""The rows of the table."""
REPLICAS = (Committee(2, 2, thorough=False), Committee(2, 4, thorough=False), Committee(2, 5, thorough=False))
"""With MAIN: what one more replica brings at the same threshold."""


@dataclass(frozen=True, slots=True)
class Refreshes:
    """Which committees are refreshed, how often each while nobody signs, and how often under load: half of these at
    half load, the others at saturation. Under load only those that are measured anyway."""

    committees: tuple[Committee, ...]
    idle: int
    loaded: int


QUICK_REFRESHES = Refreshes((MAIN, Committee(3, 5)), idle=2, loaded=2)
FULL_REFRESHES = Refreshes((MAIN, Committee(3, 5), Committee(7, 10)), idle=5, loaded=10)

CONCURRENCIES = (16, 32, 64, 128, 256)
"""Callers that are tried, in this order, until more of them bring nothing."""
WORTH = 1.03
"""More callers count as better from this factor on: beyond, they only wait longer."""

COMPILED_BELOW = 0.03
"""A broker is warm when its compiler uses less of a core than this. A broker that serves is: it runs for months."""
COMPILE_STEP_S = 4.0

BATCH_CALLERS = 4
BATCH_ITEMS = 200
FLOOR_SAMPLES = 6

TOTAL_S = 660.0
"""A full run begins nothing new after this; with the system in hand it ends within twelve minutes."""


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that is owed on two cores with everything on them; ``at_least`` or else at most."""

    label: str
    unit: str
    must: float
    goal: float
    at_least: bool
    of: Callable[[Row], float | None]
    committees: tuple[str, ...] = (MAIN.name,)
    """Which rows owe it."""

    def verdict(self, value: float) -> str:
        """``goal``, ``must`` or ``missed``."""
        for word, bound in (("goal", self.goal), ("must", self.must)):
            if value >= bound if self.at_least else value <= bound:
                return word
        return "missed"


def _phase(phase: str, field: str) -> Callable[[Row], float | None]:
    return lambda row: (row.get(phase) or {}).get(field)


def _latency(phase: str, field: str) -> Callable[[Row], float | None]:
    return lambda row: ((row.get(phase) or {}).get("latency") or {}).get(field)


def largest_process(row: Row) -> float | None:
    """MiB of the largest of our own processes; the broker is not ours."""
    ours = [mib for name, mib in row.get("memory_mib", {}).items() if not name.startswith(("broker", "client"))]
    return max(ours, default=None)


TARGETS = (
    Target("signatures through POST /v1/sign at saturation", "/s", 700, 1000, True, _phase("full", "rate_per_s")),
    Target("items through /v1/sign/batch", "/s", 1000, 1500, True, _phase("batch", "rate_per_s")),
    Target("CPU of api and signers over the floor, single", "x", 3.2, 2.5, False, _phase("full", "ratio")),
    Target("the same, batch", "x", 2.2, 1.7, False, _phase("batch", "ratio")),
    Target("p50, one caller", "ms", 15, 10, False, _latency("alone", "p50_ms")),
    Target("p99 at half load, open loop", "ms", 60, 40, False, _latency("half", "p99_ms")),
    Target("memory of the largest process", "MiB", 120, 80, False, largest_process),
)
"""What 2-of-3 owes callers."""


def _refresh(*path: str) -> Callable[[Row], float | None]:
    def of(row: Row) -> float | None:
        found: Any = row
        for name in path:
            found = (found or {}).get(name)
        return found if isinstance(found, int | float) else None

    return of


def _percent(phase: str) -> Callable[[Row], float | None]:
    def of(row: Row) -> float | None:
        dip = (row.get(phase) or {}).get("dip")
        return None if dip is None else 100 * float(dip)

    return of


def not_signed(phase: Row) -> int:
    """Requests that failed, for any reason, or came back wrong."""
    return int(sum(phase["failed"].values()) + phase["wrong"])


def _not_signed(row: Row) -> float | None:
    phases = [row[name] for name in ("half", "full") if row.get(name)]
    return sum(map(not_signed, phases)) if phases else None


_ALL = tuple(committee.name for committee in FULL_REFRESHES.committees)
REFRESH_TARGETS = (
    Target(
        "refresh while nobody signs, median", "ms", 1000, 1000, False, _refresh("idle", "wall_median_ms"), ("3-of-5",)
    ),
    Target("CPU of a refresh over its floor", "x", 1.5, 1.5, False, _refresh("idle", "ratio"), _ALL),
    Target("missing signatures in a refresh's seconds, half load", "%", 20, 20, False, _percent("half"), _ALL),
    Target("the same, at saturation", "%", 20, 20, False, _percent("full"), _ALL),
    Target("requests not signed in all refreshes", "", 0, 0, False, _not_signed, _ALL),
)
"""What each committee owes of its refreshes, where it was measured."""
