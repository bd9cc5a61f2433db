"""One replica, from its first connection to its last commit: all parts on one event loop, in the order that they need.

Start: find the positions, replay the ceremony log, beat, and only then join the group: partitions are claimed by a
replica that knows what it can sign. End: say so in presence, fetch no more, finish, flush, commit, leave.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from common.errors import SignerFlowError, Unavailable
from common.ids import BootId
from common.kafka.port import At, End, GroupConsumer, Kafka, OnLost, Record, Start, TailConsumer
from common.observability.admin import Health
from common.observability.logging import get_logger
from common.observability.metrics import Metrics
from common.observability.spans import Spans
from common.secret import Secret
from common.wire import topics
from common.wire.envelope import Signer
from common.wire.messages import KeyPresence, ReplicaState, Role, Roster
from signer_service.protocol import coordinator, participant
from signer_service.protocol.ceremony_state import CeremonyState, RosterFile
from signer_service.protocol.ceremony_view import status
from signer_service.protocol.machine import InternalSigned, PeersChanged
from signer_service.protocol.view import SigningView, ViewChanged
from signer_service.protocol.wire import Wire
from signer_service.settings import Settings
from signer_service.shell import health
from signer_service.shell.beats import Beats
from signer_service.shell.ceremonies import Ceremonies
from signer_service.shell.health import Facts, Heartbeat
from signer_service.shell.journal import Saved, StateDir
from signer_service.shell.names import names
from signer_service.shell.notes import Notes
from signer_service.shell.outbox import Outbox
from signer_service.shell.peers import Identities, PeerInbox, PresenceInbox
from signer_service.shell.poison import DeadLetters
from signer_service.shell.presence import PeerWatch, SkewMeter
from signer_service.shell.records import RecordBook
from signer_service.shell.requests import Limits, Requests
from signer_service.shell.roster_file import RosterWatch
from signer_service.shell.signing import Signing
from signer_service.shell.sources import Sources
from signer_service.shell.traces import Traces
from signer_service.shell.waiting import wait_until

FLUSH_S: Final = 3.0
LOOK_S: Final = 0.1
"""How often silence is looked for: a seat that went away shall be noticed soon after it is overdue."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Given:
    """What a replica is made of; the composition root read and checked it."""

    settings: Settings
    boot_id: BootId
    identity: Secret[bytes]
    roster_watch: RosterWatch
    roster_raw: bytes
    roster: Roster
    wire: Wire
    ceremony: CeremonyState
    """Restored, or new."""
    directory: StateDir
    saved: Saved | None
    sources: Sources
    metrics: Metrics
    spans: Spans | None = None
    """Where spans go; None: nowhere."""


class Replica:
    """Made on the running event loop. ``run`` until stopped; the two probes may be asked at any time."""

    def __init__(self, given: Given, kafka: Kafka) -> None:
        settings, sources, metrics = given.settings, given.sources, given.metrics
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._given = given
        self._settings = settings
        self._kafka = kafka
        self._ended: asyncio.Future[str] = loop.create_future()
        self._seat = settings.seat
        self._names = names(settings.topic_prefix)
        self._signer = Signer(Role.SIGNER, self._seat, given.boot_id, given.identity)
        self._identities = Identities({seat.index: seat.identity_key for seat in given.roster.seats})
        self._producer = kafka.producer()
        self._notes = Notes(metrics)
        self._group: GroupConsumer | None = None
        self._tails: list[TailConsumer] = []
        self._positioned = False
        self._skew = SkewMeter()
        self._watch_peers = PeerWatch(settings.suspect_after_ms / 1000)
        self._skew_warned = False
        self._tasks: list[asyncio.Task[None]] = []
        self._heartbeat = Heartbeat(loop, metrics)
        self._view = SigningView(self._seat)

        book = RecordBook(self._store)
        traces = Traces(given.spans)
        self._letters = DeadLetters(loop, self._producer, settings.topic_prefix, f"signer-{self._seat}", metrics)
        self._outbox = Outbox(
            loop,
            self._producer,
            self._signer,
            self._names,
            book,
            metrics,
            self._on_internal,
            self._on_poison,
            self.bug,
            traces,
        )
        self._signing = Signing(
            loop,
            sources,
            participant.start(self._seat, given.boot_id, given.wire),
            coordinator.start(self._seat, given.boot_id, given.wire),
            self._outbox,
            self._notes.tell,
            self.bug,
        )
        self._requests = Requests(
            loop,
            sources,
            self._signing,
            self._outbox,
            self._letters,
            book,
            settings.topic_prefix,
            Limits(settings.queue_high_items, settings.in_flight_items, settings.revoke_grace_ms / 1000),
            metrics,
            self._beat_now,
            self.bug,
            traces,
        )
        book.on_room = self._requests.made_room
        book.clock = loop.time
        book.on_stage = lambda stage, seconds: metrics.stage_duration.labels(stage=stage).observe(seconds)
        self._ceremonies = Ceremonies(
            loop,
            sources,
            given.ceremony,
            given.directory,
            given.saved,
            self._producer,
            self._outbox,
            self._on_garbage,
            self._signer,
            self._names,
            metrics,
            self._notes.tell,
            self._on_view,
        )
        self._peers = PeerInbox(
            self._names.peer(self._seat), self._identities, self._letters, self._signing.feed, traces
        )
        self._presence = PresenceInbox(
            loop,
            self._names.presence,
            self._seat,
            given.boot_id,
            self._identities,
            self._letters,
            self._watch_peers,
            self._skew,
            sources,
            self._on_peers,
        )
        self._beats = Beats(
            loop,
            self._producer,
            self._signer,
            self._names.presence,
            sources,
            metrics,
            settings.beat_ms,
            self._state,
            self._load,
            self._key_presence,
            self.bug,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop``, then drain.

        Raises:
            Unavailable: Kafka, or something in it that is needed, is not there.
            Bug: what cannot happen did; one line was logged.
        """
        stopped = asyncio.create_task(stop.wait())
        try:
            if await self._first(self._start(), stopped):
                _log.info("serving", seat=self._seat, admin_port=self._settings.port)
                await self._first(None, stopped)
                if not self._ended.done():
                    await self._drain()
        finally:
            stopped.cancel()
            await self._close()
        if self._ended.done():
            raise Unavailable("ended", self._ended.result())

    def bug(self, error: BaseException) -> None:
        """One of our own invariants does not hold: the process ends, with one line and no values of variables."""
        _log.error("a bug: the process ends", exc_info=error)
        self.fatal(f"a bug ({type(error).__name__}); see the log")

    def fatal(self, line: str) -> None:
        """The process cannot go on. The first reason counts."""
        if not self._ended.done():
            _log.error("the process ends", reason=line)
            self._ended.set_result(line)

    def kafka_state(self, up: bool) -> None:
        """For ``Hooks.on_state``."""
        self._given.metrics.kafka_up.set(up)

    def liveness(self) -> Health:
        """For /healthz."""

        def dead() -> str:
            if self._ended.done():
                return self._ended.result()
            return next((f"{task.get_name()} ended" for task in self._tasks if task.done()), "")

        return health.liveness(self._kafka.heartbeats, self._given.sources.monotonic, dead)

    def readiness(self) -> Health:
        """For /readyz."""
        return health.readiness(self._facts(), self._settings.skew_unready_ms)

    # --- start and end

    async def _start(self) -> None:
        settings = self._settings
        self._heartbeat.start()
        self._producer.start()
        if not settings.kafka_embedded:
            await self._make_own_topic()
        peers = self._kafka.tail(
            {self._names.peer(self._seat): End(), self._names.presence: End()}, self._deliver_peers
        )
        next_offset = self._ceremonies.state.log.offset + 1
        log = self._kafka.tail(
            {self._names.ceremony: At(next_offset) if next_offset > 0 else Start()},
            self._ceremonies.deliver,
            on_lost=OnLost.ERROR,
            on_reset_error=self._on_log_lost,
        )
        self._tails = [peers, log]
        await peers.start()
        self._ceremonies.feed(RosterFile(self._given.roster_raw))
        self._task("ceremonies", self._ceremonies.run())
        await log.start()
        await self._position_log(log, next_offset)
        keys = self._kafka.tail({self._names.keys: Start()}, self._ceremonies.deliver_keys)
        self._tails.append(keys)
        await keys.start()
        self._positioned = True
        self._beats.start()
        self._task("watch", self._watch())
        await self._ceremonies.caught_up.wait()
        group = self._kafka.group(
            self._names.requests,
            self._requests,
            member=f"signer-{self._seat}",
            grace_s=settings.revoke_grace_ms / 1000 + 0.5,
        )
        self._requests.attach(group)
        self._group = group
        await group.start()

    async def _position_log(self, log: TailConsumer, next_offset: int) -> None:
        marks = await log.watermarks(self._names.ceremony)
        end = log.end_at_start(self._names.ceremony)
        if next_offset > end or marks.low > next_offset:
            self._on_log_lost(self._names.ceremony, f"it holds {marks.low} to {end}, this replica is at {next_offset}")
        self._ceremonies.positioned(next_offset, end)

    async def _make_own_topic(self) -> None:
        admin = self._kafka.admin()
        try:
            await admin.ensure([topics.peer(self._settings.topic_prefix, self._seat)])
        finally:
            await admin.close()

    async def _drain(self) -> None:
        settings = self._settings
        _log.info("draining", unfinished=self._requests.unfinished())
        self._beats.draining = True
        self._beats.now()
        self._requests.drain()
        began = self._loop.time()

        def finished() -> bool:
            if not self._kafka.up():
                return True  # nobody hears us, and nothing can be finished: what is not committed comes again
            announced = self._loop.time() - began >= settings.drain_announce_ms / 1000
            return self._ended.done() or (announced and not self._requests.unfinished() and self._outbox.idle)

        await wait_until(finished, settings.drain_ms / 1000)
        left = self._requests.unfinished()
        if left:
            _log.warning("some records were left for another replica", records=left)

    async def _close(self) -> None:
        if self._group is not None:
            await self._group.close()
        self._beats.stop()
        self._signing.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(tail.close() for tail in self._tails))
        with contextlib.suppress(Exception):
            self._outbox.flush()
        await self._producer.flush(FLUSH_S if self._kafka.up() else 0)
        await self._producer.close()
        self._heartbeat.stop()
        try:
            await self._ceremonies.finish()
        except OSError as error:
            self.fatal(f"the state directory cannot be written: {error.strerror}")
        _log.info("stopped")

    async def _first(self, work: Coroutine[Any, Any, None] | None, stopped: "asyncio.Task[bool]") -> bool:
        """Wait for ``work`` (None: nothing), a stop or a fatal end. Returns whether the work is what ended."""
        task = asyncio.ensure_future(work) if work is not None else None
        waited: list[asyncio.Future[Any]] = [stopped, self._ended, *([task] if task is not None else [])]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if task is None:
            return False
        if task.done():
            task.result()
            return True
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, SignerFlowError):
            await task
        return False

    def _task(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._on_task_done)
        self._tasks.append(task)

    def _on_task_done(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, OSError):
            self.fatal(f"the state directory cannot be written: {error.strerror}")
        elif error is not None:
            self.bug(error)

    def look_at_roster(self) -> None:
        """Read the roster file again: it may have changed."""
        self._given.roster_watch.look(self._on_roster)

    async def _watch(self) -> None:
        """What nobody tells us: silence, a changed roster file, a clock that goes wrong."""
        settings = self._settings
        next_roster = self._loop.time() + settings.roster_poll_ms / 1000
        while True:
            await asyncio.sleep(LOOK_S)
            self._presence.look()
            self._given.metrics.clock_skew.set(self._skew.skew_ms / 1000)
            self._warn_of_skew()
            for seat, left in self._signing.coordinator.stocks.left_by_seat().items():
                self._given.metrics.nonce_commitments.labels(seat=seat).set(left)
            if self._loop.time() >= next_roster:
                next_roster = self._loop.time() + settings.roster_poll_ms / 1000
                self.look_at_roster()

    def _warn_of_skew(self) -> None:
        bad = abs(self._skew.skew_ms) >= self._settings.skew_warn_ms
        if bad != self._skew_warned:
            self._skew_warned = bad
            say = _log.warning if bad else _log.info
            say("clock differs from the broker's" if bad else "clock is right again", skew_ms=self._skew.skew_ms)

    # --- what the parts tell each other

    def _deliver_peers(self, records: Sequence[Record]) -> None:
        presence = [record for record in records if record.topic == self._names.presence]
        if len(presence) < len(records):
            self._peers.deliver([record for record in records if record.topic != self._names.presence])
        if presence:
            self._presence.deliver(presence)

    def _store(self, partition: int, next_offset: int) -> None:
        if self._group is not None:
            self._group.store(partition, next_offset)

    def _beat_now(self) -> None:
        self._beats.now()

    def _on_internal(self, signed: InternalSigned) -> None:
        self._ceremonies.feed(signed)

    def _on_poison(self, record: Record, reason: str, detail: str) -> None:
        self._requests.keep(record, reason, detail)

    def _on_garbage(self, record: Record, code: str) -> None:
        # Every replica reads these topics: the live one with the lowest index writes the letter.
        if self._seat == min(self._watch_peers.live(), default=self._seat):
            self._letters.note(record, code, "not a record that belongs here")

    def _on_peers(self, changed: PeersChanged) -> None:
        self._signing.feed(changed)
        self._ceremonies.feed(changed)
        self._show_margin()

    def _on_view(self, changed: ViewChanged) -> None:
        self._identities.keys = changed.view.identity_keys or self._identities.keys
        self._view = changed.view
        for key_id, keys in changed.view.current.items():
            self._given.metrics.key_epoch.labels(key_id=key_id).set(keys.epoch)
        self._show_margin()
        self._signing.feed(changed)
        self._beats.now()

    def _show_margin(self) -> None:
        live, metrics = self._watch_peers.live(), self._given.metrics
        least = 0
        for key_id, keys in self._view.current.items():
            margin = sum(seat in live for seat in keys.holders) - keys.threshold
            metrics.quorum_margin.labels(key_id=key_id).set(margin)
            least = min(least, margin)
        metrics.alarm.labels(alarm="waiting_for_quorum").set(least < 0)

    def _on_roster(self, raw: bytes, roster: Roster) -> None:
        self._ceremonies.feed(RosterFile(raw))

    def _on_log_lost(self, topic: str, detail: str) -> None:
        self._given.metrics.alarm.labels(alarm="ceremony_log_lost").set(1)
        _log.error("the ceremony log was lost: signing goes on, ceremonies stop", topic=topic, detail=detail)
        self._ceremonies.lost()

    # --- what we say of ourselves

    def _facts(self) -> Facts:
        return Facts(
            broker_up=self._kafka.up(),
            positioned=self._positioned,
            caught_up=self._ceremonies.caught_up.is_set(),
            beats_heard=self._presence.own_beats,
            skew_ms=self._skew.skew_ms,
            draining=self._beats.draining,
            keys={key.key_id: _why_not(key) for key in self._key_presence()},
        )

    def _state(self) -> ReplicaState:
        keys = self._key_presence()
        if not self._ceremonies.caught_up.is_set():
            return ReplicaState.STARTING
        if not any(key.epoch for key in keys):
            return ReplicaState.WAITING_FOR_KEY
        return ReplicaState.READY if self.readiness().ok else ReplicaState.DEGRADED

    def _load(self) -> tuple[tuple[int, ...], int, int, int]:
        state = self._signing.coordinator
        partitions = () if self._beats.draining else self._requests.partitions
        return partitions, self._requests.in_flight, self._requests.queue_wait_ms, state.nonces_left

    def _key_presence(self) -> tuple[KeyPresence, ...]:
        return status(self._ceremonies.state)


def _why_not(key: KeyPresence) -> str:
    if key.holds_share:
        return ""
    if key.epoch == 0:
        where = f", now in phase {key.phase}, waiting for seats {list(key.awaited)}" if key.phase else ""
        return f"not generated yet{where}"
    return f"this seat holds no share of epoch {key.epoch}; it has asked to be healed"
