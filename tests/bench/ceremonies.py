"""Refreshes of a running committee: how long they take, what they cost, and what they cost callers.

Asked for over the API as anybody would, one after another, no sooner than the demo's replicas allow.
"""

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Self
from urllib.parse import urlsplit

from rest_api.demo.plan import MIN_INTERVAL_MS
from tests.bench import accounting, refresh_floor, stats
from tests.bench.dip import Dip, Span
from tests.bench.measure import Measurement, Tools
from tests.bench.plan import Committee
from tests.bench.system import BenchError, System

WITHIN_S = 60.0
"""A refresh that takes longer will not come."""
LOOK_S = 0.02
"""How often a pod is asked whether it believes the new epoch: seldom enough to be no load by itself."""
AGAIN_S = 0.1
QUIET_S = 2.0
"""CPU is counted over a refresh, so long at least, and over as long a time before it in which nothing happens."""
SETTLE_S = 1.0
"""What follows a commit: old shares erased, and the word that they are; new stocks of nonces; copies looked at."""
LEAD_S = 2.0
"""Of load before the first refresh; the first second of it does not count."""
EVERY_S = 3.0
"""Under load a refresh begins so often: a second of it, two without."""
IN_ONE_PHASE = 20
"""Refreshes in one phase of load: each of its answers is kept until the end."""


class Key:
    """The default key, as one pod has it, over one connection."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=WITHIN_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _ask(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        try:
            self._connection.request(method, path)
            answer = self._connection.getresponse()
            body: dict[str, Any] = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BenchError(f"{method} {path}: {error!r}") from None
        return answer.status, body

    def epoch(self) -> int:
        """The epoch whose key record the pod believes."""
        status, body = self._ask("GET", "/v1/keys/default")
        if status != 200:
            raise BenchError(f"GET /v1/keys/default: {status} {body.get('type')}")
        return int(body["epoch"])

    def refresh(self, begins: Callable[[], None] = lambda: None) -> Span:
        """Ask for a refresh and wait until the pod believes the new epoch. ``begins`` is called just before each ask.

        Raises:
            BenchError: it was refused for good, or took too long.
        """
        end = time.monotonic() + WITHIN_S
        was = self.epoch()
        while True:
            begins()
            asked = time.perf_counter_ns()
            status, body = self._ask("POST", "/v1/keys/default/refresh")
            if status == 202:
                break
            if status not in {409, 503} or time.monotonic() > end:
                raise BenchError(f"no refresh: {status} {body.get('type')}: {body.get('detail')}")
            time.sleep(AGAIN_S)
        while self.epoch() == was:
            if time.monotonic() > end:
                raise BenchError(f"a refresh that was accepted has not ended within {WITHIN_S:.0f} s")
            time.sleep(LOOK_S)
        return Span(asked, time.perf_counter_ns())


@dataclass(frozen=True, slots=True)
class Idle:
    """One refresh of a system that has nothing else to do. CPU of all its replicas together."""

    wall_ms: float
    cpu_ms: float
    """Over the refresh, less what the same time costs without one."""
    idle_cpu_ms_per_s: float


def summary(committee: Committee, found: list[Idle], costs_us: list[dict[str, float]]) -> dict[str, Any]:
    """Several refreshes in numbers. ``costs_us``: of each operation of the floor, taken between them."""
    t, n = committee.threshold, committee.signers
    cost_us = {name: round(median(each[name] for each in costs_us), 3) for name in costs_us[0]}
    floor_ms = refresh_floor.per_replica_ms(t, n, cost_us)
    floors_ms = [refresh_floor.per_replica_ms(t, n, each) for each in costs_us]
    cpu_ms = median(each.cpu_ms for each in found) / n
    return {
        "refreshes": len(found),
        "wall_ms": [round(each.wall_ms, 1) for each in found],
        "wall_median_ms": round(median(each.wall_ms for each in found), 1),
        "wall_worst_ms": round(max(each.wall_ms for each in found), 1),
        "cpu_ms_per_replica": round(cpu_ms, 2),
        "idle_cpu_ms_per_s": round(median(each.idle_cpu_ms_per_s for each in found) / n, 2),
        "floor_ms": round(floor_ms, 2),
        "floor_spread": round(stats.spread(floors_ms), 3),
        "noisy": stats.noisy(floors_ms),
        "ratio": round(cpu_ms / floor_ms, 2),
        "cost_us": cost_us,
        "counts": {step: counts.named() for step, counts in refresh_floor.steps(t, n).items()},
    }


class Ceremonies:
    """Refreshes of one system."""

    def __init__(self, tools: Tools, system: System, committee: Committee, measurement: Measurement) -> None:
        self._tools, self._system, self._committee, self._measurement = tools, system, committee, measurement
        self._signers = [pid for name, pid in system.pids.items() if accounting.role(name) == "signer"]

    def idle(self, count: int) -> dict[str, Any]:
        """``count`` refreshes with nobody else about.

        Raises:
            BenchError: one did not come, or a process is gone.
        """
        found, costs = [], []
        for _ in range(count):
            with Key(self._system.urls[0]) as key:
                found.append(self._one(key))
            self._tools.floor.tell({"operations": True})
            costs.append(self._tools.floor.hear(20.0)["cost_us"])
        told = summary(self._committee, found, costs)
        self._tools.say(
            f"  {count} refreshes, idle: {told['wall_median_ms']:.0f} ms, at worst {told['wall_worst_ms']:.0f}; "
            f"CPU per replica {told['cpu_ms_per_replica']:.1f} ms, floor {told['floor_ms']:.1f}"
        )
        return told

    def _cpu_ms(self) -> float:
        try:
            return sum(map(accounting.cpu_clock_ms, self._signers))
        except OSError as gone:
            raise BenchError(f"refresh: a replica ended: {gone}") from None

    def _one(self, key: Key) -> Idle:
        began, quiet = time.perf_counter_ns(), self._cpu_ms()
        time.sleep(QUIET_S)
        per_s = (self._cpu_ms() - quiet) / (time.perf_counter_ns() - began) * 1e9
        before = 0.0

        def begins() -> None:
            nonlocal before
            before = self._cpu_ms()

        span = key.refresh(begins)
        end_ns = max(span.asked_ns + int(QUIET_S * 1e9), span.believed_ns + int(SETTLE_S * 1e9))
        _sleep_until(end_ns)
        seconds = (time.perf_counter_ns() - span.asked_ns) / 1e9
        return Idle(span.wall_ms, self._cpu_ms() - before - per_s * seconds, per_s)

    def under_load(self, what: str, count: int, kind: str, **load: Any) -> dict[str, Any]:
        """Refreshes while callers sign.

        Args:
            what: Which load, for whoever watches.
            count: How many refreshes.
            kind: As the load client knows it, and ``load`` what else it is told.

        Raises:
            BenchError: one did not come, or a process is gone.
        """
        dip, walls = Dip(), list[float]()
        totals = {"ok": 0, "wrong": 0}
        failed: dict[str, int] = {}
        while len(walls) < count:
            spans: list[Span] = []
            phase = self._phase(what, min(IN_ONE_PHASE, count - len(walls)), kind, load, spans)
            begun = phase["begun_ns"]
            answered = ((begun + 1000 * came, 1000 * took) for came, took in _pairs(phase))
            dip.add(begun + 10**9, begun + int(phase["seconds"] * 1e9), answered, spans)
            walls += [each.wall_ms for each in spans]
            for name in totals:
                totals[name] += phase[name]
            for reason, number in phase["failed"].items():
                failed[reason] = failed.get(reason, 0) + number
        told = {"refreshes": len(walls), **totals, "failed": failed, **dip.report()}
        told |= {"wall_median_ms": round(median(walls), 1), "wall_worst_ms": round(max(walls), 1)}
        during, otherwise = told["during"], told["otherwise"]
        self._tools.say(
            f"    {len(walls)} refreshes: {during['rate_per_s']}/s during, {otherwise['rate_per_s']}/s otherwise, "
            f"p99 {(during['latency'] or {}).get('p99_ms')} and {(otherwise['latency'] or {}).get('p99_ms')} ms"
        )
        return told

    def _phase(self, what: str, count: int, kind: str, load: dict[str, Any], spans: list[Span]) -> dict[str, Any]:
        seconds = LEAD_S + count * EVERY_S
        end = time.monotonic() + seconds

        def refreshes() -> None:
            time.sleep(LEAD_S)
            with Key(self._system.urls[0]) as key:
                for _ in range(count):
                    spans.append(key.refresh())
                    _sleep_until(
                        max(
                            spans[-1].asked_ns + int(EVERY_S * 1e9),
                            spans[-1].believed_ns + MIN_INTERVAL_MS * 1_000_000,
                        )
                    )
                    if time.monotonic() > end - EVERY_S / 2:
                        return  # slow ones: the rest with the next phase's load

        return self._measurement.phase(f"refreshes, {what}", kind, seconds, meanwhile=refreshes, each=True, **load)


def _pairs(phase: dict[str, Any]) -> list[tuple[int, int]]:
    return list(zip(phase["came_us"], phase["took_us"], strict=True))


def _sleep_until(moment_ns: int) -> None:
    time.sleep(max(0.0, (moment_ns - time.perf_counter_ns()) / 1e9))
