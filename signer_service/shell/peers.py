"""What comes from other replicas: records of signing sessions, and beats. Believed only in a good envelope.

One signature covers a whole batch of sessions, so it is checked once per record. Who may sign is what the newest roster
says, of file and log: a revoked identity is heard no more.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from common.clock_skew import SkewMeter
from common.errors import BadInput
from common.ids import BootId, Index
from common.kafka.port import Record
from common.observability.logging import get_logger
from common.wire import codec
from common.wire.envelope import open_envelope
from common.wire.messages import Envelope, Presence, Role, SignPackage
from signer_service.protocol.machine import PeerArrived, PeersChanged, Sender
from signer_service.shell.poison import DeadLetters
from signer_service.shell.presence import PeerWatch
from signer_service.shell.sources import Sources
from signer_service.shell.traces import Traces

_log = get_logger(__name__)

FOREIGN: Final = frozenset({"unknown-sender", "bad-signature", "wrong-topic"})
"""Well-formed, but not of our system or not of a seat in force: skipped and counted."""


class Identities:
    """The identity keys in force. Replaced whole when a roster or the ceremonies say so."""

    def __init__(self, keys: Mapping[Index, bytes]) -> None:
        self.keys = keys

    def keys_of(self, role: Role, index: int) -> Iterable[bytes]:
        """For ``open_envelope``: only seats speak here."""
        key = self.keys.get(Index(index)) if role is Role.SIGNER else None
        return () if key is None else (key,)


class PeerInbox:
    """Our own peer topic. Never paused: the answers to our own sessions come there."""

    def __init__(
        self,
        topic: str,
        identities: Identities,
        letters: DeadLetters,
        feed: Callable[[PeerArrived], None],
        traces: Traces | None = None,
    ) -> None:
        self._topic = topic
        self._identities = identities
        self._letters = letters
        self._feed = feed
        self._traces = traces or Traces()

    def deliver(self, records: Sequence[Record]) -> None:
        """Check and hand on one batch."""
        for record in records:
            began_ns = self._traces.received_at()
            try:
                opened = open_envelope(record.value, self._topic, self._identities.keys_of)
                message = codec.decode_peer(opened.payload)
            except BadInput as error:
                self._letters.note(record, error.code, error.detail)
                continue
            self._feed(PeerArrived(Sender(Index(opened.index), opened.boot_id), message, record.value))
            if isinstance(message, SignPackage):
                self._traces.worked(record, message, began_ns)


class PresenceInbox:
    """The presence topic: who is alive, and our own beats as a look at our own clock."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        topic: str,
        seat: Index,
        boot_id: BootId,
        identities: Identities,
        letters: DeadLetters,
        watch: PeerWatch,
        skew: SkewMeter,
        sources: Sources,
        feed: Callable[[PeersChanged], None],
        on_own_beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._topic = topic
        self._seat = seat
        self._boot_id = boot_id
        self._identities = identities
        self._letters = letters
        self._watch = watch
        self._skew = skew
        self._sources = sources
        self._feed = feed
        self._on_own_beat = on_own_beat
        self._twin: BootId | None = None
        self.own_beats = 0
        """How many of our own beats came back: our way to the broker and back is open."""

    def deliver(self, records: Sequence[Record]) -> None:
        """Take one batch of beats."""
        for record in records:
            try:
                self._take(record)
            except BadInput as error:
                # Every replica reads this topic: the one with the lowest index writes the letter.
                if error.code not in FOREIGN and self._seat == min(self._watch.live(), default=self._seat):
                    self._letters.note(record, error.code, error.detail)
        self.look()

    def look(self) -> None:
        """Tell the machines if somebody appeared, went silent or was started anew. With every beat, and in between."""
        before = self._watch.live().keys()
        live = self._watch.changed(self._sources.monotonic())
        if live is not None:
            if live.keys() != before:
                _log.info("live seats", seats=sorted(live))
            self._feed(PeersChanged(live))

    def _take(self, record: Record) -> None:
        # API pods beat here too; their word changes nothing for a signer, so it is not worth a verification.
        if codec.decode(record.value, Envelope).role is not Role.SIGNER:
            return
        opened = open_envelope(record.value, self._topic, self._identities.keys_of)
        beat = codec.decode(opened.payload, Presence)
        seat = Index(opened.index)
        if seat == self._seat and opened.boot_id == self._boot_id:
            self.own_beats += 1
            self._on_own_beat()
            if record.timestamp_ms is not None:
                self._skew.sample(beat.sent_ms, record.timestamp_ms, self._sources.now())
        elif seat == self._seat and opened.boot_id != self._twin:
            self._twin = opened.boot_id
            _log.warning("another process speaks for our seat; stop one of the two", seat=seat)
            return
        elif seat == self._seat:
            return
        self._watch.beat(seat, opened.boot_id, beat, self._sources.monotonic())
