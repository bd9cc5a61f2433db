"""A Consumer that does in each poll what the test has written down: for what no broker can be made to do on demand."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeAlias

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, TopicPartition


class Message:
    """A record, or an error in the place of one."""

    def __init__(self, partition: int, offset: int, error: KafkaError | None = None) -> None:
        self._partition, self._offset, self._error = partition, offset, error

    def error(self) -> KafkaError | None:
        return self._error

    def topic(self) -> str:
        return "signer.v1"

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_NOT_AVAILABLE, 0

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes:
        return b"%d" % self._offset

    def headers(self) -> None:
        return None


Step: TypeAlias = "Callable[[Scripted], Message | None]"


class Scripted:
    """In the place of ``owner.Consumer``. Each poll of any of them takes the next step; then nothing comes."""

    steps: ClassVar[deque[Step]] = deque()
    made: ClassVar[list["Scripted"]] = []

    def __init__(self, config: object, logger: object) -> None:
        self.paused: set[int] = set()
        self.stored: list[tuple[int, int]] = []
        Scripted.made.append(self)

    def subscribe(self, names: list[str], on_assign: Any, on_revoke: Any, on_lost: Any) -> None:
        self._assign, self._revoke, self._lose = on_assign, on_revoke, on_lost

    def assign(self, *numbers: int) -> None:
        """The group gives us these."""
        self._assign(self, _named(numbers))

    def revoke(self, *numbers: int) -> None:
        """The group takes these from us, and waits."""
        self._revoke(self, _named(numbers))

    def lose(self, *numbers: int) -> None:
        """These are somebody else's already."""
        self._lose(self, _named(numbers))

    def poll(self, timeout: float) -> Message | None:
        if Scripted.steps:
            return Scripted.steps.popleft()(self)
        time.sleep(0.001)
        return None

    def consume(self, count: int, timeout: float) -> list[Message]:
        return []

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.paused |= {each.partition for each in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.paused -= {each.partition for each in partitions}

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        """The client library remembers what was paused."""

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        """As above."""

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        return 0, 0

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [TopicPartition(each.topic, each.partition, 0) for each in partitions]

    def store_offsets(self, offsets: list[TopicPartition]) -> None:
        self.stored += [(each.partition, each.offset) for each in offsets]

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        pass

    def close(self) -> None:
        pass


def _named(numbers: Iterable[int]) -> list[TopicPartition]:
    return [TopicPartition("signer.v1", number) for number in numbers]
