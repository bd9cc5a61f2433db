"""What the signing machines want sent, gathered for a turn of the loop or 2 ms, in as few records as the limits allow.

One envelope signature and one record cost the same for one session as for hundreds, so what many steps say to one seat
travels together. Audit goes out before the answer: what nobody wrote down must not be seen outside.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from common.errors import BadInput
from common.ids import Index, RequestId
from common.kafka.port import Delivery, Producer, Record
from common.observability.lines import Lines
from common.observability.logging import get_logger
from common.observability.metrics import Metrics
from common.pacing import Pace
from common.wire import codec
from common.wire.envelope import Signer, seal
from common.wire.messages import (
    AuditEntry,
    AuditEvent,
    Declined,
    MsgSigned,
    MsgToSign,
    NonceBatch,
    NonceGrant,
    NonceRequest,
    NonceWant,
    Outcome,
    PeerMessage,
    RefusalCode,
    Refused,
    Share,
    SignatureShares,
    Signed,
    SignGroup,
    SignPackage,
)
from common.wire.topics import MAX_SENT_BYTES, is_reply_topic
from signer_service.protocol.machine import (
    Answer,
    InternalSigned,
    Origin,
    Outgoing,
    RecordDone,
    RefreshAsked,
    ToAudit,
    ToPeer,
)
from signer_service.protocol.package import share_out
from signer_service.shell.names import Names
from signer_service.shell.patient_sender import PatientSender
from signer_service.shell.records import RecordBook
from signer_service.shell.traces import Traces

GATHER_S: Final = 0.002
"""What is ready within this time of the last record waits for the next."""
MOST_WANTS: Final = 256
MOST_GRANTS: Final = 12
"""Of at most 256 commitments of 64 bytes: below 256 KiB with everything around them."""
MOST_ANSWERS: Final = 2048
"""Of about 75 bytes each: below 256 KiB."""
REFUSALS_SAID: Final = 20
"""Refused items that get a line of their own in ten seconds; the rest are counted."""

_log = get_logger(__name__)


@dataclass(slots=True)
class _Reply:
    request: MsgToSign
    outcomes: list[Outcome] = field(default_factory=list)
    entries: list[AuditEntry] = field(default_factory=list)
    done: bool = False


@dataclass(slots=True)
class _ForPeer:
    groups: list[SignGroup] = field(default_factory=list)
    answers: list[Share | Declined] = field(default_factory=list)
    wants: list[NonceWant] = field(default_factory=list)
    grants: list[NonceGrant] = field(default_factory=list)


class Outbox:
    """Gathers with ``put``, sends at the end of the turn or soon. On the event loop only."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        producer: Producer,
        signer: Signer,
        names: Names,
        book: RecordBook,
        metrics: Metrics,
        on_internal: Callable[[InternalSigned | RefreshAsked], None],
        on_poison: Callable[[Record, str, str], None],
        on_bug: Callable[[BaseException], None],
        traces: Traces | None = None,
    ) -> None:
        self._sender = PatientSender(loop, producer, metrics, on_bug)
        self._signer = signer
        self._names = names
        self._book = book
        self._metrics = metrics
        self._on_internal = on_internal
        self._on_poison = on_poison
        self._on_bug = on_bug
        self._traces = traces or Traces()
        self._lines = Lines(_log, loop.time)
        self._peers: dict[Index, _ForPeer] = {}
        self._replies: dict[Origin, _Reply] = {}
        self._audits: list[AuditEvent] = []
        self._pace = Pace(loop, GATHER_S, self._turn)

    def put(self, sends: Iterable[Outgoing]) -> None:
        """Take what one step wants sent: it leaves at the end of this turn, or ``GATHER_S`` after what left last."""
        audits: dict[str, AuditEvent] = {}
        for each in sends:
            if isinstance(each, ToPeer):
                self._put_peer(each.seat, each.message)
            elif isinstance(each, ToAudit):
                if each.event.record_id:
                    audits[each.event.record_id] = each.event
                else:
                    self._audits.append(each.event)
            elif isinstance(each, Answer):
                reply = self._replies.get(each.origin)
                if reply is None:
                    reply = self._replies[each.origin] = _Reply(each.request)
                reply.outcomes += each.outcomes
                event = audits.pop(each.request.record_id, None)
                if event is not None:
                    reply.entries += event.entries
            elif isinstance(each, RecordDone):
                done = self._replies.get(each.origin)
                if done is not None:
                    done.done = True
                else:
                    self._book.answered(each.origin.partition, each.origin.offset)
                    self._traces.finished((each.origin.partition, each.origin.offset))
            elif isinstance(each, InternalSigned | RefreshAsked):
                self._on_internal(each)
            else:
                raise TypeError(f"{type(each).__name__} is not for a signing machine to send")
        self._audits += audits.values()
        self._pace.ask()

    def flush(self) -> None:
        """Send everything now."""
        peers, self._peers = self._peers, {}
        for seat, mine in peers.items():
            self._send_peer(seat, mine)
        audits, self._audits = self._audits, []
        for event in audits:
            self._send_audit(event, _ignore)
        replies, self._replies = self._replies, {}
        for origin, reply in replies.items():
            self._send_reply(origin, reply)

    def reply(self, record: Record, topic: str, answer: MsgSigned) -> None:
        """Send an answer that no machine made: an error about the bytes of ``record``, which could not be used."""
        self._send_answer((record.partition, record.offset), topic, answer)

    @property
    def idle(self) -> bool:
        """Whether nothing is gathered and nothing waits for the producer."""
        return not (self._peers or self._replies or self._audits) and self._sender.idle

    # --- to other replicas

    def _put_peer(self, seat: Index, message: PeerMessage) -> None:
        mine = self._peers.get(seat)
        if mine is None:
            mine = self._peers[seat] = _ForPeer()
        if isinstance(message, SignPackage):
            mine.groups += message.groups
        elif isinstance(message, SignatureShares):
            mine.answers += message.answers
            for answer in message.answers:
                if isinstance(answer, Declined):
                    self._metrics.declined.labels(reason=answer.reason.value).inc()
                else:
                    self._metrics.shares.inc()
        elif isinstance(message, NonceRequest):
            mine.wants += message.wants
        else:
            mine.grants += message.grants

    def _send_peer(self, seat: Index, mine: _ForPeer) -> None:
        messages: list[PeerMessage] = [SignPackage(part) for part in share_out(mine.groups)]
        messages += [SignatureShares(tuple(part)) for part in _cut_answers(mine.answers)]
        messages += [NonceRequest(tuple(part)) for part in _cut(mine.wants, MOST_WANTS)]
        messages += [NonceBatch(tuple(part)) for part in _cut(mine.grants, MOST_GRANTS)]
        topic = self._names.peer(seat)
        for message in messages:
            value = seal(self._signer, topic, codec.encode(message))
            headers = self._traces.package(message) if isinstance(message, SignPackage) else ()
            # May be lost like a record on the way: a session that misses it is begun anew with others.
            self._sender.send_once(topic, value, 0, headers)

    # --- answers and audit

    def _send_reply(self, origin: Origin, reply: _Reply) -> None:
        place = origin.partition, origin.offset
        if reply.entries:
            event = AuditEvent(reply.request.record_id, tuple(reply.entries))
            final = self._book.sending(*place)
            self._send_audit(event, lambda _: final())
        record = self._book.record(origin)
        for outcome in reply.outcomes:
            if isinstance(outcome.result, Signed):
                self._metrics.signatures.labels(key_id=outcome.result.key_id).inc()
            elif isinstance(outcome.result, Refused):
                self._refused(origin, outcome.request_id, outcome.result)
        forged = next((o.result for o in reply.outcomes if _is_forged(o)), None)
        if record is not None and isinstance(forged, Refused):
            self._on_poison(record, forged.code.value, forged.detail)
        for part in _cut(reply.outcomes, len(reply.request.items)):
            answer = MsgSigned(reply.request.record_id, reply.request.instance_id, tuple(part))
            self._send_answer(place, reply.request.reply_to, answer)
        if reply.done:
            self._book.answered(*place)
            self._traces.finished(place)

    def _refused(self, origin: Origin, request_id: RequestId, refused: Refused) -> None:
        self._metrics.refusals.labels(code=refused.code.value).inc()
        if origin.redelivered and refused.code is RefusalCode.EXPIRED:
            return  # read again after a take-over: most likely answered long ago, and nobody waits for it now
        self._lines.warn(
            "an item was refused",
            REFUSALS_SAID,
            request_id=request_id,
            trace_id=self._traces.trace_of((origin.partition, origin.offset), request_id),
            code=refused.code.value,
        )

    def _send_answer(self, place: tuple[int, int], topic: str, answer: MsgSigned) -> None:
        final = self._book.sending(*place)
        headers, done = self._traces.answering(place, topic, answer.outcomes)

        def on_final(delivery: Delivery | None) -> None:
            lost = delivery is None or delivery.error is not None
            if lost:
                self._metrics.answers_undeliverable.inc()
            done("not-confirmed" if lost else None)
            final()

        if not is_reply_topic(self._names.prefix, topic):
            on_final(None)
            return
        value = seal(self._signer, topic, codec.encode(answer))
        headers = (("record-id", answer.record_id.encode()), ("instance-id", answer.instance_id.encode()), *headers)
        self._sender.send(topic, value, 0, headers, on_final)

    def _send_audit(self, event: AuditEvent, final: Callable[[Delivery | None], None]) -> None:
        value = self._sealed_audit(event)
        if value is None:
            # Evidence can be as large as what it proves; the accusation must not be lost with it.
            bare = tuple(replace(entry, evidence=()) for entry in event.entries)
            value = seal(self._signer, self._names.audit, codec.encode(replace(event, entries=bare)))
        # An answer goes right behind: of two records under way when a broker went, one can be written and this be lost.
        self._sender.insist(self._names.audit, value, final)

    def _sealed_audit(self, event: AuditEvent) -> bytes | None:
        """None: too large for an envelope, or for the topic."""
        try:
            value = seal(self._signer, self._names.audit, codec.encode(event))
        except BadInput:
            return None
        return value if len(value) <= MAX_SENT_BYTES else None

    def _turn(self) -> None:
        try:
            self.flush()
        except Exception as bug:  # noqa: BLE001 - what our own machines made cannot be sent: the process ends
            self._on_bug(bug)


def _is_forged(outcome: Outcome) -> bool:
    # No API pod stands behind these bytes: somebody who should not can write to the request topic.
    return isinstance(outcome.result, Refused) and outcome.result.code is RefusalCode.BAD_EDGE_SIGNATURE


def _cut(parts: list, most: int) -> Iterable[list]:  # type: ignore[type-arg]
    return (parts[at : at + most] for at in range(0, len(parts), most))


def _cut_answers(answers: list[Share | Declined]) -> Iterable[list[Share | Declined]]:
    """Split so that no session is answered twice in one record: nobody would take it, and we could not write it.

    A package that came twice (a broker may do that), or two starts of one coordinator, are answered in one turn.
    """
    part: list[Share | Declined] = []
    seen: set[int] = set()
    for answer in answers:
        if answer.session_id in seen or len(part) == MOST_ANSWERS:
            yield part
            part, seen = [], set()
        part.append(answer)
        seen.add(answer.session_id)
    if part:
        yield part


def _ignore(_: Delivery | None) -> None:
    pass
