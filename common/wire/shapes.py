"""The bounds of every record, field by field: what ``common.wire.codec`` takes and gives.

A bound is here because without it one record could cost more than it is worth (memory, time), or say what has no
meaning (seat 0, two answers to one request). What a record *claims* is checked elsewhere: signatures by ``envelope``,
rosters and key records by ``trust``, everything else by the machines.

Here: presence, envelope, audit, dead letters, and the table of all; the others in ``signing_shapes`` and
``ceremony_shapes``, fields that they share in ``scalars``.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from common.ids import MAX_INDEX, NO_OFFSET
from common.wire import messages as m
from common.wire.ceremony_shapes import CEREMONY_SHAPES
from common.wire.conversion import (
    BOOLEAN,
    Shape,
    array,
    blob,
    enumeration,
    integer,
    integer_array,
    optional_fixed,
    record,
    refuse,
)
from common.wire.names import REPEATED_UUID, matching, text
from common.wire.scalars import (
    ANY_TEXT,
    B32,
    B64,
    COUNT,
    DETAIL,
    EPOCH_OR_NONE,
    INSTANT,
    KEY_ID,
    MAX_SEATS,
    MAYBE_INSTANT,
    OFFSET_OR_NONE,
    POSITIVE,
    SEATS_OR_NONE,
    SIGNED_SMALL,
    SMALL,
    SMALLS,
    TOPIC,
)
from common.wire.signing_shapes import SIGNING_SHAPES

__all__ = ["CAPS", "MAX_SEATS", "SHAPES"]

# --- presence ---------------------------------------------------------------------------------------------------------

_KEY_PRESENCE = record(
    m.KeyPresence,
    {
        "key_id": KEY_ID,
        "epoch": EPOCH_OR_NONE,
        "holds_share": BOOLEAN,
        "phase": matching(r"[a-z-]{0,32}", 32),
        "attempt": SMALL,
        "awaited": SEATS_OR_NONE,
        "last_refresh_ms": MAYBE_INSTANT,
        "next_due_ms": MAYBE_INSTANT,
        "fold_offset": OFFSET_OR_NONE,
        "fold_hash": optional_fixed(64),
    },
)
_PRESENCE = record(
    m.Presence,
    {
        "started_ms": INSTANT,
        "seq": COUNT,
        "sent_ms": INSTANT,
        "state": enumeration(m.ReplicaState),
        "draining": BOOLEAN,
        "schema_level": POSITIVE,
        "partitions": integer_array(SMALLS, 0, 1024, ascending=True),
        "in_flight": SMALL,
        "queue_wait_ms": SMALL,
        "nonces_left": SMALL,
        "keys": array(_KEY_PRESENCE, 0, 64),
        "clock_skew_ms": SIGNED_SMALL,
    },
)

# --- envelope, audit, dead letters ------------------------------------------------------------------------------------


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
        "topic": TOPIC,
        "seen_offset": OFFSET_OR_NONE,
        "seen_hash": optional_fixed(64),
        "payload": blob(1, m.MAX_RECORD_BYTES),
        "signature": B64,
    },
    _check_envelope,
)
_AUDIT_ENTRY = record(
    m.AuditEntry,
    {
        "kind": enumeration(m.AuditKind),
        "at_ms": INSTANT,
        "request_id": text(0, 64),
        "principal": text(0, 128),
        "key_id": text(0, 63),
        "epoch": EPOCH_OR_NONE,
        "message_sha256": optional_fixed(32),
        "signers": SEATS_OR_NONE,
        "code": text(0, 64),
        "detail": DETAIL,
        "evidence": array(blob(0, m.MAX_RECORD_BYTES), 0, 64),
    },
)
_AUDIT_EVENT = record(m.AuditEvent, {"record_id": text(0, 64), "entries": array(_AUDIT_ENTRY, 1, 256)})
_DEAD_LETTER = record(
    m.DeadLetter,
    {
        "topic": ANY_TEXT,
        "partition": SMALL,
        "offset": OFFSET_OR_NONE,
        "timestamp_ms": integer(-1),  # Kafka's word for none
        "reason": text(1, 64),
        "detail": ANY_TEXT,
        "found_by": text(0, 128),
        "key": blob(0, m.MAX_RECORD_BYTES),
        "value": blob(0, m.MAX_RECORD_BYTES),
        "value_length": COUNT,
        "value_sha256": B32,
    },
)

SHAPES: Final[Mapping[type[Any], Shape[Any]]] = MappingProxyType(
    {
        **SIGNING_SHAPES,
        **CEREMONY_SHAPES,
        m.Presence: _PRESENCE,
        m.Envelope: _ENVELOPE,
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
