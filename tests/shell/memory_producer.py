"""A producer that remembers: for what a real broker cannot be made to do on demand (be full, lose a report)."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import BadInput, Unavailable
from common.kafka.port import Delivery, OnDelivery
from common.wire.topics import MAX_SENT_BYTES


@dataclass(frozen=True, slots=True)
class Sent:
    topic: str
    value: bytes
    key: bytes | None
    partition: int | None
    headers: tuple[tuple[str, bytes], ...]
    on_delivery: OnDelivery | None

    def deliver(self, error: str | None = None) -> None:
        if self.on_delivery is not None:
            self.on_delivery(Delivery(self.topic, 0, 1, error))


class MemoryProducer:
    """``port.Producer`` whose outcomes the test decides."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.refuse_with: str | None = None

    def start(self) -> None:
        pass

    def send(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        on_delivery: OnDelivery | None = None,
    ) -> None:
        if self.refuse_with is not None:
            raise Unavailable(self.refuse_with, "as the test wants")
        if len(value) + sum(len(name) + len(text) for name, text in headers) > MAX_SENT_BYTES:
            raise BadInput("record-too-large", "as the real one says")
        self.sent.append(Sent(topic, value, key, partition, tuple(headers), on_delivery))

    def outstanding(self) -> int:
        return len(self.sent)

    async def flush(self, timeout_s: float) -> int:
        return 0

    async def close(self) -> None:
        pass

    def on(self, topic: str) -> list[Sent]:
        return [sent for sent in self.sent if sent.topic == topic]
