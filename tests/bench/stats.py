"""Arithmetic on measurements: percentiles, spread, and means out of Prometheus' histograms."""

import math
import re
from collections.abc import Mapping, Sequence
from statistics import median

NOISY_ABOVE = 0.15
"""A floor that moves by more than this share during a run says that the machine was not ours alone."""

_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")


def percentile(ascending: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that at least ``share`` (0..1] of all values do not exceed.

    Raises:
        ValueError: no values, or a share outside (0, 1].
    """
    if not ascending:
        raise ValueError("no values")
    if not 0 < share <= 1:
        raise ValueError(f"a share is in (0, 1], not {share}")
    return ascending[math.ceil(share * len(ascending)) - 1]


def latencies(values_ns: Sequence[int]) -> dict[str, float] | None:
    """p50, p95, p99 and the largest, in milliseconds; None without values."""
    if not values_ns:
        return None
    ascending = sorted(values_ns)
    named = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: round(percentile(ascending, share) / 1e6, 3) for name, share in named.items()}


def spread(values: Sequence[float]) -> float:
    """How far the values lie apart, as a share of their median; 0 for fewer than two."""
    return (max(values) - min(values)) / median(values) if len(values) > 1 else 0.0


def noisy(floors: Sequence[float]) -> bool:
    """Whether figures measured beside these floors should not be believed."""
    return spread(floors) > NOISY_ABOVE


def scrape(text: str) -> dict[str, float]:
    """Samples of Prometheus' text format, by name and label part as they stand there."""
    found = {}
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is not None:
            name, labels, value = match.groups()
            found[f"{name}{{{labels}}}" if labels else name] = float(value)
    return found


def growth(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What each sample grew by; one that was not there before began at 0."""
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def histogram_means(grown: Sequence[Mapping[str, float]], metric: str) -> dict[str, float]:
    """Mean of a histogram per label part (``""`` without labels), all processes together; only where it was counted."""
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    for process in grown:
        for name, value in process.items():
            base, _, labels = name.partition("{")
            if base == f"{metric}_sum":
                sums[labels.rstrip("}")] = sums.get(labels.rstrip("}"), 0.0) + value
            elif base == f"{metric}_count":
                counts[labels.rstrip("}")] = counts.get(labels.rstrip("}"), 0.0) + value
    return {labels: sums.get(labels, 0.0) / count for labels, count in counts.items() if count > 0}
