"""The reader of whole topics: explicit assignment, no group.

Assigned is not ready: with ``auto.offset.reset=latest`` the start would be looked up some time after assignment, and
answers written in between would be lost. So the watermarks are asked first, assigned explicitly, and only then is
``start()`` over.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from common.errors import BadInput, Unavailable
from common.kafka import options
from common.kafka.owner import DENIED, TOPIC_MISSING, TRANSIENT, Owner
from common.kafka.port import At, Deliver, OnLost, Position, Record, Start, Watermarks
from common.kafka.settings import KafkaSettings
from common.kafka.state import Witness
from common.kafka.trouble import not_allowed

START_S = 30.0
MISSING_S = 10.0
CLOSE_S = 10.0
_QUESTION_S = 1.0
"""Asked again until a longer bound is over: a thread that waits for an answer cannot be told to end."""
_WATERMARKS_S = 5.0
_PAUSE_S = 0.1

_logger = logging.getLogger(__name__)


class RealTail(Owner):
    """``port.TailConsumer`` on confluent-kafka."""

    def __init__(
        self,
        settings: KafkaSettings,
        witness: Witness,
        positions: Mapping[str, Position],
        deliver: Deliver,
        on_lost: OnLost,
        on_reset_error: Callable[[str, str], None] | None,
    ) -> None:
        super().__init__(witness, options.tail(settings, on_lost), deliver, CLOSE_S)
        self._settings = settings
        self._positions = dict(positions)
        self._on_reset_error = on_reset_error
        # Written by the owner thread before start() returns, only read after.
        self._begin: dict[tuple[str, int], int] = {}
        self._end: dict[tuple[str, int], int] = {}
        # The owner thread's own: where a new client would go on; nothing before the first has found its place.
        self._next: dict[tuple[str, int], int] | None = None

    def begin_at_start(self, topic: str, partition: int = 0) -> int:
        return self._begin[topic, partition]

    def end_at_start(self, topic: str, partition: int = 0) -> int:
        return self._end[topic, partition]

    async def watermarks(self, topic: str, partition: int = 0) -> Watermarks:
        # Not `patiently`, which polls in between: here a record may come, and would be lost.
        began = time.monotonic()
        while True:
            try:
                return await self.ask(partial(self._ask_watermarks, topic, partition, _QUESTION_S), _WATERMARKS_S)
            except KafkaException as error:
                code = error.args[0].code()
                # A client that lost its broker knows no partition either.
                bound = START_S if code in TRANSIENT else MISSING_S if code in TOPIC_MISSING else 0.0
                if time.monotonic() - began > bound:
                    raise self._as_ours(error.args[0], topic) from error
            await asyncio.sleep(_PAUSE_S)

    def renew(self) -> None:
        self.command(self.give_up_client)

    # The owner thread.

    def opening(self) -> None:
        if self._next is None:
            self._next = self._find_place()
        self.consumer.assign([TopicPartition(*where, offset) for where, offset in self._next.items()])

    def replaced(self) -> None:
        _logger.warning("%s: reading on with a new client", self.witness.name)

    def ours(self, records: list[Record]) -> list[Record]:
        if self._next is not None:
            for record in records:
                self._next[record.topic, record.partition] = record.offset + 1
        return records

    def _find_place(self) -> dict[tuple[str, int], int]:
        assignment = {}
        for topic, position in self._positions.items():
            try:
                partitions = self.patiently(partial(self._partitions, topic), START_S, TRANSIENT)
                if isinstance(position, At) and partitions != 1:
                    raise BadInput("position", f"{topic} has {partitions} partitions: an offset alone is no position")
                for partition in range(partitions):
                    # TOPIC_MISSING passes too: a topic that was made a moment ago is not known everywhere yet.
                    marks = self.patiently(
                        partial(self._ask_watermarks, topic, partition, _QUESTION_S),
                        START_S,
                        TRANSIENT | TOPIC_MISSING,
                    )
                    if isinstance(position, At):
                        begin = position.offset
                    else:
                        begin = marks.low if isinstance(position, Start) else marks.high
                    self._begin[topic, partition] = begin
                    self._end[topic, partition] = marks.high
                    assignment[topic, partition] = begin
            except KafkaException as error:
                raise self._as_ours(error.args[0], topic) from error
        return assignment

    def failed(self, message: Message, error: KafkaError) -> None:
        if error.code() == KafkaError._AUTO_OFFSET_RESET and self._on_reset_error is not None:
            self._leave(message.topic(), message.partition())
            self.connection.post(self._on_reset_error, message.topic() or "", f"{error.name()}: {error.str()}")
        else:
            super().failed(message, error)

    def _leave(self, topic: str | None, partition: int | None) -> None:
        """That partition is read no more; nor would it be by a new client."""
        if self._next is not None and topic is not None and partition is not None:
            self._next.pop((topic, partition), None)

    def _partitions(self, topic: str) -> int:
        return self.patiently(partial(self._ask_partitions, topic), MISSING_S, TOPIC_MISSING)

    def _ask_partitions(self, topic: str) -> int:
        found = self.consumer.list_topics(topic, _QUESTION_S).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        if not found.partitions:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        return len(found.partitions)

    def _ask_watermarks(self, topic: str, partition: int, timeout_s: float) -> Watermarks:
        low, high = self.consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout_s)
        return Watermarks(low, high)

    def _as_ours(self, error: KafkaError, topic: str) -> Unavailable:
        detail = f"{topic}: {error.name()}: {error.str()}"
        if error.code() in DENIED:
            return Unavailable("not-authorized", f"{not_allowed(f'topic {topic}', self._settings)} ({error.name()})")
        return Unavailable("topic-missing" if error.code() in TOPIC_MISSING else "broker-unreachable", detail)
