"""What a pod reads, and from where on: its own answers and the beats from now, the key records from the beginning.

Positioned before the first request is taken, so that no answer can be missed.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from common.errors import Unavailable
from common.kafka import suitable
from common.kafka.hearing import Hearing
from common.kafka.port import End, Kafka, OnLost, Record, Start, TailConsumer
from common.observability.lines import Lines
from common.wire import topics
from common.wire.topics import TopicSpec
from rest_api.gateway.inbox import Inbox, Places

RECONNECT_S: Final = 1.0


class Readers:
    """Opened once, however long it takes. On the event loop only."""

    def __init__(
        self, kafka: Kafka, own_topic: TopicSpec, places: Places, inbox: Inbox, lines: Lines, clock: Callable[[], float]
    ) -> None:
        self._kafka = kafka
        self._own_topic = own_topic
        prefix = places.prefix
        self._topics = (own_topic, topics.requests(prefix), topics.presence(prefix), topics.keys(prefix))
        self._places = places
        self._inbox = inbox
        self._lines = lines
        self._clock = clock
        self._tails: list[TailConsumer] = []
        self.replies = places.replies
        """Our own topic, where answers come."""
        self.positioned_at: float | None = None
        """Since when nothing can be missed, by ``clock``; None: not yet."""
        self.hearing = Hearing(clock, self._renew)
        """Is told of the outcome of each of our beats."""

    async def open(self) -> None:
        """Return when every reader stands in its place."""
        while True:
            try:
                await self._position()
            except Unavailable as error:
                self._lines.warn("cannot reach the topics yet", code=error.code, detail=error.detail)
                await asyncio.sleep(RECONNECT_S)
            else:
                self.positioned_at = self._clock()
                return

    async def _position(self) -> None:
        admin = self._kafka.admin()
        try:
            await admin.ensure([self._own_topic])
            await suitable.check(admin, self._topics, self._differs)
        finally:
            await admin.close()
        tails = [
            self._kafka.tail({self._places.replies: End(), self._places.presence: End()}, self._deliver),
            self._kafka.tail(
                {self._places.keys: Start()},
                self._inbox.deliver_keys,
                on_lost=OnLost.ERROR,
                on_reset_error=self._inbox.lost_keys,
            ),
        ]
        try:
            for tail in tails:
                await tail.start()
        except BaseException:
            for tail in tails:
                await tail.close()
            raise
        self._tails = tails

    def _differs(self, line: str) -> None:
        self._lines.warn("a topic is not as it should be", burst=len(self._topics) * 8, detail=line)

    def _deliver(self, batch: Sequence[Record]) -> None:
        if any(record.topic == self._places.presence for record in batch):
            self.hearing.heard()
        self._inbox.deliver(batch)

    def _renew(self) -> None:
        self._lines.warn("our beats are confirmed, and no beat was heard for long: reading on with new clients")
        for tail in self._tails:
            tail.renew()

    async def close(self) -> None:
        """Read no more."""
        await asyncio.gather(*(tail.close() for tail in self._tails))
