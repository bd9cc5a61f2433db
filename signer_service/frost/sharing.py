"""Shamir sharing over the scalars and Feldman commitments over the group: what ceremonies compute.

RFC 9591, 4.2 and appendix C.1/C.2 (polynomials, Lagrange, ``vss_commit``, ``vss_verify``, ``derive_group_info``);
Pedersen 1991 (every seat deals, shares are summed); Desmedt and Jajodia 1997 (holders deal their own shares, and the
new share is the interpolation of the sub-shares at 0). There is no function that computes the secret from shares.

A received commitment is a list of decoded elements, never the identity. What is computed from honest and dishonest
dealers' commitments together may be the identity (the last dealer can arrange that for one seat): it is returned as
it is, and the caller says that this seat holds no share.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from common.errors import Bug
from common.ids import MAX_INDEX, Index
from common.secret import Secret
from common.wire.messages import CeremonyKind
from signer_service.frost.errors import DuplicateIdentifier, InvalidCommitment, InvalidSubShare, UnknownIdentifier
from signer_service.frost.group import (
    IDENTITY,
    ORDER,
    WIDE_BYTES,
    Element,
    Scalar,
    add,
    base_mul,
    mul,
    multiply_accumulate,
    random_scalar,
    total,
)

Dealt = TypeVar("Dealt")


@dataclass(frozen=True, slots=True)
class Polynomial:
    """Secret coefficients, constant term first; t of them give a threshold of t. Prints ``<redacted>``."""

    coefficients: Secret[tuple[Scalar, ...]]

    def evaluate(self, index: Index) -> Secret[Scalar]:
        """``polynomial_evaluate`` of RFC 9591, C.1: the sub-share f(index), by Horner's rule.

        Raises:
            UnknownIdentifier: 0 (f(0) is the secret itself) or above 65535.
        """
        _check_index(index)
        value = 0
        for coefficient in reversed(self.coefficients.expose()):
            value = (value * index + coefficient) % ORDER
        return Secret(Scalar(value))


def random_polynomial(constant: Secret[Scalar], threshold: int, entropy: bytes) -> Polynomial:
    """Return a polynomial of ``threshold`` coefficients with the given constant term.

    Args:
        constant: The secret to share: f(0).
        threshold: How many sub-shares determine it; at least 1.
        entropy: 64 * (threshold - 1) fresh random bytes, 64 for each further coefficient.

    Raises:
        Bug: wrong amount of entropy.
    """
    if threshold < 1 or len(entropy) != WIDE_BYTES * (threshold - 1):
        raise Bug(f"a polynomial of {threshold} coefficients takes {WIDE_BYTES} random bytes for each but the first")
    rest = (random_scalar(entropy[at : at + WIDE_BYTES]) for at in range(0, len(entropy), WIDE_BYTES))
    return Polynomial(Secret((constant.expose(), *rest)))


def split(polynomial: Polynomial, indices: Iterable[Index]) -> dict[Index, Secret[Scalar]]:
    """``secret_share_shard`` of RFC 9591, C.1: one sub-share for each index.

    Raises:
        UnknownIdentifier, DuplicateIdentifier: an index that is 0, too large, or there twice.
    """
    return {index: polynomial.evaluate(index) for index in _distinct(indices)}


def commit_polynomial(polynomial: Polynomial) -> tuple[Element, ...]:
    """``vss_commit`` of RFC 9591, C.2: each coefficient times B, constant term first."""
    return tuple(base_mul(coefficient) for coefficient in polynomial.coefficients.expose())


def evaluate_commitment(commitments: Sequence[Element], index: Index) -> Element:
    """Return f(index) * B from the commitments to f, by Horner's rule in the exponent. It may be the identity.

    Raises:
        InvalidCommitment: an empty list commits to nothing.
        UnknownIdentifier: 0 or above 65535.
    """
    _check_index(index)
    if not commitments:
        raise InvalidCommitment("an empty list of commitments")
    weight = Scalar(int(index))
    value = commitments[-1]
    for commitment in reversed(commitments[:-1]):
        value = add(mul(value, weight), commitment)
    return value


def check_sub_share(sub_share: Secret[Scalar], index: Index, commitments: Sequence[Element]) -> None:
    """``vss_verify`` of RFC 9591, C.2: return only if sub_share * B is what the commitments say for ``index``.

    Raises:
        InvalidSubShare: it is not: the dealer lied, or the commitments are not this dealer's.
        InvalidCommitment, UnknownIdentifier: as ``evaluate_commitment``.
    """
    if base_mul(sub_share.expose()) != evaluate_commitment(commitments, index):
        raise InvalidSubShare


def lagrange_at_zero(index: Index, indices: Iterable[Index]) -> Scalar:
    """``derive_interpolating_value`` of RFC 9591, 4.2: the weight of f(index) in f(0) over exactly ``indices``.

    Raises:
        UnknownIdentifier: ``index`` is not among them, or one of them is 0 or above 65535.
        DuplicateIdentifier: one of them stands twice.
    """
    weights = lagrange_weights(tuple(indices))
    if index not in weights:
        raise UnknownIdentifier(index)
    return weights[index]


@lru_cache(maxsize=4096)
def lagrange_weights(indices: tuple[Index, ...]) -> Mapping[Index, Scalar]:
    """All the weights of ``lagrange_at_zero``, cached: the same few signing sets come again and again. Read only.

    Raises:
        UnknownIdentifier, DuplicateIdentifier: as ``lagrange_at_zero``.
    """
    weights: dict[Index, Scalar] = {}
    for i in _distinct(indices):
        numerator = denominator = 1
        for j in indices:
            if j != i:
                numerator = numerator * j % ORDER
                denominator = denominator * (j - i) % ORDER
        weights[i] = Scalar(numerator * pow(denominator, -1, ORDER) % ORDER)
    return weights


def combine_sub_shares(kind: CeremonyKind, sub_shares: Mapping[Index, Secret[Scalar]]) -> Secret[Scalar]:
    """A recipient's new share from what each dealer of QUAL gave it.

    GENERATE: their sum (Pedersen 1991). RESHARE: their interpolation at 0 over the dealers (Desmedt and Jajodia
    1997), because the dealers' constant terms are themselves points of the old polynomial.

    Args:
        kind: What the ceremony does.
        sub_shares: By dealer; exactly QUAL, each checked with ``check_sub_share``. In a reshare at least the old
            threshold: the caller has counted.
    """
    weights = _dealer_weights(kind, sub_shares)
    return Secret(Scalar(sum(weights[dealer] * share.expose() for dealer, share in sub_shares.items()) % ORDER))


def combine_commitments(kind: CeremonyKind, commitments: Mapping[Index, Sequence[Element]]) -> tuple[Element, ...]:
    """Commitments to the polynomial on which all new shares lie: the dealers', combined as their sub-shares are.

    The first is the group key; ``evaluate_commitment`` of the result gives each seat's Y'. For many seats this is much
    cheaper than ``combine_verification_share`` for each.

    Raises:
        InvalidCommitment: no dealer, or lists of different lengths.
    """
    lengths = {len(of_dealer) for of_dealer in commitments.values()}
    if len(lengths) != 1:
        raise InvalidCommitment("dealers' commitments are of different lengths, or there are none")
    weights = _dealer_weights(kind, commitments)
    if kind is CeremonyKind.GENERATE:
        return tuple(total(column) for column in zip(*commitments.values(), strict=True))
    by_dealer = [(weights[dealer], of_dealer) for dealer, of_dealer in commitments.items()]
    return tuple(
        multiply_accumulate((of_dealer[k], weight) for weight, of_dealer in by_dealer) for k in range(lengths.pop())
    )


def combine_verification_share(
    kind: CeremonyKind, index: Index, commitments: Mapping[Index, Sequence[Element]]
) -> Element:
    """The new verification share Y' of ``index``, from the dealers' commitments alone. It may be the identity.

    Raises:
        InvalidCommitment, UnknownIdentifier: as ``combine_commitments`` and ``evaluate_commitment``.
    """
    return evaluate_commitment(combine_commitments(kind, commitments), index)


def interpolate_group_key(verification_shares: Mapping[Index, Element], subset: Iterable[Index]) -> Element:
    """The group key from the verification shares of ``subset`` (at least t seats of one epoch), in the exponent.

    Shares of two epochs interpolate to another point: compare the result with the key that is known.

    Raises:
        UnknownIdentifier: a seat of the subset has no verification share here.
        DuplicateIdentifier: a seat stands twice.
    """
    weights = lagrange_weights(tuple(subset))
    for index in weights:
        if index not in verification_shares:
            raise UnknownIdentifier(index)
    return multiply_accumulate((verification_shares[index], weight) for index, weight in weights.items())


def holds_no_share(verification_share: Element) -> bool:
    """True if a computed verification share is the identity: that seat's share is zero, which is no share."""
    return verification_share == IDENTITY


def _dealer_weights(kind: CeremonyKind, by_dealer: Mapping[Index, Dealt]) -> Mapping[Index, Scalar]:
    if kind is CeremonyKind.RESHARE:
        return lagrange_weights(tuple(sorted(by_dealer)))
    return {dealer: Scalar(1) for dealer in by_dealer}


def _distinct(indices: Iterable[Index]) -> dict[Index, None]:
    seen: dict[Index, None] = {}
    for index in indices:
        _check_index(index)
        if index in seen:
            raise DuplicateIdentifier(index)
        seen[index] = None
    return seen


def _check_index(index: int) -> None:
    if not 1 <= index <= MAX_INDEX:
        raise UnknownIdentifier(index)
