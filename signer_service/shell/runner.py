"""One replica, from its first connection to its last commit: all parts on one event loop, in the order that they need.

Start: find the positions, replay the ceremony log, beat, and only then join the group: partitions are claimed by a
replica that knows what it can sign. End: say so in presence, fetch no more, finish, flush, commit, leave.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from common.clock_skew import SkewMeter
from common.errors import Unavailable
from common.ids import Instant
from common.kafka import suitable
from common.kafka.hearing import Hearing
from common.kafka.port import At, End, GroupConsumer, Kafka, OnLost, Position, Record, Start, TailConsumer
from common.observability.admin import Health
from common.observability.lines import Lines
from common.observability.logging import get_logger
from common.wire import topics
from common.wire.envelope import Signer
from common.wire.messages import Accepted, Refused, Role, Roster, SignItem
from signer_service.protocol import coordinator, participant
from signer_service.protocol.ceremony_state import RosterFile
from signer_service.protocol.machine import InternalSigned, Note, PeersChanged, RefreshAsked, Tick
from signer_service.protocol.refresh_decision import decide_refresh
from signer_service.protocol.view import SigningView, ViewChanged
from signer_service.shell import health, unread
from signer_service.shell.beats import Beats
from signer_service.shell.ceremonies import Ceremonies
from signer_service.shell.ears import Ears
from signer_service.shell.given import Given
from signer_service.shell.health import Heartbeat
from signer_service.shell.life import Life
from signer_service.shell.names import names
from signer_service.shell.notes import Notes
from signer_service.shell.outbox import Outbox
from signer_service.shell.peers import Identities, PeerInbox, PresenceInbox
from signer_service.shell.poison import DeadLetters
from signer_service.shell.presence import PeerWatch
from signer_service.shell.records import RecordBook
from signer_service.shell.requests import Limits, Requests
from signer_service.shell.signing import Signing
from signer_service.shell.standing import Standing
from signer_service.shell.traces import Traces
from signer_service.shell.waiting import wait_until
from signer_service.shell.watchdog import Watchdog

FLUSH_S: Final = 3.0
PHASES: Final = frozenset({"ceremony-opened", "ceremony-phase", "ceremony-ended", "ceremony-committed"})
"""What the ceremony machine notes when a ceremony goes a step on."""
PHASE_BEAT_S: Final = 0.1
"""How long a phase may last before a beat tells of it."""
COPIES_S: Final = 10.0
"""How long the copies of key records are waited for; without them the log is read from where the journal ends."""
BEATS_MISSED: Final = 3
"""So many of our beats in a row that do not come back, and nobody is late in a ceremony."""
LOOK_S: Final = 0.1
"""How often silence is looked for: a seat that went away shall be noticed soon after it is overdue."""
RETRY_S: Final = 0.5
RETRY_MOST_S: Final = 5.0
"""Pause between two attempts to reach the topics at the start: it doubles up to this."""

SEAT_TAKEN: Final = (
    ": another process is a member under this seat's name: a second one of this replica, or another system on this "
    "broker with the same topic prefix, which needs one of its own"
)
"""Two systems that share all topics would end each other's signers for ever, and each be told of a stranger only."""

Reached = TypeVar("Reached")

_log = get_logger(__name__)


class Replica:
    """Made on the running event loop. ``run`` until stopped; the two probes may be asked at any time."""

    def __init__(self, given: Given, kafka: Kafka) -> None:
        settings, sources, metrics = given.settings, given.sources, given.metrics
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._lines = Lines(_log, loop.time)
        self._given = given
        self._settings = settings
        self._kafka = kafka
        self._life = Life(loop)
        self._seat = settings.seat
        self._names = names(settings.topic_prefix)
        self._signer = Signer(Role.SIGNER, self._seat, given.boot_id, given.identity)
        self._identities = Identities({seat.index: seat.identity_key for seat in given.roster.seats})
        self._producer = kafka.producer()
        self._notes = Notes(metrics)
        self._group: GroupConsumer | None = None
        self._tails: list[TailConsumer] = []
        self._log: TailConsumer | None = None
        self._skew = SkewMeter()
        self._watch_peers = PeerWatch(settings.suspect_after_ms / 1000, self._seat)
        self._heartbeat = Heartbeat(loop, metrics)
        self._hearing = Hearing(loop.time, self._renew_tails)
        self._ears = Ears(loop.time, BEATS_MISSED * settings.beat_ms / 1000)

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
            self._life.bug,
            traces,
        )
        self._signing = Signing(
            loop,
            sources,
            participant.start(self._seat, given.boot_id, given.wire),
            coordinator.start(self._seat, given.boot_id, given.wire, decide_refresh=self._decide_refresh),
            self._outbox,
            self._notes.tell,
            self._life.bug,
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
            self._life.bug,
            traces,
        )
        book.on_room = self._requests.made_room
        book.clock = loop.time
        book.on_stage = lambda stage, seconds: metrics.stage_duration.labels(stage=stage).observe(seconds)
        state, saved = given.restored.take()
        self._ceremonies = Ceremonies(
            loop,
            sources,
            state,
            given.directory,
            saved,
            self._producer,
            self._outbox,
            self._on_garbage,
            self._signer,
            self._names,
            metrics,
            self._tell_of_ceremonies,
            self._on_view,
            self._ears,
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
            self._ears.heard,
        )
        self._watchdog = Watchdog(metrics)
        self._standing = Standing(
            kafka, settings, metrics, self._ceremonies, self._signing, self._requests, self._presence, self._skew
        )
        self._beats = Beats(
            loop,
            self._producer,
            self._signer,
            self._names.presence,
            sources,
            metrics,
            settings.beat_ms,
            self._standing.state,
            self._standing.load,
            self._standing.keys,
            self._skew,
            self._life.bug,
            self._hearing,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop``, then drain.

        Raises:
            Unavailable: Kafka, or something in it that is needed, is not there.
            Bug: what cannot happen did; one line was logged.
        """
        stopped = asyncio.create_task(stop.wait())
        try:
            if await self._life.first(self._start(), stopped):
                _log.info("serving", seat=self._seat, admin_port=self._settings.port)
                await self._life.first(None, stopped)
                if not self._life.over:
                    await self._drain()
        finally:
            stopped.cancel()
            await self._close()
        self._life.check()

    def kafka_state(self, up: bool) -> None:
        """For ``Hooks.on_state``."""
        self._given.metrics.kafka_up.set(up)

    def fatal(self, line: str) -> None:
        """For ``Hooks.on_fatal``."""
        self._life.fatal(line + SEAT_TAKEN if "fenced by other consumer" in line else line)

    def liveness(self) -> Health:
        """For /healthz."""
        return health.liveness(self._kafka.heartbeats, self._given.sources.monotonic, self._life.dead)

    def readiness(self) -> Health:
        """For /readyz."""
        return self._standing.readiness()

    # --- start and end

    async def _start(self) -> None:
        settings = self._settings
        self._heartbeat.start()
        self._producer.start()
        await self._patiently(self._prepare_topics)
        _, keys = await asyncio.gather(self._patiently(self._read_peers), self._patiently(self._read_keys))
        await self._find_place(keys)
        self._ceremonies.feed(RosterFile(self._given.roster_raw))
        self._life.task("ceremonies", self._ceremonies.run())
        log = await self._read_log()
        self._life.task("unread", self._watch_log(keys))
        self._standing.positioned = True
        self._beats.start()
        self._life.task("watch", self._watch())
        await _either(self._ceremonies.caught_up, self._ceremonies.turned_back)
        if not self._ceremonies.caught_up.is_set():
            _log.warning("the newest key records lead to no place in the ceremony log: reading it from further back")
            self._tails.remove(log)
            await log.close()
            self._ceremonies.read_again()
            await self._read_log()
            await self._ceremonies.caught_up.wait()
        group = self._kafka.group(
            self._names.requests,
            self._requests,
            member=f"signer-{self._seat}",
            grace_s=settings.revoke_grace_ms / 1000 + 0.5,
        )
        self._requests.attach(group)
        self._group = self._standing.group = group
        await group.start()

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

    async def _read(
        self, positions: Mapping[str, Position], deliver: Callable[[Sequence[Record]], None]
    ) -> TailConsumer:
        tail = self._kafka.tail(positions, deliver)
        await tail.start()  # one that could not start has closed itself, and has delivered nothing
        self._tails.append(tail)
        return tail

    async def _read_peers(self) -> TailConsumer:
        return await self._read({self._names.peer(self._seat): End(), self._names.presence: End()}, self._deliver_peers)

    async def _read_keys(self) -> TailConsumer:
        return await self._read({self._names.keys: Start()}, self._ceremonies.copies.deliver)

    async def _find_place(self, keys: TailConsumer) -> None:
        """Nobody reads a thousand epochs to find out that they are over."""
        copies, end = self._ceremonies.copies, keys.end_at_start(self._names.keys)
        if keys.begin_at_start(self._names.keys) < end:
            await wait_until(lambda: copies.next >= end, COPIES_S)
        self._ceremonies.find_place(self._given.roster)
        # Asked for after the copies were read: one of a commit in between leads to where the log did not reach before.
        marks = await self._patiently(lambda: keys.watermarks(self._names.ceremony))
        if not marks.low <= self._ceremonies.state.log.offset + 1 <= marks.high:
            self._ceremonies.give_up_place()

    async def _read_log(self) -> TailConsumer:
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

    async def _watch_log(self, asker: TailConsumer) -> None:
        def renew() -> None:
            # Where the log is lost there is nothing to read on from.
            if self._log is not None and not self._ceremonies.state.soft.lost:
                _log.warning("the ceremony log has records that we did not read for long: reading on with a new client")
                self._log.renew()

        def lost(at: int, end: int) -> None:
            if not self._ceremonies.state.soft.lost:
                self._on_log_lost(self._names.ceremony, f"it ends at {end}, this replica is at {at}")

        await unread.watch(asker, self._names.ceremony, self._ceremonies.next_offset, renew, lost, unread.LOOK_S)

    async def _prepare_topics(self) -> None:
        """Make our own, where it is ours to make, and look whether all are as they should be."""
        prefix = self._settings.topic_prefix
        own = topics.peer(prefix, self._seat)
        shared = (topics.requests, topics.presence, topics.ceremony, topics.keys, topics.audit)
        admin = self._kafka.admin()
        try:
            if not self._settings.kafka_embedded:
                await admin.ensure([own])
            await suitable.check(admin, (own, *(each(prefix) for each in shared)), _differs)
        finally:
            await admin.close()

    async def _drain(self) -> None:
        settings = self._settings
        _log.info("draining", unfinished=self._requests.unfinished())
        self._beats.draining = self._standing.draining = True
        self._beats.now()
        self._requests.drain()
        began = self._loop.time()

        def finished() -> bool:
            if not self._kafka.up():
                return True  # nobody hears us, and nothing can be finished: what is not committed comes again
            announced = self._loop.time() - began >= settings.drain_announce_ms / 1000
            return self._life.over or (announced and not self._requests.unfinished() and self._outbox.idle)

        await wait_until(finished, settings.drain_ms / 1000)
        left = self._requests.unfinished()
        if left:
            _log.warning("some records were left for another replica", records=left)

    async def _close(self) -> None:
        if self._group is not None:
            await self._group.close()
        self._beats.stop()
        self._signing.stop()
        await self._life.end_tasks()
        await asyncio.gather(*(tail.close() for tail in self._tails))
        with contextlib.suppress(Exception):
            self._outbox.flush()
        await self._producer.flush(FLUSH_S if self._kafka.up() else 0)
        await self._producer.close()
        self._heartbeat.stop()
        try:
            await self._ceremonies.finish()
        except OSError as error:
            self._life.fatal(f"the state directory cannot be written: {error.strerror}")
        _log.info("stopped")

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
            self._standing.look()
            if self._ears.has_news():
                self._ceremonies.feed(Tick())
            self._watchdog.look(self._ceremonies.state, self._watch_peers.beats(), self._given.sources.now())
            for seat, age in self._watch_peers.silence_s(self._given.sources.monotonic()).items():
                self._given.metrics.presence_age.labels(role="signer", seat=seat).set(age)
            if self._loop.time() >= next_roster:
                next_roster = self._loop.time() + settings.roster_poll_ms / 1000
                self.look_at_roster()

    # --- what the parts tell each other

    def _deliver_peers(self, records: Sequence[Record]) -> None:
        presence = [record for record in records if record.topic == self._names.presence]
        if len(presence) < len(records):
            self._peers.deliver([record for record in records if record.topic != self._names.presence])
        if presence:
            self._hearing.heard()
            self._presence.deliver(presence)

    def _renew_tails(self) -> None:
        _log.warning("our beats are confirmed, and no beat was heard for long: reading on with new clients")
        for tail in self._tails:
            tail.renew()

    def _store(self, partition: int, next_offset: int) -> None:
        if self._group is not None:
            self._group.store(partition, next_offset)

    def _beat_now(self) -> None:
        self._beats.now()

    def _decide_refresh(self, item: SignItem, raw: bytes, _view: SigningView, now: Instant) -> Accepted | Refused:
        return decide_refresh(self._ceremonies.state, item.key_id, raw, now)

    def _on_internal(self, event: InternalSigned | RefreshAsked) -> None:
        self._ceremonies.feed(event)

    def _tell_of_ceremonies(self, notes: tuple[Note, ...]) -> None:
        self._notes.tell(notes)
        if any(note.name in PHASES for note in notes):
            # Whoever watches a refresh sees it go on. A phase that is over at once is worth no record of everybody.
            self._beats.within(PHASE_BEAT_S)

    def _on_poison(self, record: Record, reason: str, detail: str) -> None:
        self._requests.keep(record, reason, detail)

    def _on_garbage(self, record: Record, code: str) -> None:
        # Every replica reads these topics: the live one with the lowest index writes the letter.
        if self._seat == min(self._watch_peers.live(), default=self._seat):
            self._letters.note(record, code, "not a record that belongs here")

    def _on_peers(self, changed: PeersChanged) -> None:
        self._signing.feed(changed)
        self._ceremonies.feed(changed)
        self._standing.show_margin(self._watch_peers.live())

    def _on_view(self, changed: ViewChanged) -> None:
        self._identities.keys = changed.view.identity_keys or self._identities.keys
        others = self._standing.show_view(changed.view, self._watch_peers.live())
        self._signing.feed(changed)
        if others:
            # Nobody shall take us for a holder of the epoch before.
            self._beats.now()

    def _on_roster(self, raw: bytes, roster: Roster) -> None:
        self._ceremonies.feed(RosterFile(raw))

    def _on_log_lost(self, topic: str, detail: str) -> None:
        self._given.metrics.alarm.labels(alarm="ceremony_log_lost").set(1)
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
