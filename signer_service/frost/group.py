"""The one door to libsodium's group operations: edwards25519, its subgroup of prime order L.

RFC 9591 section 3.1 names the operations, 6.1 the encodings for FROST(Ed25519, SHA-512). A received point comes in
through ``decode_element`` and nowhere else: libsodium's addition takes points with a torsion part silently, and one
such point makes two honest participants disagree about the same sum. So an ``Element`` is a promise: canonical, of
prime order, checked once. Received elements are never the identity; computed ones may be, and libsodium's
multiplications refuse it, so identity and zero are handled here.

Scalars are Python ints in [0, L). CPython's arithmetic is not constant time: a stated limit of the whole system.
"""

from collections.abc import Iterable
from typing import Final, NewType

from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_core_ed25519_is_valid_point,
    crypto_core_ed25519_sub,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_scalarmult_ed25519_noclamp,
)

from common.errors import Bug
from signer_service.frost.errors import InvalidElement, InvalidScalar

Element = NewType("Element", bytes)
"""32 canonical bytes of a point of the prime-order subgroup; the identity only where it was computed."""

Scalar = NewType("Scalar", int)
"""An int in [0, L)."""

ORDER: Final = 2**252 + 27742317777372353535851937790883648493
"""L, the order of the base point."""

ELEMENT_BYTES: Final = 32
SCALAR_BYTES: Final = 32
WIDE_BYTES: Final = 64
"""Bytes that are reduced to a scalar without a bias anybody could measure (260 bits above L)."""

IDENTITY: Final = Element(b"\x01" + bytes(31))


def decode_element(data: bytes) -> Element:
    """DeserializeElement of RFC 9591, 6.1, with the checks of 3.1: 35 us.

    Raises:
        InvalidElement: not 32 bytes, not canonical, not on the curve, of small order (the identity too), or with a
            torsion part.
    """
    if len(data) != ELEMENT_BYTES:
        raise InvalidElement(f"an element has {ELEMENT_BYTES} bytes, not {len(data)}")
    data = bytes(data)
    if not crypto_core_ed25519_is_valid_point(data):
        raise InvalidElement("not a canonical point of the prime-order subgroup")
    return Element(data)


def decode_scalar(data: bytes) -> Scalar:
    """DeserializeScalar of RFC 9591, 6.1.

    Raises:
        InvalidScalar: not 32 bytes, or L and above: a second encoding of one scalar would make shares malleable.
    """
    if len(data) != SCALAR_BYTES:
        raise InvalidScalar(f"a scalar has {SCALAR_BYTES} bytes, not {len(data)}")
    value = int.from_bytes(data, "little")
    if value >= ORDER:
        raise InvalidScalar("not below the group order")
    return Scalar(value)


def encode_scalar(scalar: Scalar) -> bytes:
    """SerializeScalar of RFC 9591, 6.1: 32 bytes little-endian."""
    return scalar.to_bytes(SCALAR_BYTES, "little")


def scalar_from_wide(data: bytes) -> Scalar:
    """Reduce 64 bytes, little-endian, modulo L.

    Raises:
        Bug: not 64 bytes: fewer would bias the result.
    """
    if len(data) != WIDE_BYTES:
        raise Bug(f"a wide reduction takes {WIDE_BYTES} bytes, not {len(data)}")
    return Scalar(int.from_bytes(data, "little") % ORDER)


def random_scalar(entropy: bytes) -> Scalar:
    """RandomScalar of RFC 9591, 3.1 (appendix D, wide reduction) from 64 bytes of fresh randomness."""
    return scalar_from_wide(entropy)


def inverse(scalar: Scalar) -> Scalar:
    """Return 1/scalar modulo L.

    Raises:
        Bug: zero has no inverse; whoever divides has excluded it.
    """
    if scalar == 0:
        raise Bug("zero has no inverse")
    return Scalar(pow(scalar, -1, ORDER))


def base_mul(scalar: Scalar) -> Element:
    """ScalarBaseMult: scalar * B; the identity for zero. 16 us."""
    if scalar == 0:
        return IDENTITY
    return Element(crypto_scalarmult_ed25519_base_noclamp(scalar.to_bytes(SCALAR_BYTES, "little")))


def mul(element: Element, scalar: Scalar) -> Element:
    """ScalarMult: scalar * element; the identity where either is trivial. 75 us: the subgroup is checked again."""
    if scalar == 0 or element == IDENTITY:
        return IDENTITY
    return Element(crypto_scalarmult_ed25519_noclamp(scalar.to_bytes(SCALAR_BYTES, "little"), element))


def add(a: Element, b: Element) -> Element:
    """a + b. 15 us."""
    return Element(crypto_core_ed25519_add(a, b))


def sub(a: Element, b: Element) -> Element:
    """a - b. 15 us."""
    return Element(crypto_core_ed25519_sub(a, b))


def total(elements: Iterable[Element]) -> Element:
    """Sum of the elements; the identity for none."""
    result = IDENTITY
    for element in elements:
        result = element if result == IDENTITY else Element(crypto_core_ed25519_add(result, element))
    return result


def multiply_accumulate(pairs: Iterable[tuple[Element, Scalar]]) -> Element:
    """Sum of scalar * element over the pairs; the identity for none."""
    return total(mul(element, scalar) for element, scalar in pairs)
