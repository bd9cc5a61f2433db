"""The bounds of what is kept for ever: roster, key record and the records of the ceremony log."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from common.wire import messages as m
from common.wire.conversion import (
    Shape,
    array,
    blob,
    checked,
    enumeration,
    fixed_array,
    integer,
    optional_fixed,
    record,
    refuse,
)
from common.wire.scalars import (
    B32,
    B48,
    B64,
    EPOCH,
    EPOCH_OR_NONE,
    INDEX,
    KEY_ID,
    MAX_SEATS,
    OFFSET,
    POSITIVE,
    SEATS,
    SMALL,
    ascending_by,
)

# --- roster and key record --------------------------------------------------------------------------------------------

_SEAT = record(m.Seat, {"index": INDEX, "identity_key": B32})
_ROSTER_KEY = record(
    m.RosterKey, {"key_id": KEY_ID, "threshold": integer(1, MAX_SEATS), "public_key": optional_fixed(32)}
)
_ROSTER = record(
    m.Roster,
    {
        "version": POSITIVE,
        "protocol_version": POSITIVE,
        "log_generation": SMALL,
        "seats": array(_SEAT, 1, MAX_SEATS),
        "keys": array(_ROSTER_KEY, 0, 64),
        "edge_keys": fixed_array(32, 0, 64),
        "checkpoints": array(blob(1, m.MAX_RECORD_BYTES), 0, 64),
        "signature": B64,
    },
)
_VERIFICATION_SHARE = record(m.VerificationShare, {"index": INDEX, "element": B32})
_KEY_RECORD = record(
    m.KeyRecord,
    {
        "key_id": KEY_ID,
        "epoch": EPOCH,
        "open_id": B64,
        "threshold": integer(1, MAX_SEATS),
        "public_key": B32,
        "verification_shares": array(_VERIFICATION_SHARE, 1, MAX_SEATS),
        "roster": blob(1, m.MAX_RECORD_BYTES),
        "log_offset": OFFSET,
        "log_hash": B64,
        "attestations": array(blob(1, 16 * 1024), 1, MAX_SEATS),
        "signature": B64,
    },
)

# --- ceremony log -----------------------------------------------------------------------------------------------------


def _check_open(value: m.Open) -> None:
    if value.reason is m.OpenReason.HEAL:
        if len(value.evidence) != m.HEAL_EVIDENCE_BYTES:
            refuse("an Open to heal names a seat and proves a share", "evidence")
    elif (value.reason is m.OpenReason.REQUEST) != bool(value.evidence):
        refuse("a refresh request is the evidence of reason 'request', and of no other", "evidence")


_OPEN = record(
    m.Open,
    {
        "key_id": KEY_ID,
        "kind": enumeration(m.CeremonyKind),
        "from_epoch": EPOCH_OR_NONE,
        "attempt": SMALL,
        "roster_version": POSITIVE,
        "reason": enumeration(m.OpenReason),
        "nonce": B32,
        "evidence": blob(0, m.MAX_MSG_TO_SIGN_BYTES),
    },
    _check_open,
)
_ANNOUNCE = record(
    m.Announce,
    {"open_id": B64, "transport_key": B32, "transport_proof": B64, "share_proof": optional_fixed(64)},
)
_SEALED = record(m.SealedSubShare, {"recipient": INDEX, "ciphertext": B48})
_DEAL = record(
    m.Deal,
    {
        "open_id": B64,
        "commitments": fixed_array(32, 1, MAX_SEATS),
        "constant_proof": optional_fixed(64),
        "ephemeral_key": B32,
        "ephemeral_proof": B64,
        "sealed": checked(array(_SEALED, 0, MAX_SEATS), ascending_by("recipient")),
    },
)
_COMPLAINT = record(m.Complaint, {"dealer": INDEX, "shared_key": B32, "proof": B64})
_VERDICT = record(
    m.Verdict,
    {"open_id": B64, "complaints": checked(array(_COMPLAINT, 0, MAX_SEATS), ascending_by("dealer"))},
)
_READY = record(
    m.Ready,
    {
        "open_id": B64,
        "key_id": KEY_ID,
        "epoch": EPOCH,
        "transcript_hash": B64,
        "qualified": SEATS,
        "public_key": B32,
        "verification_hash": B64,
        "share_proof": B64,
    },
)
_PHASE_VOTE = record(m.PhaseVote, {"open_id": B64, "phase": enumeration(m.Phase)})
_ERASED = record(m.Erased, {"key_id": KEY_ID, "epoch": EPOCH})
_HEAL_REQUEST = record(m.HealRequest, {"key_id": KEY_ID, "epoch": EPOCH})

CEREMONY_SHAPES: Final[Mapping[type[Any], Shape[Any]]] = MappingProxyType(
    {
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
    }
)
