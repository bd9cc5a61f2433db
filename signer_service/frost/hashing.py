"""H1 to H5 of FROST(Ed25519, SHA-512): RFC 9591, section 6.1.

Each has its own domain, but H2: it is the challenge hash of RFC 8032, without a prefix, so that any Ed25519 verifier
accepts what FROST signs.
"""

from hashlib import sha512
from typing import Final

from signer_service.frost.group import ORDER, Scalar

CONTEXT_STRING: Final = b"FROST-ED25519-SHA512-v1"

_RHO: Final = CONTEXT_STRING + b"rho"
_NONCE: Final = CONTEXT_STRING + b"nonce"
_MESSAGE: Final = CONTEXT_STRING + b"msg"
_COMMITMENTS: Final = CONTEXT_STRING + b"com"


def h1(data: bytes) -> Scalar:
    """Binding factors."""
    return Scalar(int.from_bytes(sha512(_RHO + data).digest(), "little") % ORDER)


def h2(data: bytes) -> Scalar:
    """The challenge, as in RFC 8032: no domain prefix."""
    return Scalar(int.from_bytes(sha512(data).digest(), "little") % ORDER)


def h3(data: bytes) -> Scalar:
    """Nonces."""
    return Scalar(int.from_bytes(sha512(_NONCE + data).digest(), "little") % ORDER)


def h4(data: bytes) -> bytes:
    """The message, 64 bytes."""
    return sha512(_MESSAGE + data).digest()


def h5(data: bytes) -> bytes:
    """The encoded list of commitments, 64 bytes."""
    return sha512(_COMMITMENTS + data).digest()
