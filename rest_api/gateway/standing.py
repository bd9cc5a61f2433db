"""How a pod stands: whether it can take a request now, and what it says of itself to probes and in metrics.

Everything is answered out of what is known here already: whoever asks never waits for the broker.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from common.errors import Unavailable
from common.kafka.port import Kafka
from common.observability.metrics import Metrics
from rest_api.correlation import Correlation
from rest_api.gateway.beats import Pods
from rest_api.gateway.config import GatewayConfig
from rest_api.gateway.key_directory import KeyDirectory
from rest_api.gateway.readers import Readers
from rest_api.gateway.routing import RoutingTable

LIST_AFTER_S: Final = 1.5
"""After so long without three beats of anybody, nobody is there: the table is as good as it will be."""
MOST_OF_A_DEADLINE: Final = 2 / 5
"""Who would wait for longer than this part of his time for those before him is refused at once. Signers turn to the
newest once somebody has waited for half of his time: whoever was taken with more before him would be the one passed by.
"""


class Standing:
    """Asks the parts of the gateway; holds how far its end has come, and when its loop turned last."""

    def __init__(
        self,
        kafka: Kafka,
        config: GatewayConfig,
        readers: Readers,
        correlation: Correlation,
        routing: RoutingTable,
        keys: KeyDirectory,
        pods: Pods,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._kafka = kafka
        self._config = config
        self._readers = readers
        self._correlation = correlation
        self._routing = routing
        self._keys = keys
        self._pods = pods
        self._metrics = metrics
        self._clock = clock
        self._last_turn = clock()
        self._takes_until = 0.0
        self.draining = asyncio.Event()
        """We were told to end."""
        self.queue_wait_ms = 0
        """How far the least busy live signer is behind, by its last beat; 0 when none is live."""

    def drain(self, last_orders_s: float) -> None:
        """We go away; requests of clients who do not know of it yet are taken for ``last_orders_s``."""
        self._takes_until = self._clock() + last_orders_s
        self.draining.set()

    def turned(self, now: float) -> float:
        """The loop turned. Returns how many seconds after the turn before."""
        since, self._last_turn = now - self._last_turn, now
        return since

    # --- requests

    def admit(self, timeout_ms: int) -> None:
        """Whether a request could be taken now; asked before its body is read.

        Raises:
            Unavailable: with a code of the table of problems.
        """
        self.can_take(timeout_ms)
        # At the door only: items of a batch that was let in wait for their turn, and have that much less time then.
        if (wait_s := self._correlation.wait_s()) * 1000 > timeout_ms * MOST_OF_A_DEADLINE:
            raise Unavailable("overloaded", f"what is under way will take {wait_s:.1f} s, more than there is time for")

    def can_take(self, timeout_ms: int) -> None:
        """Whether one more item can be sent now.

        Raises:
            Unavailable: as ``admit``, but for a wait that is too long.
        """
        if self.draining.is_set() and self._clock() >= self._takes_until:
            raise Unavailable("shutting-down", "this pod is going away; another one will take the request")
        if self._readers.positioned_at is None:
            raise Unavailable("not-ready", "this pod has not found its place in its topics yet")
        if not self._kafka.up():
            raise Unavailable("broker-unavailable", "the message broker cannot be reached")
        if self.full():
            raise Unavailable("in-flight-limit", self._config.full_detail)
        if self.queue_wait_ms > timeout_ms / 4:
            raise Unavailable("overloaded", f"the least busy signer is {self.queue_wait_ms} ms behind")

    def full(self) -> bool:
        """Whether as much is under way as may be."""
        return len(self._correlation) >= self._config.pending_limit

    # --- probes and metrics

    def readiness(self) -> dict[str, str]:
        """What keeps us from serving, by name; empty when nothing does."""
        wrong: dict[str, str] = {}
        if self.draining.is_set():
            wrong["draining"] = "this pod is going away"
        if self._readers.positioned_at is None:
            wrong["position"] = f"not positioned on {self._readers.replies}"
        elif not self._routing.settled() and self._clock() - self._readers.positioned_at < LIST_AFTER_S:
            wrong["presence"] = "listening for the signers"
        if not self._kafka.up():
            wrong["broker"] = "cannot be reached"
        if not self._keys.all():
            wrong["key"] = "no key is known yet"
        if self.full():
            wrong["pending"] = "the in-flight limit is reached"
        if self._pods.must_yield():
            wrong["index"] = f"an older pod has the index {self._config.index}"
        return wrong

    def silence_s(self) -> float:
        """Seconds since the last turn of our own loop."""
        return self._clock() - self._last_turn

    def heartbeats(self) -> dict[str, float]:
        """Seconds since the last turn of each client thread."""
        now = time.monotonic()
        return {name: now - at for name, at in self._kafka.heartbeats().items()}

    def observe(self) -> None:
        """Set the gauges; called when somebody looks."""
        self._metrics.pending_items.set(len(self._correlation))
        self._metrics.kafka_up.set(1 if self._kafka.up() else 0)
        for seat in self._routing.seats:
            self._metrics.presence_age.labels(role="signer", seat=seat).set(self._routing.silence_ms(seat) / 1000)
        self._metrics.clock_skew.set(self._pods.skew.skew_ms / 1000)
        for index, age in self._pods.silence_s().items():
            self._metrics.presence_age.labels(role="api", seat=index).set(age)
        for record in self._keys.all():
            self._metrics.key_epoch.labels(key_id=record.key_id).set(record.epoch)
