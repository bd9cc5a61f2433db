"""What is signed, byte for byte, for the three records that end in their own signature. Pure: no Avro, no IO.

The signature covers ``domain ‖ the received bytes without the last 64``. Each record has a domain of its own, so that
no bytes signed as one thing are ever valid as another, whatever keys people reuse; and what is checked are the bytes
that came, never a re-encoding of what we understood of them.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

from common import ed25519
from common.errors import BadInput
from common.ids import EdgeKeyId
from common.secret import Secret
from common.wire.messages import MsgToSign

REQUEST_DOMAIN: Final = b"signer-flow/v1 request\x00"
ENVELOPE_DOMAIN: Final = b"signer-flow/v1 envelope\x00"
ROSTER_DOMAIN: Final = b"signer-flow/v1 roster\x00"

SIGNATURE_BYTES: Final = 64


def edge_key_id(public: bytes) -> EdgeKeyId:
    """Return the name of an edge key: the first 16 hex digits of the SHA-256 of its 32 bytes."""
    return EdgeKeyId(hashlib.sha256(public).hexdigest()[:16])


def sign_bytes(domain: bytes, unsigned: bytes, private: Secret[bytes]) -> bytes:
    """Return ``unsigned`` (a record encoded with 64 bytes where its signature belongs, its last field) signed."""
    body = unsigned[:-SIGNATURE_BYTES]
    return body + ed25519.sign(private, domain + body)


def is_signed_by(domain: bytes, raw: bytes, public: bytes) -> bool:
    """Whether the last 64 bytes of ``raw`` are ``public``'s signature over ``domain`` and the bytes before them."""
    return ed25519.verify(public, domain + raw[:-SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:])


def check_request(raw: bytes, request: MsgToSign, edge_keys: Mapping[EdgeKeyId, bytes]) -> None:
    """Check that an API pod stands behind ``request``, which was decoded from ``raw``.

    Every participant does this itself: a coordinator's word that it was asked is worth nothing.

    Raises:
        BadInput: ``bad-edge-signature``: not a key of the roster, or not its signature.
    """
    public = edge_keys.get(request.edge_key_id)
    if public is None:
        raise BadInput("bad-edge-signature", "the edge key is not one of the roster's", "edge_key_id")
    if not is_signed_by(REQUEST_DOMAIN, raw, public):
        raise BadInput("bad-edge-signature", "the edge signature does not verify", "edge_signature")
