"""The producer, with patience: what must not be lost to a full queue is tried again, in order, for a while."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from common.errors import Unavailable
from common.kafka.port import Delivery, Headers, Producer
from common.observability.metrics import Metrics

RETRY_S: Final = 0.05
GIVE_UP_S: Final = 5.0
"""As long as the producer itself tries."""
AGAIN_S: Final = 1.0
INSIST_S: Final = 60.0
"""How long what has to be written is sent again. Where its topic takes nothing at all, what waits for it would else be
all our memory."""


@dataclass(slots=True)
class _Waiting:
    """Something that found the producer full."""

    topic: str
    value: bytes
    partition: int | None
    headers: Headers
    final: Callable[[Delivery | None], None]
    until: float


class PatientSender:
    """Sends records, and counts those that nobody confirmed. On the event loop only."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        producer: Producer,
        metrics: Metrics,
        on_bug: Callable[[BaseException], None],
    ) -> None:
        self._loop = loop
        self._producer = producer
        self._metrics = metrics
        self._on_bug = on_bug
        self._waiting: deque[_Waiting] = deque()

    @property
    def idle(self) -> bool:
        """Whether nothing waits for the producer."""
        return not self._waiting

    def send(
        self,
        topic: str,
        value: bytes,
        partition: int | None,
        headers: Headers,
        final: Callable[[Delivery | None], None],
    ) -> None:
        """Send a record after all that waits. ``final`` is called once: with its outcome, or None if it was given up.

        Args:
            topic: Where to.
            value: The record.
            partition: None: any.
            headers: In this order.
            final: Must not raise.
        """
        item = _Waiting(topic, value, partition, headers, final, self._loop.time() + GIVE_UP_S)
        if self._waiting:
            self._waiting.append(item)
        elif not self._sent(item):
            self._waiting.append(item)
            self._loop.call_later(RETRY_S, self._guarded_retry)

    def insist(self, topic: str, value: bytes, final: Callable[[Delivery | None], None]) -> None:
        """Send a record again and again until a broker has it, for ``INSIST_S``; ``final`` is called once.

        Args:
            topic: Where to; any partition.
            value: The record. It may be there twice: of a failure nobody knows whether it was written.
            final: Must not raise.
        """
        until = self._loop.time() + INSIST_S

        def outcome(delivery: Delivery | None) -> None:
            written = delivery is not None and delivery.error is None
            if written or self._loop.time() >= until:
                final(delivery)
            else:
                self._loop.call_later(AGAIN_S, attempt)

        def attempt() -> None:
            self.send(topic, value, None, (), outcome)

        attempt()

    def send_once(self, topic: str, value: bytes, partition: int, headers: Headers) -> None:
        """Send a record now or never: whoever waits for it can do without."""
        try:
            self._producer.send(topic, value, partition=partition, headers=headers, on_delivery=self._count)
        except Unavailable:
            self._metrics.kafka_delivery_failures.labels(topic=topic).inc()

    def _guarded_retry(self) -> None:
        try:
            self._retry()
        except Exception as bug:  # noqa: BLE001 - nobody would try again, and all else waits behind it: the process ends
            self._on_bug(bug)

    def _retry(self) -> None:
        now = self._loop.time()
        while self._waiting:
            item = self._waiting[0]
            if not self._sent(item):
                if now < item.until:
                    self._loop.call_later(RETRY_S, self._guarded_retry)
                    return
                item.final(None)
            self._waiting.popleft()

    def _sent(self, item: _Waiting) -> bool:
        """Whether it is dealt with: handed over, or hopeless. False: the producer is full."""

        def on_delivery(delivery: Delivery) -> None:
            self._count(delivery)
            item.final(delivery)

        try:
            self._producer.send(
                item.topic, item.value, partition=item.partition, headers=item.headers, on_delivery=on_delivery
            )
        except Unavailable as error:
            if error.code == "producer-full":
                return False
            self._metrics.kafka_delivery_failures.labels(topic=item.topic).inc()
            item.final(None)
        return True

    def _count(self, delivery: Delivery) -> None:
        if delivery.error is not None:
            self._metrics.kafka_delivery_failures.labels(topic=delivery.topic).inc()
