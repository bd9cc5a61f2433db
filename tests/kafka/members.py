"""What the contract tests watch: a client that remembers, a member of the group that can be told how to behave."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from confluent_kafka import Consumer, TopicPartition

from common.kafka.client import KafkaClient
from common.kafka.port import Admin, Delivery, GroupConsumer, Hooks, OnLost, Position, Producer, Record, TailConsumer
from common.kafka.settings import KafkaSettings
from common.wire import topics
from tests.brokers import until


def failures_of(kafka: KafkaClient) -> list[str]:
    """The names of the errors that its clients meet while they connect, from now on."""
    trouble = kafka._connection.trouble
    met: list[str] = []
    told = trouble.failed

    def noted(name: str, text: str) -> None:
        met.append(name)
        told(name, text)

    trouble.failed = noted  # type: ignore[method-assign]
    return met


class Client:
    """A ``KafkaClient`` with all its hooks watched, which closes what it made, newest first."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.states: list[bool] = []
        self.fatal: list[str] = []
        self.expected_fatal: list[str] = []
        self.statistics: list[str] = []
        hooks = Hooks(self.states.append, self.fatal.append, lambda name, _: self.statistics.append(name))
        self.kafka = KafkaClient(settings, hooks)
        self._made: list[Producer | TailConsumer | GroupConsumer | Admin] = []

    def producer(self) -> Producer:
        made = self.kafka.producer()
        made.start()
        self._made.append(made)
        return made

    async def tail(
        self,
        positions: Mapping[str, Position],
        deliver: Callable[[Sequence[Record]], None],
        on_lost: OnLost = OnLost.EARLIEST,
        on_reset_error: Callable[[str, str], None] | None = None,
    ) -> TailConsumer:
        made = self.kafka.tail(positions, deliver, on_lost=on_lost, on_reset_error=on_reset_error)
        self._made.append(made)
        await made.start()
        return made

    async def member(self, topic: str, listener: "Member", member: str | None = None, grace_s: float = 1.0) -> "Member":
        listener.consumer = self.kafka.group(topic, listener, member=member, grace_s=grace_s)
        self._made.append(listener.consumer)
        await listener.consumer.start()
        return listener

    def admin(self) -> Admin:
        made = self.kafka.admin()
        self._made.append(made)
        return made

    async def close(self) -> None:
        for made in reversed(self._made):
            await made.close()


class Member:
    """Listens as a member of the group: remembers, and stores what it finished when told to."""

    def __init__(self, finish: bool = True) -> None:
        self.consumer: GroupConsumer
        self.finish = finish
        self.records: list[Record] = []
        self.assigned: list[frozenset[int]] = []
        self.revoked: list[frozenset[int]] = []
        self.lost: list[frozenset[int]] = []
        self.before_revoke: Callable[[frozenset[int]], None] | None = None
        self.never_lets_go = False

    def deliver(self, records: Sequence[Record]) -> None:
        self.records += records
        if self.finish:
            for record in records:
                self.consumer.store(record.partition, record.offset + 1)

    def on_assigned(self, partitions: frozenset[int]) -> None:
        self.assigned.append(partitions)

    async def on_revoked(self, partitions: frozenset[int]) -> None:
        self.revoked.append(partitions)
        if self.never_lets_go:
            await asyncio.Event().wait()
        if self.before_revoke is not None:
            self.before_revoke(partitions)

    def on_lost(self, partitions: frozenset[int]) -> None:
        self.lost.append(partitions)

    @property
    def held(self) -> frozenset[int]:
        return self.consumer.assigned()

    def values(self) -> list[bytes]:
        return [record.value for record in self.records]


async def written(producer: Producer, topic: str, values: Sequence[bytes], partition: int = 0) -> list[Delivery]:
    """Write values in order, and wait until the broker has them."""
    outcomes: list[Delivery] = []
    for value in values:
        producer.send(topic, value, partition=partition, on_delivery=outcomes.append)
    await until(lambda: len(outcomes) == len(values), "the delivery reports")
    assert [outcome.error for outcome in outcomes] == [None] * len(values)
    return outcomes


async def turned(client: Client) -> None:
    """Wait until every client thread has made two more turns, so that it has done what it was told before."""
    for _ in range(2):
        before = dict(client.kafka.heartbeats())
        await until(partial(_all_later, client, before), "a turn of every thread")


def _all_later(client: Client, before: Mapping[str, float]) -> bool:
    now = client.kafka.heartbeats()
    return all(now[name] > then for name, then in before.items())


async def committed(settings: KafkaSettings, topic: str, partition: int) -> int:
    """The group's committed offset, asked by a stranger; negative: none."""

    def ask() -> int:
        group = topics.signer_group(settings.topic_prefix)
        consumer = Consumer({"bootstrap.servers": settings.bootstrap, "group.id": group})
        try:
            [found] = consumer.committed([TopicPartition(topic, partition)], 5.0)
        finally:
            consumer.close()
        return found.offset

    return await asyncio.to_thread(ask)
