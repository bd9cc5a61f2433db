"""What a replica reads besides requests, and from where on: what it is told and the beats from now, the key records
from the beginning, the ceremony log from the newest place that anything vouches for.

Every reader stands in its place before the first beat, so that no share and no commit can be missed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from common.errors import Unavailable
from common.kafka import suitable
from common.kafka.hearing import Hearing
from common.kafka.port import At, End, Kafka, OnLost, Position, Record, Start, TailConsumer
from common.observability.lines import Lines
from common.observability.logging import get_logger
from common.observability.metrics import Metrics
from common.wire import topics
from common.wire.messages import Roster
from signer_service.settings import Settings
from signer_service.shell import unread
from signer_service.shell.ceremonies import Ceremonies
from signer_service.shell.names import Names
from signer_service.shell.peers import PeerInbox, PresenceInbox
from signer_service.shell.waiting import wait_until

COPIES_S: Final = 10.0
"""How long the copies of key records are waited for; without them the log is read from where the journal ends."""
RETRY_S: Final = 0.5
RETRY_MOST_S: Final = 5.0
"""Pause between two attempts to reach the topics at the start: it doubles up to this."""

Reached = TypeVar("Reached")

_log = get_logger(__name__)


class Readers:
    """``open``, ``read_log``, ``catch_up`` once each, in this order; ``watch_log`` beside. On the event loop only."""

    def __init__(
        self,
        kafka: Kafka,
        settings: Settings,
        names: Names,
        peers: PeerInbox,
        presence: PresenceInbox,
        ceremonies: Ceremonies,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._kafka = kafka
        self._settings = settings
        self._names = names
        self._peers = peers
        self._presence = presence
        self._ceremonies = ceremonies
        self._metrics = metrics
        self._lines = Lines(_log, clock)
        self._tails: list[TailConsumer] = []
        self._log: TailConsumer | None = None
        self.hearing = Hearing(clock, self._renew)
        """Is told of the outcome of each of our beats."""

    async def open(self, roster: Roster) -> TailConsumer:
        """Read all but the log, and find the place where to begin with that. Waits for as long as it takes.

        Args:
            roster: The operator's, as its file says.

        Returns:
            The reader of the key records, for ``watch_log``.
        """
        await self._patiently(self._prepare_topics)
        _, keys = await asyncio.gather(self._patiently(self._read_peers), self._patiently(self._read_keys))
        await self._find_place(keys, roster)
        return keys

    async def read_log(self) -> TailConsumer:
        """Read the ceremony log on from where ``Ceremonies.state`` is."""
        next_offset = self._ceremonies.state.log.offset + 1
        log = self._kafka.tail(
            {self._names.ceremony: At(next_offset) if next_offset > 0 else Start()},
            self._ceremonies.deliver,
            on_lost=OnLost.ERROR,
            on_reset_error=self._on_log_lost,
        )
        self._tails.append(log)
        await log.start()
        marks = await log.watermarks(self._names.ceremony)
        end = log.end_at_start(self._names.ceremony)
        if next_offset > end or marks.low > next_offset:
            self._on_log_lost(self._names.ceremony, f"it holds {marks.low} to {end}, this replica is at {next_offset}")
        self._ceremonies.positioned(next_offset, end)
        self._log = log
        return log

    async def catch_up(self, log: TailConsumer) -> None:
        """Return when the log is read to its end, which may take a second reading from further back.

        Args:
            log: What ``read_log`` returned.
        """
        await _either(self._ceremonies.caught_up, self._ceremonies.turned_back)
        if self._ceremonies.caught_up.is_set():
            return
        _log.warning("the newest key records lead to no place in the ceremony log: reading it from further back")
        self._tails.remove(log)
        await log.close()
        self._ceremonies.read_again()
        await self.read_log()
        await self._ceremonies.caught_up.wait()

    async def watch_log(self, asker: TailConsumer) -> None:
        """Look whether the log's reader stands still, until cancelled.

        Args:
            asker: Another reader, through which the broker is asked where the log ends.
        """

        def renew() -> None:
            # Where the log is lost there is nothing to read on from.
            if self._log is not None and not self._ceremonies.state.soft.lost:
                _log.warning("the ceremony log has records that we did not read for long: reading on with a new client")
                self._log.renew()

        def lost(at: int, end: int) -> None:
            if not self._ceremonies.state.soft.lost:
                self._on_log_lost(self._names.ceremony, f"it ends at {end}, this replica is at {at}")

        await unread.watch(asker, self._names.ceremony, self._ceremonies.next_offset, renew, lost, unread.LOOK_S)

    async def close(self) -> None:
        """Read no more."""
        await asyncio.gather(*(tail.close() for tail in self._tails))

    # --- the start

    async def _patiently(self, reach: Callable[[], Awaitable[Reached]]) -> Reached:
        """Reach for something at the broker until it is there: a person may be about to start it, or to let us in.

        Until then we are unready, and say what is missing.
        """
        pause_s = RETRY_S
        while True:
            try:
                return await reach()
            except Unavailable as error:
                self._lines.warn("cannot reach the topics yet", code=error.code, detail=error.detail)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_MOST_S)

    async def _prepare_topics(self) -> None:
        """Make our own, where it is ours to make, and look whether all are as they should be."""
        prefix = self._settings.topic_prefix
        own = topics.peer(prefix, self._settings.seat)
        shared = (topics.requests, topics.presence, topics.ceremony, topics.keys, topics.audit)
        admin = self._kafka.admin()
        try:
            if not self._settings.kafka_embedded:
                await admin.ensure([own])
            await suitable.check(admin, (own, *(each(prefix) for each in shared)), _differs)
        finally:
            await admin.close()

    async def _read(
        self, positions: Mapping[str, Position], deliver: Callable[[Sequence[Record]], None]
    ) -> TailConsumer:
        tail = self._kafka.tail(positions, deliver)
        await tail.start()  # one that could not start has closed itself, and has delivered nothing
        self._tails.append(tail)
        return tail

    async def _read_peers(self) -> TailConsumer:
        own = self._names.peer(self._settings.seat)
        return await self._read({own: End(), self._names.presence: End()}, self._deliver_peers)

    async def _read_keys(self) -> TailConsumer:
        return await self._read({self._names.keys: Start()}, self._ceremonies.copies.deliver)

    async def _find_place(self, keys: TailConsumer, roster: Roster) -> None:
        """Nobody reads a thousand epochs to find out that they are over."""
        copies, end = self._ceremonies.copies, keys.end_at_start(self._names.keys)
        if keys.begin_at_start(self._names.keys) < end:
            await wait_until(lambda: copies.next >= end, COPIES_S)
        self._ceremonies.find_place(roster)
        # Asked for after the copies were read: one of a commit in between leads to where the log did not reach before.
        marks = await self._patiently(lambda: keys.watermarks(self._names.ceremony))
        if not marks.low <= self._ceremonies.state.log.offset + 1 <= marks.high:
            self._ceremonies.give_up_place()

    # --- what comes

    def _deliver_peers(self, records: Sequence[Record]) -> None:
        presence = [record for record in records if record.topic == self._names.presence]
        if len(presence) < len(records):
            self._peers.deliver([record for record in records if record.topic != self._names.presence])
        if presence:
            self.hearing.heard()
            self._presence.deliver(presence)

    def _renew(self) -> None:
        _log.warning("our beats are confirmed, and no beat was heard for long: reading on with new clients")
        for tail in self._tails:
            tail.renew()

    def _on_log_lost(self, topic: str, detail: str) -> None:
        self._metrics.alarm.labels(alarm="ceremony_log_lost").set(1)
        _log.error("the ceremony log was lost: signing goes on, ceremonies stop", topic=topic, detail=detail)
        self._ceremonies.lost()


def _differs(line: str) -> None:
    _log.warning("a topic is not as it should be", detail=line)


async def _either(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
