"""The bounds of every record, in one table: what ``common.wire.codec`` takes and gives, field by field.

A bound is here because without it one record could cost more than it is worth (memory, time), or say what has no
meaning (seat 0, two answers to one request). What a record *claims* is checked elsewhere: signatures by ``envelope``,
rosters and key records by ``trust``, everything else by the machines.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from common.errors import BadInput
from common.ids import MAX_INDEX, NO_OFFSET, parse_key_id
from common.wire import messages as m
from common.wire.avro import (
    BOOLEAN,
    MAX_LONG,
    Shape,
    array,
    blob,
    checked,
    enumeration,
    fixed,
    instant,
    integer,
    optional_fixed,
    record,
    refuse,
    union,
)
from common.wire.names import REPEATED_UUID, UUID, hexadecimal, matching, text

MAX_SEATS: Final = 255
"""Of a committee. Every participant computes with every other's commitment: far below this, signing is too slow."""

MAX_SESSIONS: Final = 4096
"""Sessions in one SignPackage, and answers in one SignatureShares."""

MAX_DETAIL: Final = 512
"""Characters of a text for a person."""


def _key_id(value: str) -> bool:
    try:
        parse_key_id(value)
    except BadInput:
        return False
    return True


def _ascending(values: tuple[int, ...]) -> None:
    before = -1
    for value in values:
        if value <= before:
            refuse("expected ascending values, each once")
        before = value


def _ascending_by(name: str) -> Any:
    return lambda values: _ascending(tuple(getattr(value, name) for value in values))


_COUNT = integer(0, 2**53 - 1)  # what JSON and JavaScript hold exactly
_SMALL = integer(0, 2**31 - 1)
_POSITIVE = integer(1, 2**31 - 1)
_INSTANT = instant(1)
_MAYBE_INSTANT = instant(0)
_EPOCH = integer(1, 2**53 - 1)
_EPOCH_OR_NONE = _COUNT
_OFFSET = integer(0)
_OFFSET_OR_NONE = integer(NO_OFFSET)
_INDEX = integer(1, MAX_INDEX)
_KEY_ID = text(1, 63, _key_id, repeats=True)
_TOPIC = matching(r"[A-Za-z0-9._-]{1,249}", 249)
_DETAIL = text(0, MAX_DETAIL)
_ANY_TEXT = text(0, MAX_DETAIL, lambda _: True)
_B32, _B48, _B64 = fixed(32), fixed(48), fixed(64)
_SEATS_OR_NONE = checked(array(_INDEX, 0, MAX_SEATS), _ascending)
_SEATS = checked(array(_INDEX, 1, MAX_SEATS), _ascending)


# --- requests and answers -------------------------------------------------------------------------------------------


def _check_item(item: m.SignItem) -> None:
    if item.mode is m.Mode.REFRESH and item.message:
        refuse("a refresh has no message", "message")


def _check_request(request: m.MsgToSign) -> None:
    if len({item.request_id for item in request.items}) != len(request.items):
        refuse("a request id stands twice", "items.request_id")


def _check_answer(answer: m.MsgSigned) -> None:
    if len({outcome.request_id for outcome in answer.outcomes}) != len(answer.outcomes):
        refuse("a request id stands twice", "outcomes.request_id")


_SIGN_ITEM = record(
    m.SignItem,
    {
        "request_id": UUID,
        "key_id": _KEY_ID,
        "mode": enumeration(m.Mode),
        "message": blob(0, m.MAX_MESSAGE_BYTES),
        "principal": text(1, 128, repeats=True),
        "created_ms": _INSTANT,
        "deadline_ms": _INSTANT,
    },
    _check_item,
)
_MSG_TO_SIGN = record(
    m.MsgToSign,
    {
        "record_id": UUID,
        "items": array(_SIGN_ITEM, 1, m.MAX_ITEMS),
        "reply_to": _TOPIC,
        "instance_id": REPEATED_UUID,
        "edge_key_id": hexadecimal(8),
        "edge_signature": _B64,
    },
    _check_request,
)
_SIGNED = record(m.Signed, {"signature": _B64, "key_id": _KEY_ID, "epoch": _EPOCH, "signers": _SEATS})
_REFUSED = record(m.Refused, {"code": enumeration(m.RefusalCode), "detail": _DETAIL, "retryable": BOOLEAN})
_ACCEPTED = record(m.Accepted, {"key_id": _KEY_ID, "epoch": _EPOCH_OR_NONE})
_OUTCOME = record(
    m.Outcome,
    {"request_id": UUID, "result": union({m.Signed: _SIGNED, m.Refused: _REFUSED, m.Accepted: _ACCEPTED})},
)
_MSG_SIGNED = record(
    m.MsgSigned,
    {"record_id": UUID, "instance_id": REPEATED_UUID, "outcomes": array(_OUTCOME, 1, m.MAX_ITEMS)},
    _check_answer,
)

LOOSE_REQUEST: Final = record(
    m.MsgToSign,
    {
        "record_id": UUID,
        "items": array(
            record(
                m.SignItem,
                {
                    "request_id": UUID,
                    "key_id": _ANY_TEXT,
                    "mode": enumeration(m.Mode),
                    "message": blob(0, m.MAX_RECORD_BYTES),
                    "principal": _ANY_TEXT,
                    "created_ms": integer(-MAX_LONG),
                    "deadline_ms": integer(-MAX_LONG),
                },
            ),
            1,
            m.MAX_ITEMS,
        ),
        "reply_to": _TOPIC,
        "instance_id": REPEATED_UUID,
        "edge_key_id": hexadecimal(8),
        "edge_signature": _B64,
    },
)
"""A MsgToSign whose form holds but whose bounds may not: enough to tell its sender that it was refused."""


# --- between replicas, while signing --------------------------------------------------------------------------------


def _check_scope(scope: m.NonceScope) -> None:
    if (scope.commit_offset == NO_OFFSET) != bool(scope.open_id):
        refuse("a scope has either a commit offset or an open_id", "open_id")


def _check_group(group: m.SignGroup) -> None:
    if bool(group.request) == bool(group.scope.open_id):
        refuse("a request goes with a committed epoch, and no request with the key record's session", "request")
    size = len(group.signers)
    if len(group.boots) != size:
        refuse("expected one boot id for each signer", "boots")
    for session in group.sessions:
        if len(session.counters) != size:
            refuse("expected one counter for each signer", "sessions.counters")
        if len(session.commitments) != size:
            refuse("expected one commitment for each signer", "sessions.commitments")


def _check_package(package: m.SignPackage) -> None:
    sessions = [session.session_id for group in package.groups for session in group.sessions]
    if len(sessions) > MAX_SESSIONS:
        refuse(f"expected at most {MAX_SESSIONS} sessions", "groups.sessions")
    if len(set(sessions)) != len(sessions):
        refuse("a session id stands twice", "groups.sessions.session_id")


def _check_shares(shares: m.SignatureShares) -> None:
    if len({answer.session_id for answer in shares.answers}) != len(shares.answers):
        refuse("a session id stands twice", "answers.session_id")


_SCOPE = record(
    m.NonceScope,
    {"key_id": _KEY_ID, "commit_offset": _OFFSET_OR_NONE, "open_id": optional_fixed(64)},
    _check_scope,
)
_NONCE_WANT = record(m.NonceWant, {"scope": _SCOPE, "count": integer(1, 256)})
_NONCE_REQUEST = record(m.NonceRequest, {"wants": array(_NONCE_WANT, 1, 256)})
_NONCE_GRANT = record(
    m.NonceGrant,
    {
        "scope": _SCOPE,
        "coordinator": _INDEX,
        "coordinator_boot": REPEATED_UUID,
        "first_counter": _COUNT,
        "commitments": array(_B64, 1, 256),
    },
)
_NONCE_BATCH = record(m.NonceBatch, {"grants": array(_NONCE_GRANT, 1, 256)})
_SIGN_SESSION = record(
    m.SignSession,
    {
        "session_id": _COUNT,
        "item": integer(0, m.MAX_ITEMS - 1),
        "counters": array(_COUNT, 1, MAX_SEATS),
        "commitments": array(_B64, 1, MAX_SEATS),
    },
)
_SIGN_GROUP = record(
    m.SignGroup,
    {
        "scope": _SCOPE,
        "epoch": _EPOCH,
        "request": blob(0, m.MAX_MSG_TO_SIGN_BYTES),
        "signers": _SEATS,
        "boots": array(REPEATED_UUID, 1, MAX_SEATS),
        "sessions": array(_SIGN_SESSION, 1, MAX_SESSIONS),
    },
    _check_group,
)
_SIGN_PACKAGE = record(m.SignPackage, {"groups": array(_SIGN_GROUP, 1, MAX_SESSIONS)}, _check_package)
_SHARE = record(m.Share, {"session_id": _COUNT, "share": _B32, "package_hash": _B32})
_DECLINED = record(m.Declined, {"session_id": _COUNT, "reason": enumeration(m.DeclineReason)})
_SIGNATURE_SHARES = record(
    m.SignatureShares,
    {"answers": array(union({m.Share: _SHARE, m.Declined: _DECLINED}), 1, MAX_SESSIONS)},
    _check_shares,
)


# --- presence --------------------------------------------------------------------------------------------------------

_KEY_PRESENCE = record(
    m.KeyPresence,
    {
        "key_id": _KEY_ID,
        "epoch": _EPOCH_OR_NONE,
        "holds_share": BOOLEAN,
        "phase": matching(r"[a-z-]{0,32}", 32),
        "attempt": _SMALL,
        "awaited": _SEATS_OR_NONE,
        "last_refresh_ms": _MAYBE_INSTANT,
        "next_due_ms": _MAYBE_INSTANT,
        "fold_offset": _OFFSET_OR_NONE,
        "fold_hash": optional_fixed(64),
    },
)
_PRESENCE = record(
    m.Presence,
    {
        "started_ms": _INSTANT,
        "seq": _COUNT,
        "sent_ms": _INSTANT,
        "state": enumeration(m.ReplicaState),
        "draining": BOOLEAN,
        "schema_level": _POSITIVE,
        "partitions": checked(array(_SMALL, 0, 1024), _ascending),
        "in_flight": _SMALL,
        "queue_wait_ms": _SMALL,
        "nonces_left": _SMALL,
        "keys": array(_KEY_PRESENCE, 0, 64),
    },
)


# --- roster and key record -------------------------------------------------------------------------------------------

_SEAT = record(m.Seat, {"index": _INDEX, "identity_key": _B32})
_ROSTER_KEY = record(
    m.RosterKey, {"key_id": _KEY_ID, "threshold": integer(1, MAX_SEATS), "public_key": optional_fixed(32)}
)
_ROSTER = record(
    m.Roster,
    {
        "version": _POSITIVE,
        "protocol_version": _POSITIVE,
        "log_generation": _SMALL,
        "seats": array(_SEAT, 1, MAX_SEATS),
        "keys": array(_ROSTER_KEY, 0, 64),
        "edge_keys": array(_B32, 0, 64),
        "checkpoints": array(blob(1, m.MAX_RECORD_BYTES), 0, 64),
        "signature": _B64,
    },
)
_VERIFICATION_SHARE = record(m.VerificationShare, {"index": _INDEX, "element": _B32})
_KEY_RECORD = record(
    m.KeyRecord,
    {
        "key_id": _KEY_ID,
        "epoch": _EPOCH,
        "open_id": _B64,
        "threshold": integer(1, MAX_SEATS),
        "public_key": _B32,
        "verification_shares": array(_VERIFICATION_SHARE, 1, MAX_SEATS),
        "roster": blob(1, m.MAX_RECORD_BYTES),
        "log_offset": _OFFSET,
        "log_hash": _B64,
        "attestations": array(blob(1, 16 * 1024), 1, MAX_SEATS),
        "signature": _B64,
    },
)


# --- ceremony log ----------------------------------------------------------------------------------------------------


def _check_open(value: m.Open) -> None:
    if (value.reason is m.OpenReason.REQUEST) != bool(value.evidence):
        refuse("a refresh request is the evidence of reason 'request', and of no other", "evidence")


_OPEN = record(
    m.Open,
    {
        "key_id": _KEY_ID,
        "kind": enumeration(m.CeremonyKind),
        "from_epoch": _EPOCH_OR_NONE,
        "attempt": _SMALL,
        "roster_version": _POSITIVE,
        "reason": enumeration(m.OpenReason),
        "nonce": _B32,
        "evidence": blob(0, m.MAX_MSG_TO_SIGN_BYTES),
    },
    _check_open,
)
_ANNOUNCE = record(
    m.Announce,
    {"open_id": _B64, "transport_key": _B32, "transport_proof": _B64, "share_proof": optional_fixed(64)},
)
_SEALED = record(m.SealedSubShare, {"recipient": _INDEX, "ciphertext": _B48})
_DEAL = record(
    m.Deal,
    {
        "open_id": _B64,
        "commitments": array(_B32, 1, MAX_SEATS),
        "constant_proof": optional_fixed(64),
        "ephemeral_key": _B32,
        "ephemeral_proof": _B64,
        "sealed": checked(array(_SEALED, 0, MAX_SEATS), _ascending_by("recipient")),
    },
)
_COMPLAINT = record(m.Complaint, {"dealer": _INDEX, "shared_key": _B32, "proof": _B64})
_VERDICT = record(
    m.Verdict,
    {"open_id": _B64, "complaints": checked(array(_COMPLAINT, 0, MAX_SEATS), _ascending_by("dealer"))},
)
_READY = record(
    m.Ready,
    {
        "open_id": _B64,
        "key_id": _KEY_ID,
        "epoch": _EPOCH,
        "transcript_hash": _B64,
        "qualified": _SEATS,
        "public_key": _B32,
        "verification_hash": _B64,
        "share_proof": _B64,
    },
)
_PHASE_VOTE = record(m.PhaseVote, {"open_id": _B64, "phase": enumeration(m.Phase)})
_ERASED = record(m.Erased, {"key_id": _KEY_ID, "epoch": _EPOCH})
_HEAL_REQUEST = record(m.HealRequest, {"key_id": _KEY_ID, "epoch": _EPOCH})


# --- envelope, audit, dead letters -----------------------------------------------------------------------------------


def _check_envelope(envelope: m.Envelope) -> None:
    if envelope.role is m.Role.SIGNER and envelope.index == 0:
        refuse("a seat index is 1 or more", "index")
    if envelope.seen_offset != NO_OFFSET and not envelope.seen_hash:
        refuse("a position on the log has a hash", "seen_hash")


_ENVELOPE = record(
    m.Envelope,
    {
        "role": enumeration(m.Role),
        "index": integer(0, MAX_INDEX),
        "boot_id": REPEATED_UUID,
        "topic": _TOPIC,
        "seen_offset": _OFFSET_OR_NONE,
        "seen_hash": optional_fixed(64),
        "payload": blob(1, m.MAX_RECORD_BYTES),
        "signature": _B64,
    },
    _check_envelope,
)
_AUDIT_ENTRY = record(
    m.AuditEntry,
    {
        "kind": enumeration(m.AuditKind),
        "at_ms": _INSTANT,
        "request_id": text(0, 64),
        "principal": text(0, 128),
        "key_id": text(0, 63),
        "epoch": _EPOCH_OR_NONE,
        "message_sha256": optional_fixed(32),
        "signers": _SEATS_OR_NONE,
        "code": text(0, 64),
        "detail": _DETAIL,
        "evidence": array(blob(0, m.MAX_RECORD_BYTES), 0, 64),
    },
)
_AUDIT_EVENT = record(m.AuditEvent, {"record_id": text(0, 64), "entries": array(_AUDIT_ENTRY, 1, 256)})
_DEAD_LETTER = record(
    m.DeadLetter,
    {
        "topic": _ANY_TEXT,
        "partition": _SMALL,
        "offset": _OFFSET_OR_NONE,
        "timestamp_ms": integer(-1),  # Kafka's word for none
        "reason": text(1, 64),
        "detail": _ANY_TEXT,
        "found_by": text(0, 128),
        "key": blob(0, m.MAX_RECORD_BYTES),
        "value": blob(0, m.MAX_RECORD_BYTES),
        "value_length": _COUNT,
        "value_sha256": _B32,
    },
)

SHAPES: Final[Mapping[type[Any], Shape[Any]]] = MappingProxyType(
    {
        m.MsgToSign: _MSG_TO_SIGN,
        m.MsgSigned: _MSG_SIGNED,
        m.NonceRequest: _NONCE_REQUEST,
        m.NonceBatch: _NONCE_BATCH,
        m.SignPackage: _SIGN_PACKAGE,
        m.SignatureShares: _SIGNATURE_SHARES,
        m.Presence: _PRESENCE,
        m.Envelope: _ENVELOPE,
        m.Roster: _ROSTER,
        m.KeyRecord: _KEY_RECORD,
        m.Open: _OPEN,
        m.Announce: _ANNOUNCE,
        m.Deal: _DEAL,
        m.Verdict: _VERDICT,
        m.Ready: _READY,
        m.PhaseVote: _PHASE_VOTE,
        m.Erased: _ERASED,
        m.HealRequest: _HEAL_REQUEST,
        m.AuditEvent: _AUDIT_EVENT,
        m.DeadLetter: _DEAD_LETTER,
    }
)
"""Every record that travels by itself."""

CAPS: Final[Mapping[type[Any], int]] = MappingProxyType(
    dict.fromkeys(SHAPES, m.MAX_RECORD_BYTES)
    | {m.MsgToSign: m.MAX_MSG_TO_SIGN_BYTES, m.SignPackage: m.MAX_SIGN_PACKAGE_BYTES}
    | dict.fromkeys((m.MsgSigned, m.NonceRequest, m.NonceBatch, m.SignatureShares, m.Presence), m.MAX_PEER_RECORD_BYTES)
)
"""Largest encoded size of each, in bytes."""
