"""The bounds of what travels while signing: requests, answers, nonces, packages, shares."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from common.ids import NO_OFFSET
from common.wire import messages as m
from common.wire.conversion import (
    BOOLEAN,
    Shape,
    array,
    blob,
    enumeration,
    fixed_array,
    integer,
    integer_array,
    optional_fixed,
    record,
    refuse,
    union,
)
from common.wire.names import REPEATED_UUID, UUID, hexadecimal, text
from common.wire.scalars import (
    B32,
    B64,
    COUNT,
    COUNTS,
    DETAIL,
    EPOCH,
    EPOCH_OR_NONE,
    INDEX,
    INSTANT,
    KEY_ID,
    MAX_SEATS,
    MAX_SESSIONS,
    OFFSET_OR_NONE,
    SEATS,
    TOPIC,
)

# --- requests and answers ---------------------------------------------------------------------------------------------


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
        "key_id": KEY_ID,
        "mode": enumeration(m.Mode),
        "message": blob(0, m.MAX_MESSAGE_BYTES),
        "principal": text(1, 128, repeats=True),
        "created_ms": INSTANT,
        "deadline_ms": INSTANT,
    },
    _check_item,
)
_MSG_TO_SIGN = record(
    m.MsgToSign,
    {
        "record_id": UUID,
        "items": array(_SIGN_ITEM, 1, m.MAX_ITEMS),
        "reply_to": TOPIC,
        "instance_id": REPEATED_UUID,
        "edge_key_id": hexadecimal(8),
        "edge_signature": B64,
    },
    _check_request,
)
_SIGNED = record(m.Signed, {"signature": B64, "key_id": KEY_ID, "epoch": EPOCH, "signers": SEATS})
_REFUSED = record(m.Refused, {"code": enumeration(m.RefusalCode), "detail": DETAIL, "retryable": BOOLEAN})
_ACCEPTED = record(m.Accepted, {"key_id": KEY_ID, "epoch": EPOCH_OR_NONE})
_OUTCOME = record(
    m.Outcome,
    {"request_id": UUID, "result": union({m.Signed: _SIGNED, m.Refused: _REFUSED, m.Accepted: _ACCEPTED})},
)
_MSG_SIGNED = record(
    m.MsgSigned,
    {"record_id": UUID, "instance_id": REPEATED_UUID, "outcomes": array(_OUTCOME, 1, m.MAX_ITEMS)},
    _check_answer,
)

# --- between replicas, while signing ----------------------------------------------------------------------------------


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
    {"key_id": KEY_ID, "commit_offset": OFFSET_OR_NONE, "open_id": optional_fixed(64)},
    _check_scope,
)
_NONCE_WANT = record(m.NonceWant, {"scope": _SCOPE, "count": integer(1, 256)})
_NONCE_REQUEST = record(m.NonceRequest, {"wants": array(_NONCE_WANT, 1, 256)})
_NONCE_GRANT = record(
    m.NonceGrant,
    {
        "scope": _SCOPE,
        "coordinator": INDEX,
        "coordinator_boot": REPEATED_UUID,
        "first_counter": COUNT,
        "commitments": fixed_array(64, 1, 256),
    },
)
_NONCE_BATCH = record(m.NonceBatch, {"grants": array(_NONCE_GRANT, 1, 256)})
_SIGN_SESSION = record(
    m.SignSession,
    {
        "session_id": COUNT,
        "item": integer(0, m.MAX_ITEMS - 1),
        "counters": integer_array(COUNTS, 1, MAX_SEATS),
        "commitments": fixed_array(64, 1, MAX_SEATS),
    },
)
_SIGN_GROUP = record(
    m.SignGroup,
    {
        "scope": _SCOPE,
        "epoch": EPOCH,
        "request": blob(0, m.MAX_MSG_TO_SIGN_BYTES),
        "signers": SEATS,
        "boots": array(REPEATED_UUID, 1, MAX_SEATS),
        "sessions": array(_SIGN_SESSION, 1, MAX_SESSIONS),
    },
    _check_group,
)
_SIGN_PACKAGE = record(m.SignPackage, {"groups": array(_SIGN_GROUP, 1, MAX_SESSIONS)}, _check_package)
_SHARE = record(m.Share, {"session_id": COUNT, "share": B32, "package_hash": B32})
_DECLINED = record(m.Declined, {"session_id": COUNT, "reason": enumeration(m.DeclineReason)})
_SIGNATURE_SHARES = record(
    m.SignatureShares,
    {"answers": array(union({m.Share: _SHARE, m.Declined: _DECLINED}), 1, MAX_SESSIONS)},
    _check_shares,
)

SIGNING_SHAPES: Final[Mapping[type[Any], Shape[Any]]] = MappingProxyType(
    {
        m.MsgToSign: _MSG_TO_SIGN,
        m.MsgSigned: _MSG_SIGNED,
        m.NonceRequest: _NONCE_REQUEST,
        m.NonceBatch: _NONCE_BATCH,
        m.SignPackage: _SIGN_PACKAGE,
        m.SignatureShares: _SIGNATURE_SHARES,
    }
)
