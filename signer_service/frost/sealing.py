"""Sub-shares sealed under a Diffie-Hellman value: XChaCha20-Poly1305 with a key that is used once.

Key and nonce both come out of one hash of the shared point and the context. The context names attempt, dealer,
recipient, ephemeral point and transport key (the caller makes it, injectively), and each dealer's ephemeral point is
fresh for each deal: so one key never seals two plaintexts, and a nonce that is derived is safe. XChaCha20-Poly1305 does
not commit to its key; here a complaint's DLEQ proof does, for it leaves only one shared point.
"""

from typing import Final

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from common.errors import Bug
from common.wire import transcript
from signer_service.frost.errors import UnsealFailed
from signer_service.frost.group import IDENTITY, Element

TAG_BYTES: Final = 16
"""Sealed bytes are this much longer than the plaintext."""

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 24


def seal(shared: Element, context: bytes, plaintext: bytes) -> bytes:
    """Seal ``plaintext`` under ``shared`` for ``context``; at most once for each pair of them.

    Args:
        shared: The Diffie-Hellman point of dealer and recipient. Secret; never the identity.
        context: Everything the bytes are for, injectively encoded.
        plaintext: Any bytes; a sub-share is 32.

    Returns:
        Ciphertext and tag: 16 bytes more than the plaintext.

    Raises:
        Bug: ``shared`` is the identity, which everybody knows.
    """
    key, nonce = _derive(shared, context)
    return crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, context, nonce, key)


def open_sealed(shared: Element, context: bytes, sealed: bytes) -> bytes:
    """Return the plaintext of ``seal``.

    Raises:
        UnsealFailed: other key, other context, or changed bytes; which of them, nobody can tell.
        Bug: ``shared`` is the identity.
    """
    key, nonce = _derive(shared, context)
    if len(sealed) < TAG_BYTES:
        raise UnsealFailed
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, context, nonce, key)
    except CryptoError:
        raise UnsealFailed from None


def _derive(shared: Element, context: bytes) -> tuple[bytes, bytes]:
    if shared == IDENTITY:
        raise Bug("the identity as a shared point: a received point was not checked")
    material = transcript.digest(b"seal", shared, context)
    return material[:_KEY_BYTES], material[_KEY_BYTES : _KEY_BYTES + _NONCE_BYTES]
