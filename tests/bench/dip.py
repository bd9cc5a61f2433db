"""What a refresh costs callers: answers in the seconds of refreshes beside answers in all the others.

A refresh's seconds begin when it is asked for, and last until a pod believes the new key record, but for a second at
least: the stocks of nonces are filled after the commit. All moments are those of ``time.perf_counter_ns``, which on
Linux is one clock for all processes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.bench.stats import latencies

LEAST_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """One refresh: asked for, and believed."""

    asked_ns: int
    believed_ns: int

    @property
    def wall_ms(self) -> float:
        """How long it took."""
        return (self.believed_ns - self.asked_ns) / 1e6

    @property
    def end_ns(self) -> int:
        """End of its seconds."""
        return max(self.believed_ns, self.asked_ns + LEAST_NS)


@dataclass(slots=True)
class Side:
    """Answers of one kind of seconds."""

    seconds: float = 0.0
    answers: int = 0
    taken_ns: list[int] = field(default_factory=list)

    @property
    def rate(self) -> float | None:
        """Answers per second."""
        return self.answers / self.seconds if self.seconds else None

    def report(self) -> dict[str, Any]:
        """In numbers."""
        rate = self.rate
        return {
            "seconds": round(self.seconds, 2),
            "rate_per_s": None if rate is None else round(rate, 2),
            "latency": latencies(self.taken_ns),
        }


@dataclass(slots=True)
class Dip:
    """Both sides, over as many phases as are added."""

    during: Side = field(default_factory=Side)
    otherwise: Side = field(default_factory=Side)

    def add(self, begin_ns: int, end_ns: int, answered: Iterable[tuple[int, int]], spans: Sequence[Span]) -> None:
        """One phase.

        Args:
            begin_ns: From here on it counts: callers that begin at one time are no usual load.
            end_ns: Until here.
            answered: Of each good answer, when it came and how long it took, in ns. It is one of the refresh if any of
                its time was in the refresh's seconds; for the rate it counts where it came.
            spans: The refreshes, in order.
        """
        windows = _joined([(max(begin_ns, each.asked_ns), min(end_ns, each.end_ns)) for each in spans])
        inside = sum(end - begin for begin, end in windows)
        self.during.seconds += inside / 1e9
        self.otherwise.seconds += (end_ns - begin_ns - inside) / 1e9
        for came, took in answered:
            if not begin_ns <= came < end_ns:
                continue
            touched = any(came >= begin and came - took < end for begin, end in windows)
            (self.during if touched else self.otherwise).taken_ns.append(took)
            within = any(begin <= came < end for begin, end in windows)
            (self.during if within else self.otherwise).answers += 1

    def report(self) -> dict[str, Any]:
        """``dip`` is the share of the usual rate that is missing during a refresh; below 0: nothing is."""
        rate, usual = self.during.rate, self.otherwise.rate
        return {
            "during": self.during.report(),
            "otherwise": self.otherwise.report(),
            "dip": round(1 - rate / usual, 4) if rate is not None and usual else None,
        }


def _joined(windows: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same moments, none twice."""
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(window for window in windows if window[0] < window[1]):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined
