"""Schnorr proof of knowledge and DLEQ proof (Chaum and Pedersen 1992), each bound to a context.

Proof of knowledge: RFC 9591's reference for key generation, Komlo and Goldberg 2020, figure 1 (it stops rogue keys and
stolen identities). DLEQ: a complaint shows K = x * E for the x of X = x * B, so that anybody can open the one sealed
sub-share it is about, and nothing else.

``context`` binds suite, attempt (open_id), phase, sender and record type: the caller makes it, injectively (a proof
that can be moved to another attempt or seat proves nothing). The challenge hashes it with every point, each with its
length and under a purpose of its own (``common.wire.transcript``).
"""

from typing import Final

from common.errors import Bug
from common.secret import Secret
from common.wire import transcript
from signer_service.frost.errors import InvalidProof, InvalidScalar
from signer_service.frost.group import (
    ELEMENT_BYTES,
    IDENTITY,
    ORDER,
    WIDE_BYTES,
    Element,
    Scalar,
    base_mul,
    decode_scalar,
    encode_scalar,
    mul,
    scalar_from_wide,
    sub,
)

PROOF_BYTES: Final = 64
"""Both proofs: R ‖ z for knowledge, c ‖ z for equality."""

_BASE_POINT: Final = base_mul(Scalar(1))


def prove(secret: Secret[Scalar], public: Element, context: bytes, entropy: bytes) -> bytes:
    """Prove knowledge of the discrete logarithm of ``public``.

    Args:
        secret: x, not zero.
        public: X = x * B.
        context: What the proof is for, injectively encoded.
        entropy: 64 fresh random bytes. The nonce hashes in secret and context too: weak randomness alone does not
            reveal x.

    Returns:
        R ‖ z, 64 bytes: R = k * B, z = k + c * x.

    Raises:
        Bug: ``public`` is not that of ``secret``, x is zero (a seat whose share is zero holds none), or not 64 bytes
            of entropy.
    """
    _check_statement(secret, public)
    nonce = _nonce(b"knowledge-nonce", secret, public, context, entropy)
    commitment = base_mul(nonce)
    c = _knowledge_challenge(public, commitment, context)
    return commitment + encode_scalar(Scalar((nonce + c * secret.expose()) % ORDER))


def verify_proof(public: Element, context: bytes, proof: bytes) -> None:
    """Return only if ``proof`` shows knowledge of the discrete logarithm of ``public`` for this context. 110 us.

    Raises:
        InvalidProof: it does not, or is malformed, or ``public`` is the identity.
    """
    head, z = _parse(proof)
    commitment = Element(head)
    if public == IDENTITY:
        raise InvalidProof("nobody needs to know anything to prove zero")
    c = _knowledge_challenge(public, commitment, context)
    # R is compared as bytes with what the equation gives: only a canonical point of the subgroup can be equal.
    if sub(base_mul(z), mul(public, c)) != commitment or commitment == IDENTITY:
        raise InvalidProof("the proof of knowledge does not verify")


def prove_equal(secret: Secret[Scalar], base: Element, shared: Element, context: bytes, entropy: bytes) -> bytes:
    """Prove that K = ``shared`` is x * E for E = ``base`` and the x of X = x * B.

    Args:
        secret: x, the transport secret; not zero.
        base: E, the other party's point, decoded.
        shared: K, which the proof makes public.
        context: What the proof is for, injectively encoded.
        entropy: 64 fresh random bytes, hedged as in ``prove``.

    Returns:
        c ‖ z, 64 bytes.

    Raises:
        Bug: ``shared`` is not x * E, x is zero, or not 64 bytes of entropy.
    """
    public = base_mul(secret.expose())
    _check_statement(secret, public)
    if mul(base, secret.expose()) != shared:
        raise Bug("a proof of equality about another shared point")
    nonce = _nonce(b"equality-nonce", secret, public + base + shared, context, entropy)
    c = _equality_challenge((public, base, shared), (base_mul(nonce), mul(base, nonce)), context)
    return encode_scalar(c) + encode_scalar(Scalar((nonce + c * secret.expose()) % ORDER))


def verify_equal(public: Element, base: Element, shared: Element, context: bytes, proof: bytes) -> None:
    """Return only if ``proof`` shows log_B(X) = log_E(K) for X = ``public``, E = ``base``, K = ``shared``. 300 us.

    Raises:
        InvalidProof: it does not, or is malformed, or one of the points is the identity.
    """
    head, z = _parse(proof)
    try:
        c = decode_scalar(head)
    except InvalidScalar as error:
        raise InvalidProof("the challenge is not a canonical scalar") from error
    if IDENTITY in (public, base, shared):
        raise InvalidProof("the identity in a proof of equality")
    first = sub(base_mul(z), mul(public, c))
    second = sub(mul(base, z), mul(shared, c))
    if _equality_challenge((public, base, shared), (first, second), context) != c:
        raise InvalidProof("the proof of equality does not verify")


def _parse(proof: bytes) -> tuple[bytes, Scalar]:
    if len(proof) != PROOF_BYTES:
        raise InvalidProof(f"a proof has {PROOF_BYTES} bytes, not {len(proof)}")
    try:
        return bytes(proof[:ELEMENT_BYTES]), decode_scalar(proof[ELEMENT_BYTES:])
    except InvalidScalar as error:
        raise InvalidProof("the response is not a canonical scalar") from error


def _check_statement(secret: Secret[Scalar], public: Element) -> None:
    if secret.expose() == 0:
        raise Bug("zero proves nothing")
    if base_mul(secret.expose()) != public:
        raise Bug("a proof about another public point")


def _nonce(purpose: bytes, secret: Secret[Scalar], statement: bytes, context: bytes, entropy: bytes) -> Scalar:
    if len(entropy) != WIDE_BYTES:
        raise Bug(f"a proof takes {WIDE_BYTES} random bytes, not {len(entropy)}")
    return scalar_from_wide(transcript.digest(purpose, entropy, encode_scalar(secret.expose()), statement, context))


def _knowledge_challenge(public: Element, commitment: Element, context: bytes) -> Scalar:
    return scalar_from_wide(transcript.digest(b"proof-of-knowledge", context, public, commitment))


def _equality_challenge(statement: tuple[Element, ...], nonces: tuple[Element, Element], context: bytes) -> Scalar:
    return scalar_from_wide(transcript.digest(b"proof-of-equality", context, _BASE_POINT, *statement, *nonces))
