"""Who said it: sealing and opening envelopes, and signing the other two records that carry their own signature.

An envelope is valid on one topic only (the full name, prefix included): what was said to one seat, in one system,
cannot be repeated to another. Nothing here knows which boot id is current or which log position is true: ``Opened``
hands both on to who does.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from common.errors import BadInput
from common.ids import NO_OFFSET, BootId, Offset
from common.secret import Secret
from common.wire import codec
from common.wire.messages import Envelope, MsgToSign, Role, Roster
from common.wire.signatures import (
    ENVELOPE_DOMAIN,
    REQUEST_DOMAIN,
    ROSTER_DOMAIN,
    check_request,
    edge_key_id,
    is_signed_by,
    sign_bytes,
)

__all__ = [
    "KeysOf",
    "Opened",
    "Signer",
    "check_request",
    "edge_key_id",
    "open_envelope",
    "seal",
    "sign_request",
    "sign_roster",
]

KeysOf = Callable[[Role, int], Iterable[bytes]]
"""The public keys that may sign for this role and index: a seat's one, every edge key for an API pod; none: unknown."""

MAX_CANDIDATES: Final = 64
"""Keys tried for one envelope: a roster has at most so many edge keys."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Who seals: a seat with its identity key, or an API pod with the edge key; and which start of it."""

    role: Role
    index: int
    boot_id: BootId
    private: Secret[bytes]


@dataclass(frozen=True, slots=True)
class Opened:
    """An envelope whose signature verified. ``raw`` is the envelope as received: evidence, if it comes to that."""

    role: Role
    index: int
    boot_id: BootId
    seen_offset: Offset
    seen_hash: bytes
    payload: bytes
    raw: bytes


def seal(signer: Signer, topic: str, payload: bytes, seen_offset: Offset = NO_OFFSET, seen_hash: bytes = b"") -> bytes:
    """Return ``payload`` (an encoded record) in ``signer``'s envelope for ``topic``, the full name.

    Args:
        signer: Who says it.
        topic: Where it will stand, prefix included.
        payload: 1 byte to 1 MiB.
        seen_offset: On the ceremony log, the last offset seen; elsewhere none.
        seen_hash: The log's running hash there, 64 bytes; elsewhere empty.

    Raises:
        BadInput: ``out-of-bounds`` or ``too-large``: nobody would take it.
    """
    envelope = Envelope(signer.role, signer.index, signer.boot_id, topic, seen_offset, seen_hash, payload)
    return sign_bytes(ENVELOPE_DOMAIN, codec.encode(envelope), signer.private)


def open_envelope(raw: bytes, topic: str, keys_of: KeysOf) -> Opened:
    """Return what stands in the envelope ``raw``, found on ``topic``, if one of the sender's keys signed it.

    Raises:
        BadInput: codes of ``codec.decode``; ``wrong-topic``: it was said elsewhere; ``unknown-sender``: no such seat or
            pod; ``bad-signature``.
    """
    envelope = codec.decode(raw, Envelope)
    if envelope.topic != topic:
        raise BadInput("wrong-topic", "the envelope was sealed for another topic", "topic")
    candidates = tuple(keys_of(envelope.role, envelope.index))[:MAX_CANDIDATES]
    if not candidates:
        raise BadInput("unknown-sender", f"no key is known for {envelope.role.value} {envelope.index}", "index")
    if not any(is_signed_by(ENVELOPE_DOMAIN, raw, public) for public in candidates):
        raise BadInput("bad-signature", f"not signed by {envelope.role.value} {envelope.index}", "signature")
    return Opened(
        role=envelope.role,
        index=envelope.index,
        boot_id=envelope.boot_id,
        seen_offset=envelope.seen_offset,
        seen_hash=envelope.seen_hash,
        payload=envelope.payload,
        raw=raw,
    )


def sign_request(request: MsgToSign, private: Secret[bytes]) -> bytes:
    """Return ``request`` encoded and signed by the edge key ``private``; ``edge_key_id`` has to be that key's.

    Raises:
        BadInput: ``out-of-bounds`` or ``too-large``.
    """
    return sign_bytes(REQUEST_DOMAIN, codec.encode(request), private)


def sign_roster(roster: Roster, private: Secret[bytes]) -> bytes:
    """Return ``roster`` encoded and signed by the operator key ``private``.

    Raises:
        BadInput: ``out-of-bounds`` or ``too-large``.
    """
    return sign_bytes(ROSTER_DOMAIN, codec.encode(roster), private)
