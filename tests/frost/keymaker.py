"""Keys, sessions and signatures for the tests, from labels: the same label gives the same bytes.

A trusted dealer stands in for a ceremony where a test is about signing; tests of sharing run the ceremony's arithmetic.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import shake_256
from pathlib import Path
from typing import Any

from common.ids import Index
from common.secret import Secret
from signer_service.frost.group import Scalar, base_mul, random_scalar
from signer_service.frost.keys import KeyPackage, PublicKeyPackage
from signer_service.frost.nonces import Commitment, SigningNonces, commit
from signer_service.frost.sharing import random_polynomial, split
from signer_service.frost.signing import SignatureShare, aggregate, prepare, sign_share

VECTORS = Path(__file__).parent.parent / "vectors"


def entropy(label: str, size: int = 64) -> bytes:
    return shake_256(label.encode()).digest(size)


def scalar(label: str) -> Scalar:
    return random_scalar(entropy(label))


@cache
def vectors(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


@dataclass(frozen=True)
class Group:
    public: PublicKeyPackage
    keys: Mapping[Index, KeyPackage]


@cache
def deal(threshold: int, size: int, label: str = "key") -> Group:
    polynomial = random_polynomial(Secret(scalar(label)), threshold, entropy(label + " rest", 64 * (threshold - 1)))
    return group_of(threshold, split(polynomial, [Index(i) for i in range(1, size + 1)]), Secret(scalar(label)))


def group_of(threshold: int, shares: Mapping[Index, Secret[Scalar]], secret: Secret[Scalar]) -> Group:
    group_key = base_mul(secret.expose())
    points = {index: base_mul(share.expose()) for index, share in shares.items()}
    keys = {i: KeyPackage(i, share, points[i], group_key, threshold) for i, share in shares.items()}
    return Group(PublicKeyPackage(group_key, threshold, points), keys)


def round_one(
    keys: Mapping[Index, KeyPackage], indices: Iterable[int], label: str = "session"
) -> tuple[dict[Index, SigningNonces], dict[Index, Commitment]]:
    nonces, commitments = {}, {}
    for index in map(Index, indices):
        nonces[index], commitments[index] = commit(keys[index].share, entropy(f"{label} {index}"))
    return nonces, commitments


def round_two(
    keys: Mapping[Index, KeyPackage],
    nonces: Mapping[Index, SigningNonces],
    commitments: Mapping[Index, Commitment],
    message: bytes,
) -> dict[Index, SignatureShare]:
    return {i: sign_share(keys[i], nonces[i], commitments, message) for i in commitments}


def sign(group: Group, indices: Iterable[int], message: bytes, label: str = "session") -> bytes:
    """As replicas do: the coordinator, the first of ``indices``, aggregates with the context that it signed with."""
    nonces, commitments = round_one(group.keys, indices, label)
    coordinator = next(iter(commitments))
    context = prepare(group.public.group_key, commitments, message, (coordinator, nonces[coordinator]))
    shares = round_two(group.keys, nonces, {**commitments}, message)
    shares[coordinator] = sign_share(group.keys[coordinator], nonces[coordinator], commitments, message, context)
    return aggregate(group.public, commitments, message, shares, context)
