"""The real Kafka: a factory that gives each part of a process its client, all with one state and one set of hooks."""

import asyncio
from collections.abc import Callable, Mapping

from common.kafka.admin import RealAdmin
from common.kafka.group import RealGroup
from common.kafka.port import (
    Admin,
    Deliver,
    GroupConsumer,
    GroupListener,
    Hooks,
    OnLost,
    Position,
    Producer,
    TailConsumer,
)
from common.kafka.producer import RealProducer
from common.kafka.settings import KafkaSettings
from common.kafka.state import Connection
from common.kafka.tail import RealTail


class KafkaClient:
    """``port.Kafka`` on confluent-kafka. Made on the running event loop; connects to nothing by itself."""

    def __init__(self, settings: KafkaSettings, hooks: Hooks | None = None) -> None:
        self._settings = settings
        self._connection = Connection(asyncio.get_running_loop(), settings, hooks or Hooks())

    @property
    def settings(self) -> KafkaSettings:
        return self._settings

    def producer(self) -> Producer:
        return RealProducer(self._settings, self._connection.witness("producer"))

    def tail(
        self,
        positions: Mapping[str, Position],
        deliver: Deliver,
        *,
        on_lost: OnLost = OnLost.EARLIEST,
        on_reset_error: Callable[[str, str], None] | None = None,
    ) -> TailConsumer:
        witness = self._connection.witness("tail")
        return RealTail(self._settings, witness, positions, deliver, on_lost, on_reset_error)

    def group(
        self, topic: str, listener: GroupListener, *, member: str | None = None, grace_s: float = 1.0
    ) -> GroupConsumer:
        return RealGroup(self._settings, self._connection.witness("group"), topic, listener, member, grace_s)

    def admin(self) -> Admin:
        return RealAdmin(self._settings)

    def up(self) -> bool:
        return self._connection.up()

    def heartbeats(self) -> Mapping[str, float]:
        return self._connection.heartbeats()
