"""Whether this process lives, and whether it can serve: two different questions.

Liveness asks only our own loops, never the broker: a restart mends a loop that hangs, and no broker. Readiness says
whether a request that came now could be helped, and if not, why, in words.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from common.observability.admin import Health
from common.observability.metrics import Metrics

LOOP_TURN_S: Final = 0.5
STALE_S: Final = 30.0
"""A thread of the Kafka client may wait for a broker this long (an offset commit while the coordinator is away)."""


class Heartbeat:
    """The event loop's own pulse, and how late it was."""

    def __init__(self, loop: asyncio.AbstractEventLoop, metrics: Metrics) -> None:
        self._loop = loop
        self._metrics = metrics
        self._last = loop.time()
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """From now on."""
        self._last = self._loop.time()
        self._handle = self._loop.call_later(LOOP_TURN_S, self._tick)

    def stop(self) -> None:
        """No longer."""
        if self._handle is not None:
            self._handle.cancel()

    def _tick(self) -> None:
        now = self._loop.time()
        self._metrics.event_loop_lag.observe(max(0.0, now - self._last - LOOP_TURN_S))
        self._last = now
        self._handle = self._loop.call_later(LOOP_TURN_S, self._tick)


@dataclass(frozen=True, slots=True)
class Facts:
    """What readiness is judged by."""

    broker_up: bool
    positioned: bool
    caught_up: bool
    kept_out: bool
    """The broker does not let us read requests."""
    beats_heard: int
    skew_ms: int
    draining: bool
    keys: Mapping[str, str]
    """Per key of the roster: empty if this seat can sign with it, else the reason."""


BEATS_TO_BE_READY: Final = 3


def readiness(facts: Facts, skew_unready_ms: int) -> Health:
    """Judge ``facts``. Every check is named; its value is ``ok`` or the reason, for a person."""
    checks = {
        "broker": "ok" if facts.broker_up else "no broker answers",
        "positions": "ok" if facts.positioned else "still finding where to read from",
        "ceremony-log": "ok" if facts.caught_up else "still reading the ceremony log",
        "requests": "the broker does not allow us to read them; see the log" if facts.kept_out else "ok",
        "presence": "ok" if facts.beats_heard >= BEATS_TO_BE_READY else "waiting for our own beats to come back",
        "clock": "ok" if abs(facts.skew_ms) < skew_unready_ms else f"off by {facts.skew_ms} ms from the broker's",
        "draining": "this replica is shutting down" if facts.draining else "ok",
    }
    for key_id, reason in facts.keys.items():
        checks[f"key {key_id}"] = reason or "ok"
    if not facts.keys:
        checks["keys"] = "no roster with keys is known yet"
    serving = any(not reason for reason in facts.keys.values())
    process = all(value == "ok" for name, value in checks.items() if not name.startswith("key"))
    # One key that waits for its ceremony must not take a replica from the others that it can serve.
    return Health(process and serving, checks)


def liveness(threads: Callable[[], Mapping[str, float]], now: Callable[[], float], dead: Callable[[], str]) -> Health:
    """Judge the Kafka threads by their last turn (``time.monotonic()``); the event loop lives if this runs at all."""
    at = now()
    checks = {
        name: "ok" if at - turn < STALE_S else f"no turn for {at - turn:.0f} s" for name, turn in threads().items()
    }
    checks["machines"] = dead() or "ok"
    return Health(all(value == "ok" for value in checks.values()), checks)
