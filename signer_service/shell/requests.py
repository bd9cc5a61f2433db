"""The request topic: records come in, are decoded when there is room for them, and leave as finished offsets.

Room is counted in items, not records. What does not fit waits as bytes, and from the high-water mark on the partitions
are paused (the member goes on polling, so it keeps them) until a quarter of it is left.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from common.errors import BadInput
from common.ids import Instant
from common.kafka.port import GroupConsumer, Record
from common.observability.logging import get_logger
from common.observability.metrics import Metrics
from common.wire import codec
from common.wire.messages import MsgToSign
from signer_service.protocol.machine import Origin, RequestArrived, RequestsDropped
from signer_service.shell.outbox import Outbox
from signer_service.shell.poison import DeadLetters, error_answer
from signer_service.shell.records import RecordBook
from signer_service.shell.signing import Signing
from signer_service.shell.sources import Sources
from signer_service.shell.traces import Traces
from signer_service.shell.waiting import wait_until

RECORDS_A_TURN: Final = 16
"""Then peers' records and timers have their turn: a session that waits for a share must not wait for new work."""
REDELIVERED_MS: Final = 1_000

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """In items; ``grace_s`` is how long a revoked partition's work may take to finish."""

    high_items: int
    in_flight_items: int
    grace_s: float


class Requests:
    """The ``GroupListener`` of a signer. ``attach`` gives it its consumer before anything is delivered."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sources: Sources,
        signing: Signing,
        outbox: Outbox,
        letters: DeadLetters,
        book: RecordBook,
        prefix: str,
        limits: Limits,
        metrics: Metrics,
        on_change: Callable[[], None],
        on_bug: Callable[[BaseException], None],
        traces: Traces | None = None,
    ) -> None:
        self._loop = loop
        self._sources = sources
        self._signing = signing
        self._outbox = outbox
        self._letters = letters
        self._book = book
        self._prefix = prefix
        self._limits = limits
        self._metrics = metrics
        self._on_change = on_change
        self._on_bug = on_bug
        self._traces = traces or Traces()
        self._consumer: GroupConsumer | None = None
        self._waiting: deque[tuple[Record, Instant]] = deque()
        self._claimed: dict[int, Instant] = {}
        self._paused = False
        self._draining = False
        self._scheduled = False
        # What waits for room, and a topic that is paused, have nobody else to tell them.
        book.on_room = self._schedule
        signing.on_step = self._regulate

    def attach(self, consumer: GroupConsumer) -> None:
        """This is the member that delivers to us."""
        self._consumer = consumer

    @property
    def partitions(self) -> tuple[int, ...]:
        """Ours now, ascending."""
        return tuple(sorted(self._claimed))

    @property
    def in_flight(self) -> int:
        """Items that the coordinator has not finished, and records that wait (each at least one item)."""
        return self._signing.coordinator.in_flight + len(self._waiting)

    @property
    def queue_wait_ms(self) -> int:
        """How long what is next in line has waited by now, here and in the coordinator."""
        now = self._sources.now()
        here = now - self._waiting[0][1] if self._waiting else 0
        return max(0, here) + max(0, self._signing.coordinator.queue_wait_ms(now))

    def unfinished(self) -> int:
        """Records of ours that are not finished."""
        return self._book.unfinished(self._claimed)

    # --- GroupListener

    def deliver(self, records: Sequence[Record]) -> None:
        """Queue a batch; it is worked off in turns of a bounded size."""
        now = self._sources.now()
        for record in records:
            if record.partition in self._claimed and self._book.begin(record):
                self._waiting.append((record, now))
        self._regulate()
        self._schedule()

    def on_assigned(self, partitions: frozenset[int]) -> None:
        """New partitions: say so at once, since requests go where somebody claims them."""
        now = self._sources.now()
        for partition in partitions:
            self._claimed[partition] = now
        _log.info("partitions assigned", partitions=sorted(partitions))
        self._on_change()

    async def on_revoked(self, partitions: frozenset[int]) -> None:
        """They go: no new work of theirs, a short grace for what is in a round, then their offsets are stored."""
        for partition in partitions:
            self._claimed.pop(partition, None)
        _log.info("partitions revoked", partitions=sorted(partitions))
        self._on_change()
        self._drop(partitions)
        await wait_until(lambda: not self._busy(partitions), self._limits.grace_s)
        self._book.forget(partitions)
        self._traces.lost(partitions)

    def on_lost(self, partitions: frozenset[int]) -> None:
        """They are somebody else's already."""
        for partition in partitions:
            self._claimed.pop(partition, None)
        _log.warning("partitions lost", partitions=sorted(partitions))
        self._on_change()
        self._drop(partitions)
        self._book.forget(partitions)
        self._traces.lost(partitions)

    # --- work

    def drain(self) -> None:
        """Fetch no more; what is here is worked off."""
        self._draining = True
        if self._consumer is not None:
            self._consumer.pause()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        try:
            for _ in range(RECORDS_A_TURN):
                if not self._waiting or self._book.items >= self._limits.in_flight_items:
                    break
                record, since = self._waiting.popleft()
                waited_ms = max(0, self._sources.now() - since)
                self._metrics.stage_duration.labels(stage="queue").observe(waited_ms / 1000)
                self._take(record, waited_ms)
        except Exception as bug:  # noqa: BLE001 - whatever a record holds, taking it may not raise: the process ends
            self._on_bug(bug)
            return
        self._regulate()
        if self._book.items < self._limits.in_flight_items:
            self._schedule()

    def _take(self, record: Record, waited_ms: int) -> None:
        try:
            request = codec.decode(record.value, MsgToSign)
        except BadInput as error:
            self._refuse(record, error)
            return
        claimed = self._claimed.get(record.partition)
        oldest = min(item.created_ms for item in request.items)
        redelivered = claimed is None or oldest < claimed - REDELIVERED_MS
        origin = Origin(record.partition, record.offset, redelivered)
        self._book.taken(origin, len(request.items))
        self._metrics.record_items.observe(len(request.items))
        self._traces.arrived(record, request, waited_ms)
        self._signing.feed(RequestArrived(origin, request, record.value))

    def _refuse(self, record: Record, error: BadInput) -> None:
        answer = error_answer(self._prefix, record.value, error)
        if answer is not None:
            self._outbox.reply(record, *answer)
        self._letters.keep(record, error.code, error.detail, self._book.sending(record.partition, record.offset))
        self._book.answered(record.partition, record.offset)

    def keep(self, record: Record, reason: str, detail: str) -> None:
        """A record that the coordinator found to be nobody's word: its bytes are kept before its offset moves on."""
        self._letters.keep(record, reason, detail, self._book.sending(record.partition, record.offset))

    def _busy(self, partitions: frozenset[int]) -> bool:
        return bool(self._signing.running(partitions) or self._book.deliveries(partitions)) or not self._outbox.idle

    def _drop(self, partitions: frozenset[int]) -> None:
        self._waiting = deque(each for each in self._waiting if each[0].partition not in partitions)
        self._signing.feed(RequestsDropped(partitions))
        self._regulate()

    def _regulate(self) -> None:
        items = self.in_flight
        self._metrics.work_queue_items.set(items)
        if self._consumer is None or self._draining:
            return
        if not self._paused and items >= self._limits.high_items:
            self._paused = True
            self._consumer.pause()
        elif self._paused and items <= self._limits.high_items // 4:
            self._paused = False
            self._consumer.resume()
        self._metrics.paused_partitions.set(len(self._claimed) if self._paused else 0)
