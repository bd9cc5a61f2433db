"""The member of the consumer group: assignment, pause, offsets, on the owner thread.

An offset is committed when everything below it is finished, and only while the partition is ours. At a revoke the
listener gets a short grace for what is in flight; then what is stored is committed before the partition goes, so that
its next owner repeats as little as possible. Of a lost partition nothing is committed: it is somebody else's already.
"""

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Iterable

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from common.kafka import options
from common.kafka.owner import DENIED, Owner
from common.kafka.port import GroupListener, Record
from common.kafka.settings import KafkaSettings
from common.kafka.standstill import Standstill
from common.kafka.state import Witness

_CLOSE_MARGIN_S = 15.0
"""Beyond the grace: a commit waits for a coordinator that is away at most its session timeout of 10 s."""

OWN_ECHO_S = 60.0
"""So long after we lost our partitions, who takes our place in the group may be ourselves."""
LOST_BY_FENCE_S = 1.0
"""Who is fenced loses his partitions, too, and is told of it in no certain order: a loss so recent is the same."""
REJOIN_S = 20.0
"""How long a member that joins, for the first time or after a loss, may be without a word from the group while the
broker answers. Twice the time in which the group takes a silent member for dead. It doubles each time, up to
``REJOIN_MOST_S``."""
REJOIN_MOST_S = 640.0
_QUESTION_S = 1.0
_TURN_MOST_S = 1.0
"""No more than this counts from one turn to the next: in a longer pause it was we who stood still."""
_FENCED = "Static consumer fenced"
"""As librdkafka names it in a fatal error, whose code says only that it is one."""

_logger = logging.getLogger(__name__)


class RealGroup(Owner):
    """``port.GroupConsumer`` on confluent-kafka."""

    def __init__(
        self,
        settings: KafkaSettings,
        witness: Witness,
        topic: str,
        listener: GroupListener,
        member: str | None,
        grace_s: float,
    ) -> None:
        super().__init__(witness, options.group(settings, member), listener.deliver, grace_s + _CLOSE_MARGIN_S)
        self._topic = topic
        self._listener = listener
        self._grace_s = grace_s
        self._told: frozenset[int] = frozenset()  # as the listener knows it; event loop only
        self._kept_out = False  # event loop only, too
        self._stores: dict[int, int] = {}  # not yet handed to librdkafka
        self._stores_lock = threading.Lock()
        # The owner thread's own.
        self._denied = False
        self._just_lost_at: float | None = None
        self._lost_at: float | None = None
        self._outside_s: float | None = None  # of this client, or since a loss; None: the group has spoken since
        self._rejoin_within_s = REJOIN_S
        self._turned_at = time.monotonic()
        self._stuck = ""  # why this client is given up, if it is not for a fence
        self._standstill = Standstill()
        self._held: set[int] = set()
        self._left: set[int] = set()  # went away since the first record of this batch came
        self._stored: dict[int, int] = {}  # handed to librdkafka since the partition came
        self._next: dict[int, int] = {}  # behind what was delivered since then
        self._paused: set[int] = set()
        self._all_paused = False

    def store(self, partition: int, next_offset: int) -> None:
        with self._stores_lock:
            self._stores[partition] = max(next_offset, self._stores.get(partition, 0))

    def pause(self, partitions: Iterable[int] | None = None) -> None:
        which = None if partitions is None else frozenset(partitions)
        self.command(lambda: self._pause(which))

    def resume(self, partitions: Iterable[int] | None = None) -> None:
        which = None if partitions is None else frozenset(partitions)
        self.command(lambda: self._resume(which))

    def assigned(self) -> frozenset[int]:
        return self._told

    def kept_out(self) -> bool:
        return self._kept_out

    # The owner thread.

    def opening(self) -> None:
        self._outside_s = 0.0
        self.consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def turn(self) -> None:
        if self._just_lost_at is not None and time.monotonic() - self._just_lost_at > LOST_BY_FENCE_S:
            self._lost_at, self._just_lost_at = self._just_lost_at, None
        self._hand_stores()
        now = time.monotonic()
        passed, self._turned_at = min(now - self._turned_at, _TURN_MOST_S), now
        self._look_whether_we_rejoin(passed)
        self._look_whether_we_read(passed)

    def _look_whether_we_rejoin(self, passed: float) -> None:
        """A client whose broker was away while it joined, or held partitions, may never ask to join again, and says
        nothing. One that is not allowed to join is told so, and goes on asking."""
        if self._outside_s is None or self._denied or not self.connection.up():
            return
        self._outside_s += passed
        if self._outside_s >= self._rejoin_within_s:
            self._outside_s = 0.0
            self._rejoin_within_s = min(2 * self._rejoin_within_s, REJOIN_MOST_S)
            self._stuck = "we are not let in, and the group says nothing"
            self.give_up_client()

    def _look_whether_we_read(self, passed: float) -> None:
        well = self.connection.up() and not self._denied and not self._all_paused
        number = self._standstill.due(passed, self._held - self._paused if well else frozenset())
        if number is not None and self._standstill.looked(number, self._stands_at(number)):
            self._stuck = f"partition {number} has records, and none came for long"
            self.give_up_client()

    def _stands_at(self, number: int) -> int | None:
        """The offset that is read next, if it is there. A broker that gives no answer shows nothing."""
        try:
            low, high = self.consumer.get_watermark_offsets(self._at(number), _QUESTION_S)
            at = self._next.get(number)
            if at is None:
                at = self.consumer.committed([self._at(number)], _QUESTION_S)[0].offset
        except KafkaException:
            return None
        at = max(at, low)
        return at if at < high else None

    def close_client(self) -> None:
        if self.connection.up():
            super().close_client()
            return
        # With no broker nothing that is in flight can be finished, and closing would wait for the coordinator to
        # answer a commit as long as our session lasts. It takes us for dead after just that time.
        gone = frozenset(self._held)
        self._let_go(gone)
        self.connection.post(self._tell_lost, gone)

    def batch_begins(self) -> None:
        # What went and came back before that was fetched anew, and is ours.
        self._left.clear()

    def ours(self, records: list[Record]) -> list[Record]:
        # A rebalance can happen inside the very call that fetched the batch: records of a partition that has gone
        # belong to its next owner.
        if records:
            self._let_in()
        gone = self._left
        mine = [record for record in records if record.partition in self._held and record.partition not in gone]
        for record in mine:
            if record.offset < self._next.get(record.partition, 0):
                self._goes_on_from_before(record)
            self._next[record.partition] = record.offset + 1
            self._standstill.read(record.partition)
        return mine

    def _goes_on_from_before(self, record: Record) -> None:
        """The topic was made again, or cut: what was finished of the one before says nothing about this one."""
        self._stored.pop(record.partition, None)
        _logger.warning(
            "%s: %s was made again, or cut: partition %d goes on from %d, and was read up to %d",
            *(self.witness.name, self._topic, record.partition, record.offset, self._next[record.partition]),
        )

    def failed(self, message: Message, error: KafkaError) -> None:
        super().failed(message, error)
        if error.code() in DENIED:
            self._denied = True
            self.connection.post(self._tell_kept_out, True)

    def replaceable(self, error: KafkaError) -> bool:
        """A broker that stood still answers each time that we asked to join, the first time last: then the member
        that we are is fenced by the one that we were. Without a loss before, it is another process with our seat."""
        lost_at, self._lost_at = self._lost_at, None
        echo = lost_at is not None and time.monotonic() - lost_at < OWN_ECHO_S
        return echo and (error.code() == KafkaError.FENCED_INSTANCE_ID or _FENCED in error.str())

    def replaced(self) -> None:
        why = self._stuck or "an earlier request of ours has our place in the group"
        _logger.warning("%s: joining anew, with a new client: %s", self.witness.name, why)
        self._just_lost_at = None
        if self._stuck:
            self._stuck = ""
            # The broker may still answer what the client that was given up has asked.
            self._lost_at = time.monotonic()
        if gone := frozenset(self._held):
            self._let_go(gone)
            self.connection.post(self._tell_lost, gone)

    def _let_in(self) -> None:
        """A record, or a partition: the broker allows us to read again. Who was denied keeps his partitions."""
        if self._denied:
            self._denied = False
            self.connection.post(self._tell_kept_out, False)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._let_in()
        self._outside_s, self._rejoin_within_s = None, REJOIN_S
        self.consumer.incremental_assign(partitions)
        numbers = frozenset(partition.partition for partition in partitions)
        self._held |= numbers
        with self._stores_lock:
            for number in numbers:
                # What an earlier ownership left behind says nothing about this one.
                self._stores.pop(number, None)
                self._stored.pop(number, None)
                self._next.pop(number, None)
        # It went without a pause (``_give_back``), and may come to who is paused.
        self._apply_pause(numbers if self._all_paused else numbers & self._paused)
        if numbers:  # each round of a cooperative rebalance ends here, most of them with nothing new
            self.connection.post(self._tell_assigned, numbers)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = frozenset(partition.partition for partition in partitions)
        try:
            told = asyncio.run_coroutine_threadsafe(self._tell_revoked(numbers), self.connection.loop)
        except RuntimeError:  # the loop is closed: nobody can finish anything any more
            pass
        else:
            try:
                told.result(self._grace_s)
            except concurrent.futures.TimeoutError:
                if told.cancel():
                    # It was cut off, wherever it was: what it did not come to is done by this.
                    self.connection.post(self._tell_lost, numbers)
                _logger.warning("%s: work on partitions %s outlived its grace", self.witness.name, sorted(numbers))
        self._hand_stores()
        self._commit(numbers)
        self._give_back(numbers, partitions)
        self._outside_s = 0.0  # the group speaks again when all have let go

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = frozenset(partition.partition for partition in partitions)
        self._just_lost_at = time.monotonic()
        self._outside_s = 0.0
        self.connection.post(self._tell_lost, numbers)
        self._give_back(numbers, partitions)

    def _give_back(self, numbers: frozenset[int], partitions: list[TopicPartition]) -> None:
        # The client remembers a pause, and who resumes meanwhile does not reach what is not ours.
        if paused := numbers & self._held if self._all_paused else numbers & self._held & self._paused:
            self.consumer.resume([self._at(number) for number in paused])
        self._let_go(numbers)
        self.consumer.incremental_unassign(partitions)

    def _let_go(self, numbers: frozenset[int]) -> None:
        self._held -= numbers
        self._left |= numbers

    def _hand_stores(self) -> None:
        with self._stores_lock:
            stores, self._stores = self._stores, {}
        forward = {
            number: offset
            for number, offset in stores.items()
            # What is beyond all that was read was finished before the topic was made again.
            if number in self._held and self._stored.get(number, -1) < offset <= self._next.get(number, -1)
        }
        if not forward:
            return
        try:
            self.consumer.store_offsets(offsets=[self._at(number, offset) for number, offset in forward.items()])
        except KafkaException as refused:
            # The assignment is changing under us; what is not committed is only done again.
            _logger.info("%s: offsets were not stored: %s", self.witness.name, refused)
            return
        self._stored |= forward

    def _commit(self, numbers: frozenset[int]) -> None:
        offsets = [self._at(number, self._stored[number]) for number in numbers if number in self._stored]
        if not offsets:
            return
        try:
            self.consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as refused:
            # The next owner does the uncommitted part again: more work, and nothing lost.
            _logger.info("%s: offsets were not committed: %s", self.witness.name, refused)

    def _pause(self, which: frozenset[int] | None) -> None:
        if which is None:
            self._all_paused = True
            self._apply_pause(frozenset(self._held))
        else:
            self._paused |= which
            self._apply_pause(which & self._held)

    def _resume(self, which: frozenset[int] | None) -> None:
        if which is None:
            self._all_paused = False
            self._paused.clear()
            which = frozenset(self._held)
        else:
            if self._all_paused:
                # "All" becomes "all of those held, without these"; newcomers are no longer paused.
                self._all_paused = False
                self._paused |= self._held
            self._paused -= which
        if names := [self._at(number) for number in which & self._held]:
            self.consumer.resume(names)

    def _apply_pause(self, numbers: frozenset[int]) -> None:
        self._standstill.disturbed()
        if numbers:
            self.consumer.pause([self._at(number) for number in numbers])

    def _at(self, number: int, offset: int | None = None) -> TopicPartition:
        return TopicPartition(self._topic, number) if offset is None else TopicPartition(self._topic, number, offset)

    # Back on the event loop.

    def _tell_kept_out(self, kept_out: bool) -> None:
        self._kept_out = kept_out

    def _tell_assigned(self, numbers: frozenset[int]) -> None:
        self._told |= numbers
        self._guarded("on_assigned", lambda: self._listener.on_assigned(numbers))

    async def _tell_revoked(self, numbers: frozenset[int]) -> None:
        try:
            await self._listener.on_revoked(numbers)
        except Exception as bug:
            _logger.exception("on_revoked raised")
            self.witness.fatal(f"on_revoked raised {bug!r}")
        self._told -= numbers

    def _tell_lost(self, numbers: frozenset[int]) -> None:
        self._told -= numbers
        self._guarded("on_lost", lambda: self._listener.on_lost(numbers))

    def _guarded(self, name: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as bug:
            _logger.exception("%s raised", name)
            self.witness.fatal(f"{name} raised {bug!r}")
