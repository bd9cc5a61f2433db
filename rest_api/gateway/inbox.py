"""What comes in, opened and sorted: answers to the gateway, beats to the tables, key records to the directory.

Nothing here is believed because of where it stood: an envelope must be a seat's or a pod's, a key record must stand
for itself, and a signature is verified later against the message that was asked.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from common.errors import BadInput, Unavailable
from common.ids import Index, Instant, PodIndex
from common.kafka import dead_letter
from common.kafka.port import Producer, Record
from common.observability.lines import Lines
from common.observability.metrics import Metrics
from common.wire import codec, envelope
from common.wire.messages import Envelope, MsgSigned, Presence, Role, Signed
from rest_api.gateway.beats import Pods
from rest_api.gateway.key_directory import KeyDirectory
from rest_api.gateway.routing import RoutingTable
from rest_api.gateway.traces import Traces


@dataclass(frozen=True, slots=True)
class Places:
    """Full names of the topics that a pod reads, the prefix they share, and what we are called in a dead letter."""

    replies: str
    presence: str
    keys: str
    prefix: str
    reader: str


class Inbox:
    """Sorts batches of records.

    Args:
        places: Which topic is which.
        keys: Learns key records, and knows who may speak.
        routing: Learns seats' beats.
        pods: Learns pods' beats.
        producer: For dead letters.
        metrics: Where things are counted.
        lines: Where things are said.
        traces: Told of each answer.
        on_answer: Gets each answer that can be read, and the seat that vouches for it (None: nobody).
        on_rival: Told when another start claims our index for the first time.
    """

    def __init__(
        self,
        places: Places,
        keys: KeyDirectory,
        routing: RoutingTable,
        pods: Pods,
        producer: Producer,
        metrics: Metrics,
        lines: Lines,
        traces: Traces,
        on_answer: Callable[[MsgSigned, Index | None], None],
        on_rival: Callable[[], None],
    ) -> None:
        self._places = places
        self._keys = keys
        self._routing = routing
        self._pods = pods
        self._producer = producer
        self._metrics = metrics
        self._lines = lines
        self._traces = traces
        self._on_answer = on_answer
        self._on_rival = on_rival

    def deliver(self, batch: Sequence[Record]) -> None:
        """Answers and beats."""
        for record in batch:
            if record.topic == self._places.replies:
                self._take_answer(record)
            else:
                self._take_beat(record)

    def deliver_keys(self, batch: Sequence[Record]) -> None:
        """Key records."""
        for record in batch:
            if not record.value:  # a tombstone
                continue
            seats = self._keys.seats()
            try:
                news = self._keys.take(record.value)
            except BadInput as bad:
                self._refuse_quietly(record, bad)
                continue
            if self._keys.seats() != seats:
                self._routing.retain(self._keys.seats())
            if news:
                self._lines.info("a key record is believed", **{one.key_id: one.epoch for one in self._keys.all()})

    def lost_keys(self, topic: str, detail: str) -> None:
        """The keys topic was lost and made again: what is believed stays believed, nothing new is learned."""
        self._lines.error("the topic of key records was lost: new epochs will not be seen", topic=topic, detail=detail)

    def _take_answer(self, record: Record) -> None:
        began_ns = self._traces.received_at()
        try:
            seat, payload = self._open_answer(record)
            answer = codec.decode(payload, MsgSigned)
        except BadInput as bad:
            self._metrics.answers.labels(kind="invalid").inc()
            self._bury(record, bad)
            self._traces.answered(record, began_ns, bad.code)
            return
        self._on_answer(self._without_claims(answer) if seat is None else answer, seat)
        self._traces.answered(record, began_ns)

    def _open_answer(self, record: Record) -> tuple[Index | None, bytes]:
        """The committee seat that vouches for the answer, or None, and what it says."""
        try:
            opened = envelope.open_envelope(record.value, self._places.replies, self._keys.keys_of)
        except BadInput as bad:
            # A signature that verifies is right whoever brings it, so what is inside is looked at all the same.
            unsealed = codec.decode(record.value, Envelope)
            self._lines.warn("an answer in an envelope that is nobody's", code=bad.code, offset=record.offset)
            return None, unsealed.payload
        return (Index(opened.index) if opened.role is Role.SIGNER else None), opened.payload

    def _without_claims(self, answer: MsgSigned) -> MsgSigned:
        """A stranger's word about epoch and signers is worth nothing, even beside a true signature."""

        def plain(signed: Signed) -> Signed:
            known = self._keys.believed(signed.key_id)
            return signed if known is None else replace(signed, epoch=known.epoch, signers=())

        outcomes = (
            replace(outcome, result=plain(outcome.result)) if isinstance(outcome.result, Signed) else outcome
            for outcome in answer.outcomes
        )
        return replace(answer, outcomes=tuple(outcomes))

    def _take_beat(self, record: Record) -> None:
        try:
            opened = envelope.open_envelope(record.value, self._places.presence, self._keys.keys_of)
            beat = codec.decode(opened.payload, Presence)
        except BadInput as bad:
            self._refuse_quietly(record, bad)
            return
        if opened.role is Role.SIGNER:
            self._routing.heard(Index(opened.index), opened.boot_id, beat, record.offset)
            return
        if opened.boot_id == self._pods.instance_id and record.timestamp_ms is not None:
            self._pods.skew.sample(beat.sent_ms, record.timestamp_ms, Instant(time.time_ns() // 1_000_000))
        news = self._pods.heard(PodIndex(opened.index), opened.boot_id, beat)
        if news and beat.seq == 1 and self._pods.is_rival(opened.boot_id):
            # It should hear of us before it calls itself ready, not when our next beat is due.
            self._on_rival()

    def _refuse_quietly(self, record: Record, bad: BadInput) -> None:
        """A record that everybody reads: the signers keep the dead letter, once, not each pod again."""
        self._metrics.dead_letters.labels(topic=record.topic, reason=bad.code).inc()
        self._lines.warn("a record is not believed", topic=record.topic, offset=record.offset, code=bad.code)

    def _bury(self, record: Record, bad: BadInput) -> None:
        self._metrics.dead_letters.labels(topic=record.topic, reason=bad.code).inc()
        self._lines.warn("an answer that cannot be read", topic=record.topic, offset=record.offset, code=bad.code)
        with contextlib.suppress(Unavailable):  # then the count and the line are all that is kept of it
            places = self._places
            dead_letter.send(self._producer, places.prefix, record, bad.code, bad.detail, places.reader)
