"""Our own beats on the presence topic: every 500 ms, and at once when something changes that others act on.

Requests go where presence says that a partition is read, so a beat that is late costs a request its time. That is why
the timer is kept from drifting, and a change does not wait for the next beat.
"""

import asyncio
from collections.abc import Callable

from common.clock_skew import SkewMeter
from common.errors import Unavailable
from common.ids import Instant
from common.kafka.hearing import Hearing
from common.kafka.port import Delivery, Producer
from common.observability.metrics import Metrics
from common.wire import codec
from common.wire.envelope import Signer, seal
from common.wire.messages import KeyPresence, Presence, ReplicaState
from signer_service.shell.sources import Sources


class Beats:
    """Sends beats from ``start`` to ``stop``. ``keys``, ``load`` and ``state`` are asked anew for each.

    ``load`` gives (partitions ascending, items in flight, queue wait in ms, nonces left).
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        producer: Producer,
        signer: Signer,
        topic: str,
        sources: Sources,
        metrics: Metrics,
        every_ms: int,
        state: Callable[[], ReplicaState],
        load: Callable[[], tuple[tuple[int, ...], int, int, int]],
        keys: Callable[[], tuple[KeyPresence, ...]],
        skew: SkewMeter,
        on_bug: Callable[[BaseException], None],
        hearing: Hearing,
    ) -> None:
        self._loop = loop
        self._producer = producer
        self._signer = signer
        self._topic = topic
        self._sources = sources
        self._metrics = metrics
        self._every_s = every_ms / 1000
        self._state = state
        self._load = load
        self._keys = keys
        self._skew = skew
        self._on_bug = on_bug
        self._hearing = hearing
        self._started = sources.now()
        self._seq = 0
        self._handle: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._later: asyncio.TimerHandle | None = None
        self.draining = False

    def start(self) -> None:
        """Beat now, and from now on."""
        self._next = self._loop.time()
        self._tick()

    def now(self) -> None:
        """Something changed: beat at the end of this turn of the loop, once, whatever else changes in it."""
        if self._handle is not None and self._soon is None:
            self._soon = self._loop.call_soon(self._beat_soon)

    def within(self, seconds: float) -> None:
        """Something changed that may wait: beat then, unless another beat comes before."""
        if self._handle is not None and self._soon is None and self._later is None:
            self._later = self._loop.call_later(seconds, self._beat)

    def stop(self) -> None:
        """No more beats."""
        for handle in (self._handle, self._soon, self._later):
            if handle is not None:
                handle.cancel()
        self._handle = self._soon = self._later = None

    def _beat_soon(self) -> None:
        self._soon = None
        self._beat()

    def _tick(self) -> None:
        # Counted from the last due time, so that a late turn does not make all later beats later; but never in bursts.
        self._next = max(self._next + self._every_s, self._loop.time() + self._every_s / 2)
        self._handle = self._loop.call_at(self._next, self._tick)
        self._beat()

    def _beat(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        try:
            beat = self._presence(self._sources.now())
            value = seal(self._signer, self._topic, codec.encode(beat))
        except Exception as bug:  # noqa: BLE001 - our own state cannot be told: the process ends
            self._on_bug(bug)
            return
        try:
            self._producer.send(self._topic, value, partition=0, on_delivery=self._count)
        except Unavailable:
            self._metrics.kafka_delivery_failures.labels(topic=self._topic).inc()

    def _presence(self, now: Instant) -> Presence:
        self._seq += 1
        partitions, in_flight, queue_wait_ms, nonces_left = self._load()
        return Presence(
            started_ms=self._started,
            seq=self._seq,
            sent_ms=now,
            state=ReplicaState.DRAINING if self.draining else self._state(),
            draining=self.draining,
            schema_level=codec.SCHEMA_LEVEL,
            partitions=partitions,
            in_flight=in_flight,
            queue_wait_ms=queue_wait_ms,
            nonces_left=nonces_left,
            keys=self._keys(),
            clock_skew_ms=self._skew.skew_ms,
        )

    def _count(self, delivery: Delivery) -> None:
        self._hearing.delivered(delivery)
        if delivery.error is not None:
            self._metrics.kafka_delivery_failures.labels(topic=self._topic).inc()
