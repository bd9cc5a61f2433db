"""The ceremony machine on the event loop: one task, so that what must be durable is on disk before anything follows.

Events that came together are stepped together, written once, and only then sent: a crash before the write is a crash
before the first of them. The write happens on a thread, so signing goes on meanwhile; the signing machines are given a
new view only after it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from common.errors import Unavailable
from common.ids import NO_OFFSET, Instant, KeyId, Offset
from common.kafka.port import Delivery, Producer, Record
from common.observability.logging import get_logger
from common.observability.metrics import Metrics
from common.wire import codec
from common.wire.envelope import Signer, seal
from common.wire.messages import CeremonyRecord, KeyRecord, Roster
from signer_service.protocol import ceremony
from signer_service.protocol.ceremony_disk import durable
from signer_service.protocol.ceremony_place import begin_at, start_over
from signer_service.protocol.ceremony_state import (
    CaughtUp,
    CeremonyState,
    Event,
    Hears,
    LogLost,
    LogRecord,
    SendFailed,
    Soft,
)
from signer_service.protocol.ceremony_view import alarms, signing_view, unerased
from signer_service.protocol.machine import Note, Outgoing, Tick, ToAudit, ToKeys, ToLog
from signer_service.protocol.view import SigningView, ViewChanged
from signer_service.shell.ears import Ears
from signer_service.shell.journal import Saved, StateDir
from signer_service.shell.key_copies import KeyCopies
from signer_service.shell.names import Names
from signer_service.shell.outbox import Outbox
from signer_service.shell.signing import Alarm
from signer_service.shell.sources import Sources

EVENTS_A_TURN: Final = 64
"""While a long log is replayed, the loop's other work has its turn after so many records."""
SAVE_EVERY_S: Final = 10.0
"""A mere position on the log is written no more often: what it spares at the next start is reading a few records."""
SEND_AGAIN_S: Final = 0.5
ALARMS: Final = {
    "ceremony-log-lost": "ceremony_log_lost",
    "ceremony-log-forked": "ceremony_log_forked",
    "ceremony-protocol-version": "protocol_version",
    "old-epoch-not-erased": "unerased",
    "awaits-new-log": "awaits_new_log",
}
"""What the machine calls a standing condition, and what the metric does."""

_log = get_logger(__name__)


class _ReadAgain:
    """Stands in the queue after the last record of a reading that was given up."""


_READ_AGAIN: Final = _ReadAgain()


class Ceremonies:
    """Owns the ceremony machine's state. ``run`` is its task; ``feed`` and ``deliver`` are called on the loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sources: Sources,
        state: CeremonyState,
        directory: StateDir,
        saved: Saved | None,
        producer: Producer,
        outbox: Outbox,
        on_garbage: Callable[[Record, str], None],
        signer: Signer,
        names: Names,
        metrics: Metrics,
        tell: Callable[[tuple[Note, ...]], None],
        on_view: Callable[[ViewChanged], None],
        ears: Ears,
    ) -> None:
        self._loop = loop
        self._sources = sources
        self._state = state
        self._directory = directory
        self._saved = saved
        self._written: CeremonyState | None = None
        self._producer = producer
        self._outbox = outbox
        self._on_garbage = on_garbage
        self._signer = signer
        self._names = names
        self._metrics = metrics
        self._tell = tell
        self._on_view = on_view
        self._ears = ears
        self._view: SigningView | None = None
        self._queue: asyncio.Queue[Event | _ReadAgain] = asyncio.Queue()
        self._alarm = Alarm(loop, sources, lambda: self.feed(Tick()))
        self._end: int | None = None
        self._next = 0
        self._writing: asyncio.Future[bool] | None = None
        self._next_save = loop.time() + SAVE_EVERY_S
        self.copies = KeyCopies(state.trust.wire.check_key_record, self._believed, self.feed, on_garbage)
        self.caught_up = asyncio.Event()
        self.turned_back = asyncio.Event()
        """The end was reached, and the key records that reading began at are not proven: ``state`` says where now."""

    @property
    def state(self) -> CeremonyState:
        """As of the last finished step."""
        return self._state

    def feed(self, event: Event) -> None:
        """Queue an event; it is stepped in order."""
        self._queue.put_nowait(event)

    def _believed(self, key_id: KeyId) -> KeyRecord | None:
        key = self._state.log.keys.get(key_id)
        return key.current.record if key is not None and key.current is not None else None

    def positioned(self, begin: int, end: int) -> None:
        """Reading begins at ``begin``; the log ended at ``end`` (exclusive) then. Records may have come already."""
        self._end = end
        self._next = max(self._next, begin)
        self._look_for_end()

    def deliver(self, records: Sequence[Record]) -> None:
        """Records of the ceremony log, in order, none left out: garbage is part of the running hash."""
        for record in records:
            written = None if record.timestamp_ms is None else Instant(record.timestamp_ms)
            self.feed(LogRecord(Offset(record.offset), record.value, written))
            self._next = record.offset + 1
            self._look_for_end()

    def _look_for_end(self) -> None:
        if self._end is not None and self._next >= self._end:
            self._end = None
            self.feed(CaughtUp())

    def next_offset(self) -> int:
        """Offset after the last record that came."""
        return self._next

    def lost(self) -> None:
        """The log does not go on where we are: another one stands in its place, or its beginning is gone."""
        self.feed(LogLost())

    def find_place(self, roster: Roster) -> None:
        """Go on from the newest key records, where that is allowed. Before ``run``, when the copies were read."""
        self._state = begin_at(self._state, self.copies.newest_first(), roster)

    def give_up_place(self) -> None:
        """The log does not reach there: go on from where it would have been without the key records. Before ``run``."""
        self._state = start_over(self._state)

    def read_again(self) -> None:
        """After ``turned_back``: nothing more comes of the reading before, and another begins. Then ``positioned``."""
        self._next = 0
        self._queue.put_nowait(_READ_AGAIN)

    async def run(self) -> None:
        """Step until cancelled. An exception is a bug or a disk that does not write: the process ends."""
        while True:
            events = [await self._queue.get()]
            while len(events) < EVENTS_A_TURN and not self._queue.empty():
                events.append(self._queue.get_nowait())
            await self._turn(events)
            await asyncio.sleep(0)

    async def finish(self) -> None:
        """Write down where we are. After ``run`` was cancelled.

        Raises:
            OSError: the state directory cannot be written.
        """
        self._alarm.cancel()
        if self._writing is not None:
            # A thread cannot be cancelled: two of them must not write at one time.
            await self._writing
        await self._save(force=True)

    async def _turn(self, events: list[Event | _ReadAgain]) -> None:
        sends: list[Outgoing] = []
        notes: list[Note] = []
        caught_up = False
        live = self._state.soft.caught_up
        # Before a clock that ran on while we stood still has its say.
        for event in (*map(Hears, self._ears.news()), *events):
            if isinstance(event, _ReadAgain):
                self.turned_back.clear()
                continue
            if self.turned_back.is_set() and isinstance(event, LogRecord):
                continue  # from where we read no more
            if isinstance(event, CaughtUp) and self._state.soft.anchoring is None and not self.copies.shown:
                # First what stands on the keys topic: who may write there is not to write an older copy over a newer.
                self.copies.show()
                self.feed(event)
                continue
            done = ceremony.step(self._state, event, self._sources.now(), self._sources.entropy)
            self._state = done.state
            self._alarm.set(done.wake_at)
            sends += done.send
            notes += done.notes
            if live and isinstance(event, LogRecord):
                self._look_for_garbage(event, done.notes)
            if isinstance(event, CaughtUp):
                caught_up = self._state.soft.caught_up
                if not caught_up:
                    self.turned_back.set()
        await self._save(force=bool(sends))
        # Before anything is sent: an Erased may be said only when the signing machines have let go of the share, too.
        view = signing_view(self._state, self._sources.now())
        if view != self._view:
            self._view = view
            self._on_view(ViewChanged(view))
        self._send(sends)
        self._tell(tuple(notes))
        self._show_alarms()
        if caught_up:
            self.caught_up.set()

    def _look_for_garbage(self, event: LogRecord, notes: tuple[Note, ...]) -> None:
        for note in notes:
            if note.name == "garbage-on-log":
                record = Record(self._names.ceremony, 0, event.offset, event.written_ms, None, event.raw)
                self._on_garbage(record, str(note.fields["code"]))

    def _show_alarms(self) -> None:
        standing = {name.split("/")[0] for name in alarms(self._state)}
        for name, alarm in ALARMS.items():
            self._metrics.alarm.labels(alarm=alarm).set(name in standing)
        for key_id, seats in unerased(self._state).items():
            self._metrics.unerased_seats.labels(key_id=key_id).set(seats)

    async def _save(self, *, force: bool) -> None:
        state = self._state
        if state.soft.anchoring is not None:
            return  # Nothing is proven yet: what the disk has is still the truth.
        # All but what the machine itself calls forgettable: most steps change nothing else, and writing down costs more
        # than a step.
        facts = replace(state, soft=Soft())
        if facts == self._written:
            return
        # Of most records only their place is new. That can wait, and need not even be put into bytes.
        may_wait = not force and self._loop.time() < self._next_save
        if may_wait and self._written is not None and state.secrets is self._written.secrets:
            return
        kept = durable(state)
        saved = Saved(kept.public, kept.secrets)
        if may_wait and self._saved is not None and self._saved.same_secrets(saved):
            return
        self._next_save = self._loop.time() + SAVE_EVERY_S
        self._writing = asyncio.ensure_future(asyncio.to_thread(self._directory.save, saved))
        await asyncio.shield(self._writing)
        self._saved, self._written, self._writing = saved, facts, None

    def _send(self, sends: list[Outgoing]) -> None:
        for each in sends:
            if isinstance(each, ToLog):
                self._send_log(each)
            elif isinstance(each, ToKeys):
                record = each.record
                self._produce(self._names.keys, codec.encode(record), record.key_id.encode(), record)
            elif isinstance(each, ToAudit):
                self._outbox.put((each,))
            else:
                raise TypeError(f"{type(each).__name__} is not for the ceremony machine to send")

    def _send_log(self, each: ToLog) -> None:
        log = self._state.log
        offset, running = log.offset, log.running_hash if log.offset != NO_OFFSET else b""
        topic = self._names.ceremony
        self._produce(topic, seal(self._signer, topic, codec.encode(each.message), offset, running), None, each.message)

    def _produce(self, topic: str, value: bytes, key: bytes | None, record: CeremonyRecord) -> None:
        def on_delivery(delivery: Delivery) -> None:
            if delivery.error is not None:
                failed(delivery.error)

        def failed(reason: str) -> None:
            self._metrics.kafka_delivery_failures.labels(topic=topic).inc()
            _log.warning("a ceremony record was not confirmed", topic=topic, reason=reason)
            self.feed(SendFailed(record))

        try:
            self._producer.send(topic, value, key=key, partition=0, on_delivery=on_delivery)
        except Unavailable as error:
            # Not at once: a machine that sends again what fails again would never let go of the loop.
            self._loop.call_later(SEND_AGAIN_S, failed, error.detail)
