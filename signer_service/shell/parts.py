"""The parts of one replica, each made before whoever needs it, and what they tell each other.

Nothing runs yet when they are made: ``runner`` starts and ends them, in the order that the broker has to see.
"""

import asyncio
from typing import Final

from common.clock_skew import SkewMeter
from common.ids import Instant
from common.kafka.port import Kafka, Record
from common.wire.envelope import Signer
from common.wire.messages import Accepted, Refused, Role, SignItem
from signer_service.protocol import coordinator, participant
from signer_service.protocol.machine import InternalSigned, Note, PeersChanged, RefreshAsked
from signer_service.protocol.refresh_decision import decide_refresh
from signer_service.protocol.view import SigningView, ViewChanged
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
from signer_service.shell.readers import Readers
from signer_service.shell.records import RecordBook
from signer_service.shell.requests import Limits, Requests
from signer_service.shell.signing import Signing
from signer_service.shell.standing import Standing
from signer_service.shell.traces import Traces
from signer_service.shell.watchdog import Watchdog

PHASES: Final = frozenset({"ceremony-opened", "ceremony-phase", "ceremony-ended", "ceremony-committed"})
"""What the ceremony machine notes when a ceremony goes a step on."""
PHASE_BEAT_S: Final = 0.1
"""How long a phase may last before a beat tells of it."""
BEATS_MISSED: Final = 3
"""So many of our beats in a row that do not come back, and nobody is late in a ceremony."""


class Parts:
    """Made on the running event loop, once for each process."""

    def __init__(self, given: Given, kafka: Kafka, life: Life) -> None:
        loop = asyncio.get_running_loop()
        settings, sources, metrics = given.settings, given.sources, given.metrics
        topics = names(settings.topic_prefix)
        signer = Signer(Role.SIGNER, settings.seat, given.boot_id, given.identity)
        book = RecordBook(self._store)
        traces = Traces(given.spans)
        skew = SkewMeter()

        self._seat = settings.seat
        self._identities = Identities({seat.index: seat.identity_key for seat in given.roster.seats})
        self._notes = Notes(metrics)
        self.producer = kafka.producer()
        self.heartbeat = Heartbeat(loop, metrics)
        self.ears = Ears(loop.time, BEATS_MISSED * settings.beat_ms / 1000)
        self.watch_peers = PeerWatch(settings.suspect_after_ms / 1000, self._seat)
        self.watchdog = Watchdog(metrics)
        self._letters = DeadLetters(loop, self.producer, settings.topic_prefix, f"signer-{self._seat}", metrics)
        self.outbox = Outbox(
            loop,
            self.producer,
            signer,
            topics,
            book,
            metrics,
            self._on_internal,
            self._on_poison,
            life.bug,
            traces,
        )
        self.signing = Signing(
            loop,
            sources,
            participant.start(self._seat, given.boot_id, given.wire),
            coordinator.start(self._seat, given.boot_id, given.wire, decide_refresh=self._decide_refresh),
            self.outbox,
            self._notes.tell,
            life.bug,
        )
        self.requests = Requests(
            loop,
            sources,
            self.signing,
            self.outbox,
            self._letters,
            book,
            settings.topic_prefix,
            Limits(settings.queue_high_items, settings.in_flight_items, settings.revoke_grace_ms / 1000),
            metrics,
            self._beat_now,
            life.bug,
            traces,
        )
        book.clock = loop.time
        book.on_stage = lambda stage, seconds: metrics.stage_duration.labels(stage=stage).observe(seconds)
        state, saved = given.restored.take()
        self.ceremonies = Ceremonies(
            loop,
            sources,
            state,
            given.directory,
            saved,
            self.producer,
            self.outbox,
            self._on_garbage,
            signer,
            topics,
            metrics,
            self._tell_of_ceremonies,
            self._on_view,
            self.ears,
        )
        self.presence = PresenceInbox(
            loop,
            topics.presence,
            self._seat,
            given.boot_id,
            self._identities,
            self._letters,
            self.watch_peers,
            skew,
            sources,
            self._on_peers,
            self.ears.heard,
        )
        peers = PeerInbox(topics.peer(self._seat), self._identities, self._letters, self.signing.feed, traces)
        self.readers = Readers(kafka, settings, topics, peers, self.presence, self.ceremonies, metrics, loop.time)
        self.standing = Standing(
            kafka, settings, metrics, self.ceremonies, self.signing, self.requests, self.presence, skew
        )
        self.beats = Beats(
            loop,
            self.producer,
            signer,
            topics.presence,
            sources,
            metrics,
            settings.beat_ms,
            self.standing.state,
            self.standing.load,
            self.standing.keys,
            skew,
            life.bug,
            self.readers.hearing,
        )

    # --- what they tell each other

    def _store(self, partition: int, next_offset: int) -> None:
        if self.standing.group is not None:
            self.standing.group.store(partition, next_offset)

    def _beat_now(self) -> None:
        self.beats.now()

    def _decide_refresh(self, item: SignItem, raw: bytes, _view: SigningView, now: Instant) -> Accepted | Refused:
        return decide_refresh(self.ceremonies.state, item.key_id, raw, now)

    def _on_internal(self, event: InternalSigned | RefreshAsked) -> None:
        self.ceremonies.feed(event)

    def _tell_of_ceremonies(self, notes: tuple[Note, ...]) -> None:
        self._notes.tell(notes)
        if any(note.name in PHASES for note in notes):
            # Whoever watches a refresh sees it go on. A phase that is over at once is worth no record of everybody.
            self.beats.within(PHASE_BEAT_S)

    def _on_poison(self, record: Record, reason: str, detail: str) -> None:
        self.requests.keep(record, reason, detail)

    def _on_garbage(self, record: Record, code: str) -> None:
        # Every replica reads these topics: the live one with the lowest index writes the letter.
        if self._seat == min(self.watch_peers.live(), default=self._seat):
            self._letters.note(record, code, "not a record that belongs here")

    def _on_peers(self, changed: PeersChanged) -> None:
        self.signing.feed(changed)
        self.ceremonies.feed(changed)
        self.standing.show_margin(self.watch_peers.live())

    def _on_view(self, changed: ViewChanged) -> None:
        self._identities.keys = changed.view.identity_keys or self._identities.keys
        others = self.standing.show_view(changed.view, self.watch_peers.live())
        self.signing.feed(changed)
        if others:
            # Nobody shall take us for a holder of the epoch before.
            self.beats.now()
