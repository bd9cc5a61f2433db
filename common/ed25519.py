"""Plain Ed25519 (RFC 8032) through libsodium: identity keys, edge keys, the operator's key, and group signatures.

``verify`` is strict as libsodium is: S below L, no small-order key or R, canonical encodings, no cofactor. A
signature that passes here passes any other verifier.
"""

from typing import Final
from weakref import WeakKeyDictionary

from nacl.bindings import (
    crypto_core_ed25519_is_valid_point,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import BadSignatureError

from common.errors import BadInput
from common.secret import Secret

SEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_expanded: WeakKeyDictionary[Secret[bytes], bytes] = WeakKeyDictionary()
"""libsodium's 64-byte form (seed, public key) of keys in use: it goes when the last holder of the ``Secret`` goes."""


def generate_keypair(seed: bytes) -> tuple[Secret[bytes], bytes]:
    """Return the private key (the 32-byte seed, as in files) and the 32-byte public key. The caller has the randomness.

    Raises:
        BadInput: code ``ed25519-seed`` when the seed is not 32 bytes.
    """
    private = Secret(seed)
    return private, public_key(private)


def public_key(private: Secret[bytes]) -> bytes:
    """Return the 32-byte public key of a private key.

    Raises:
        BadInput: code ``ed25519-seed`` when the private key is not 32 bytes.
    """
    return _expand(private)[SEED_BYTES:]


def sign(private: Secret[bytes], message: bytes) -> bytes:
    """Return the 64-byte signature over ``message``. RFC 8032, 5.1.6.

    Raises:
        BadInput: code ``ed25519-seed`` when the private key is not 32 bytes.
    """
    return crypto_sign(message, _expand(private))[:SIGNATURE_BYTES]


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """True if ``signature`` is valid for ``message`` under ``public``. RFC 8032, 5.1.7; never raises for bytes."""
    # libsodium reads 32 bytes of key and 64 of signature wherever they end: the lengths are ours to check.
    if len(public) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True


def is_valid_point(encoded: bytes) -> bool:
    """True if ``encoded`` is a point of the prime-order group, canonical and not the identity; never raises for bytes.

    A public key that is not one has signatures that verify for other messages, or for other verifiers only.
    """
    return len(encoded) == PUBLIC_KEY_BYTES and bool(crypto_core_ed25519_is_valid_point(encoded))


def _expand(private: Secret[bytes]) -> bytes:
    expanded = _expanded.get(private)
    if expanded is None:
        seed = private.expose()
        if len(seed) != SEED_BYTES:
            raise BadInput("ed25519-seed", f"an Ed25519 private key has {SEED_BYTES} bytes, not {len(seed)}")
        expanded = _expanded[private] = crypto_sign_seed_keypair(seed)[1]
    return expanded
