"""What one step of the coordinator sends, gathered so that one record goes out where one will do.

Order: packages and nonce requests first, since others wait for them; then all audit events, then the answers: a
signature that nobody wrote down must not be seen outside.
"""

import hashlib
from typing import TypeAlias

from common.ids import Epoch, Index, Instant, KeyId, OpenId
from common.wire.messages import (
    Accepted,
    AuditEntry,
    AuditEvent,
    AuditKind,
    NonceRequest,
    NonceScope,
    NonceWant,
    Outcome,
    Refused,
    Signed,
    SignGroup,
    SignItem,
    SignPackage,
)
from signer_service.protocol.machine import (
    Answer,
    InternalSigned,
    Note,
    Outgoing,
    RecordDone,
    RefreshAsked,
    ToAudit,
    ToPeer,
)
from signer_service.protocol.package import share_out
from signer_service.protocol.sessions import Record

Result: TypeAlias = Signed | Refused | Accepted

_NO_EPOCH = Epoch(0)


class Outbox:
    """Everything that one step wants done."""

    __slots__ = ("_answers", "_audits", "_blames", "_groups", "_internal", "_wants", "notes")

    def __init__(self) -> None:
        self._groups: dict[Index, list[SignGroup]] = {}
        self._wants: dict[Index, list[NonceWant]] = {}
        self._answers: dict[Record, list[Outcome]] = {}
        self._audits: dict[Record, list[AuditEntry]] = {}
        self._blames: list[AuditEntry] = []
        self._internal: list[InternalSigned | RefreshAsked] = []
        self.notes: list[Note] = []

    def package(self, seat: Index, group: SignGroup) -> None:
        """Send ``group`` to ``seat``."""
        self._groups.setdefault(seat, []).append(group)

    def want(self, seat: Index, scope: NonceScope, count: int) -> None:
        """Ask ``seat`` for commitments."""
        self._wants.setdefault(seat, []).append(NonceWant(scope, count))

    def answer(self, record: Record, outcome: Outcome) -> None:
        """Answer one item of ``record``."""
        self._answers.setdefault(record, []).append(outcome)
        record.unanswered -= 1

    def audit(self, record: Record, item: SignItem, result: Result, now: Instant) -> bytes:
        """Write down what became of ``item``: once, whoever else is told the same again. Returns its message's hash."""
        entry = _entry(item, result, now)
        self._audits.setdefault(record, []).append(entry)
        return entry.message_sha256

    def blame(self, entry: AuditEntry) -> None:
        """Accuse a seat, with the evidence, in an audit event of its own."""
        self._blames.append(entry)

    def internal(self, open_id: OpenId, signature: bytes) -> None:
        """Hand a key record's signature to the ceremonies."""
        self._internal.append(InternalSigned(open_id, signature))

    def refresh(self, key_id: KeyId, raw: bytes) -> None:
        """Hand an accepted request for a refresh to the ceremonies."""
        self._internal.append(RefreshAsked(key_id, raw))

    def note(self, name: str, **fields: str | float | bool) -> None:
        """A fact for logs and metrics."""
        self.notes.append(Note(name, fields))

    def sends(self) -> tuple[Outgoing, ...]:
        """All of it, in order."""
        send: list[Outgoing] = []
        for seat, groups in self._groups.items():
            send += [ToPeer(seat, SignPackage(part)) for part in share_out(groups)]
        for seat, wants in self._wants.items():
            send += [ToPeer(seat, NonceRequest(tuple(wants[k : k + 256]))) for k in range(0, len(wants), 256)]
        send += self._internal
        send += [ToAudit(AuditEvent("", (entry,))) for entry in self._blames]
        send += [
            ToAudit(AuditEvent(record.request.record_id, tuple(entries))) for record, entries in self._audits.items()
        ]
        for record, outcomes in self._answers.items():
            send.append(Answer(record.origin, record.request, tuple(outcomes)))
            if record.unanswered == 0:
                send.append(RecordDone(record.origin, record.request.record_id))
                record.let_go()
        return tuple(send)


def _entry(item: SignItem, result: Result, now: Instant) -> AuditEntry:
    digest = hashlib.sha256(item.message).digest()
    if isinstance(result, Signed):
        kind, epoch, signers, code, detail = AuditKind.SIGNED, result.epoch, result.signers, "", ""
    elif isinstance(result, Refused):
        kind, epoch, signers, code, detail = AuditKind.REFUSED, _NO_EPOCH, (), result.code.value, result.detail
    else:
        kind, epoch, signers, code, detail = AuditKind.CEREMONY, result.epoch, (), "refresh-accepted", ""
    return AuditEntry(kind, now, item.request_id, item.principal, item.key_id, epoch, digest, signers, code, detail, ())
