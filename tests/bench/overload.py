"""More than the system can do, for a while, and what callers see of it: what is owed, and how it is counted.

Asked is an open loop at three times the capacity that was measured just before. A request is *taken* unless it is
refused (503 or 429) or never sent, because thousands before it had no answer; one that was taken and got no signature
ended late. Refusals have latencies of their own.

All of it shares the cores of one machine, and signers that have more to do than there is time for would take what the
pod needs to say no, and the client to ask. In a cluster they cannot: each pod has its share. So here they yield.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.bench import accounting, stats
from tests.bench.load import NEVER_SENT
from tests.bench.measure import Measurement
from tests.bench.system import System, scrape

TIMES: Final = 3.0
CONNECTIONS: Final = 3_500
"""Fewer than a pod keeps open."""
DEADLINE_MS: Final = 5_000.0
SETTLE_S: Final = 5.0
AFTER_S: Final = 12.0
YIELDING: Final = 10
"""Niceness of the signers and the broker: a tenth of the weight of the pod and the load client, while those want it."""
_REFUSED: Final = ("503", "429")
_AGAIN = "signer_flow_resends_total"


def measure(measured: Measurement, running: System, capacity: float, seconds: float) -> dict[str, Any]:
    """Ask ``TIMES`` of ``capacity`` (signatures a second) for ``seconds``, then half of it; returns both phases."""
    for name, pid in running.pids.items():
        if accounting.role(name) != "api":
            accounting.make_yield(pid, YIELDING)
    half = measured.phase("half load, before", "open", AFTER_S, rate=max(1.0, capacity / 2))
    before = [stats.scrape(text) for text in scrape(running.scrapes)]
    over = measured.phase(
        f"{TIMES:.0f} times the capacity", "open", seconds, rate=TIMES * capacity, connections=CONNECTIONS
    )
    after = [stats.scrape(text) for text in scrape(running.scrapes)]
    grown = [stats.growth(old, new) for old, new in zip(before, after, strict=True)]
    again = sum(value for each in grown for name, value in each.items() if name.startswith(_AGAIN))
    rest = measured.phase("half load, right after", "open", AFTER_S, rate=max(1.0, capacity / 2), each=True)
    return {"capacity_per_s": capacity, **judged(half, over, rest, capacity), "resent": again}


def judged(
    half: Mapping[str, Any], over: Mapping[str, Any], rest: Mapping[str, Any], capacity: float
) -> dict[str, Any]:
    """The figures that are owed, from what the load client said of the three phases."""
    failed: Mapping[str, int] = over["failed"]
    refused = sum(count for reason, count in failed.items() if reason.startswith(_REFUSED))
    unsent = failed.get(NEVER_SENT, 0)
    late = sum(failed.values()) - refused - unsent
    taken = over["ok"] + late
    settled = [
        took * 1_000
        for came, took in zip(rest["came_us"], rest["took_us"], strict=True)
        if came - took >= SETTLE_S * 1_000_000
    ]
    return {
        "offered_per_s": over["offered_per_s"],
        "goodput_share": over["rate_per_s"] / capacity,
        "taken": taken,
        "refused": refused,
        "unsent_share": unsent / max(1, taken + refused + unsent),
        "late_share": late / max(1, taken),
        "signed_p99_ms": (over["latency"] or {}).get("p99_ms"),
        "refused_p99_ms": (over["refused_latency"] or {}).get("p99_ms"),
        "without_retry_after": over["without_retry_after"],
        "before_p99_ms": (half["latency"] or {}).get("p99_ms"),
        "after_p99_ms": (stats.latencies(settled) or {}).get("p99_ms"),
        "after_failed": sum(rest["failed"].values()),
        "reasons": dict(failed),
    }


def lines(found: Mapping[str, Any]) -> Sequence[tuple[str, str, str, str]]:
    """What was measured, what must be, and whether it is: a row of a table each."""

    def row(label: str, value: float | None, form: str, must: str, good: bool) -> tuple[str, str, str, str]:
        return label, "-" if value is None else format(value, form), must, "must" if good else "missed"

    share, late = found["goodput_share"], found["late_share"]
    signed, refused = found["signed_p99_ms"], found["refused_p99_ms"]
    before, after = found["before_p99_ms"], found["after_p99_ms"]
    again = found["resent"] / max(1, found["taken"])
    normal = after is not None and before is not None and after <= max(2 * before, before + 50.0)
    return (
        ("offered, requests/s", f"{found['offered_per_s']:.0f}", "", ""),
        row("signed in time, of the capacity", share, ".0%", ">= 60%", share >= 0.6),
        row("p99 of what was signed, ms", signed, ".0f", "< 5000", signed is not None and signed < DEADLINE_MS),
        row("taken, and ended without a signature", late, ".2%", "<= 1%", late <= 0.01),
        ("refused", f"{found['refused']}", "", ""),
        row(
            "never sent: every connection waited", found["unsent_share"], ".1%", "<= 5%", found["unsent_share"] <= 0.05
        ),
        row("p99 of a refusal, ms", refused, ".0f", "at once: < 500", refused is not None and refused < 500),
        row("refused without Retry-After", found["without_retry_after"], "d", "0", found["without_retry_after"] == 0),
        row("sent again, of what was taken", again, ".1%", "< 10%", again < 0.1),
        row("half load, 5 s after its end: p99, ms", after, ".0f", f"as before: {before or 0:.0f}", normal),
    )
