"""Round one: a participant's pair of nonces, which stays, and its commitment, which goes. RFC 9591, 4.1 and 5.1."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from common.errors import Bug
from common.ids import MAX_INDEX, Index
from common.secret import Secret
from signer_service.frost.errors import DuplicateIdentifier, InvalidCommitment, UnknownIdentifier
from signer_service.frost.group import ELEMENT_BYTES, IDENTITY, Element, Scalar, base_mul, decode_element, encode_scalar
from signer_service.frost.hashing import h3

RANDOMNESS_BYTES: Final = 32
COMMITMENT_BYTES: Final = 2 * ELEMENT_BYTES


@dataclass(frozen=True, slots=True)
class Commitment:
    """``(hiding_nonce_commitment, binding_nonce_commitment)``: 64 bytes on the wire. Not secret."""

    hiding: Element
    binding: Element

    def to_bytes(self) -> bytes:
        """Return hiding ‖ binding, 64 bytes."""
        return self.hiding + self.binding

    @classmethod
    def from_bytes(cls, data: bytes) -> "Commitment":
        """Decode a received commitment. This is the one check: whoever uses it later need not check again. 70 us.

        Raises:
            InvalidCommitment: not 64 bytes.
            InvalidElement: one half is not a canonical point of prime order, or is the identity.
        """
        if len(data) != COMMITMENT_BYTES:
            raise InvalidCommitment(f"a commitment has {COMMITMENT_BYTES} bytes, not {len(data)}")
        return cls(decode_element(data[:ELEMENT_BYTES]), decode_element(data[ELEMENT_BYTES:]))

    @classmethod
    def to_multiply(cls, data: bytes) -> "Commitment":
        """Decode a received commitment whose binding half is multiplied before anything else is done with it. 35 us.

        libsodium's point multiplication itself refuses (``RuntimeError``) what is not canonical, not on the curve, of
        small order or outside the prime-order subgroup. The identity is the exception: our ``mul`` takes it for a
        computed zero and never asks libsodium. The hiding half is only added, and addition checks nothing.

        Raises:
            InvalidCommitment: not 64 bytes.
            InvalidElement: the hiding half is no element, or the binding half is the identity.
        """
        binding = data[ELEMENT_BYTES:]
        if len(data) != COMMITMENT_BYTES or binding == IDENTITY:
            return cls.from_bytes(data)
        return cls(decode_element(data[:ELEMENT_BYTES]), Element(binding))


@dataclass(frozen=True, slots=True)
class SigningNonces:
    """One pair of secret nonces, for one session and no other; in RAM only. Prints ``<redacted>``.

    Two signature shares made with one pair reveal the key share (RFC 9591, section 7): whoever keeps the pool removes
    a pair before it computes anything with it.
    """

    hiding: Secret[Scalar]
    binding: Secret[Scalar]
    commitment: Commitment


def commit(share: Secret[Scalar], entropy: bytes) -> tuple[SigningNonces, Commitment]:
    """``commit`` of RFC 9591, 5.1, with ``nonce_generate`` of 4.1: H3(32 fresh random bytes ‖ share), twice. 35 us.

    The key share is hashed in, so that a broken random generator alone does not reveal it; fresh randomness is hashed
    in, so that no two pairs are equal.

    Args:
        share: This participant's key share.
        entropy: 64 fresh random bytes: 32 for the hiding nonce, 32 for the binding nonce.

    Raises:
        Bug: not 64 bytes of entropy.
    """
    if len(entropy) != 2 * RANDOMNESS_BYTES:
        raise Bug(f"a pair of nonces takes {2 * RANDOMNESS_BYTES} random bytes, not {len(entropy)}")
    encoded_share = encode_scalar(share.expose())
    hiding = h3(entropy[:RANDOMNESS_BYTES] + encoded_share)
    binding = h3(entropy[RANDOMNESS_BYTES:] + encoded_share)
    commitment = Commitment(base_mul(hiding), base_mul(binding))
    return SigningNonces(Secret(hiding), Secret(binding), commitment), commitment


def collect(pairs: Iterable[tuple[int, Commitment]]) -> dict[Index, Commitment]:
    """Return received (identifier, commitment) pairs as the mapping that ``signing`` takes.

    Raises:
        UnknownIdentifier: an identifier that is 0 or above 65535.
        DuplicateIdentifier: an identifier stands twice: a mapping would silently keep the last.
    """
    commitments: dict[Index, Commitment] = {}
    for number, commitment in pairs:
        index = Index(number)
        if not 1 <= index <= MAX_INDEX:
            raise UnknownIdentifier(index)
        if index in commitments:
            raise DuplicateIdentifier(index)
        commitments[index] = commitment
    return commitments
