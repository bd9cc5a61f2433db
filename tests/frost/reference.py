"""Resharing a second time, from the papers alone: plain integers modulo L, and edwards25519 in a few lines.

Nothing of ours is imported, and every value is found by another road than in ``signer_service.frost``: verification
shares come from the shares themselves, not from commitments; the group key comes from the secret, which exists here
and nowhere in the program. Slow, not constant time, for vectors only.

``python -m tests.frost.reference`` writes ``tests/vectors/resharing-ed25519.json``; a test compares it with the file.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parent.parent / "vectors" / "resharing-ed25519.json"

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493

# --- edwards25519: -x^2 + y^2 = 1 + d x^2 y^2 (RFC 8032, 5.1) --------------------------------------------------------

D = -121665 * pow(121666, -1, P) % P
BY = 4 * pow(5, -1, P) % P
BX = 15112221349535400772501151409588531511454012693041857206046113283949847762202

Point = tuple[int, int, int, int]
"""X, Y, Z, T with x = X/Z, y = Y/Z, x * y = T/Z."""

BASE: Point = (BX, BY, 1, BX * BY % P)


def add(a: Point, b: Point) -> Point:
    """The complete addition law of RFC 8032, 5.1.4."""
    (x1, y1, z1, t1), (x2, y2, z2, t2) = a, b
    A, B = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    C, E = 2 * t1 * t2 * D % P, 2 * z1 * z2 % P
    F, G, H, J = B - A, E - C, E + C, B + A
    return F * G % P, H * J % P, G * H % P, F * J % P


def times(scalar: int, point: Point = BASE) -> Point:
    """Double and add."""
    result: Point = (0, 1, 1, 0)
    for bit in f"{scalar:b}":
        result = add(result, result)
        if bit == "1":
            result = add(result, point)
    return result


def element(point: Point) -> str:
    """RFC 8032, 5.1.2: y little-endian with the lowest bit of x on top; hex."""
    x, y = (each * pow(point[2], -1, P) % P for each in point[:2])
    return (y | (x & 1) << 255).to_bytes(32, "little").hex()


def scalar(value: int) -> str:
    """32 bytes little-endian, hex."""
    return value.to_bytes(32, "little").hex()


# --- sharing ---------------------------------------------------------------------------------------------------------


def weight(i: int, indices: Sequence[int]) -> int:
    """Lagrange's weight of f(i) in f(0)."""
    result = 1
    for j in indices:
        if j != i:
            result = result * j * pow(j - i, -1, L) % L
    return result


def value(coefficients: list[int], at: int) -> int:
    """f(at)."""
    return sum(c * pow(at, k, L) for k, c in enumerate(coefficients)) % L


Draw = Callable[[int, int, int], bytes]
"""64 random bytes for an epoch, a dealer, and the number of its coefficient."""


def from_label(epoch: int, dealer: int, k: int) -> bytes:
    """Bytes that anybody can make again."""
    return hashlib.shake_256(f"resharing vector, epoch {epoch}, dealer {dealer}, {k}".encode()).digest(64)


def verification_hash(shares: dict[int, str]) -> str:
    """What a Ready record says of all Y_j: SHA-512 over length-prefixed items."""
    items = [b"signer-flow/v1 FROST-ED25519-SHA512-v1", b"verification-shares"]
    for j in sorted(shares):
        items += [j.to_bytes(8, "big"), bytes.fromhex(shares[j])]
    return hashlib.sha512(b"".join(len(item).to_bytes(4, "big") + item for item in items)).hexdigest()


def ceremony(
    name: str,
    epoch: int,
    threshold: int,
    recipients: Sequence[int],
    dealers: Sequence[int],
    old: dict[int, int] | None,
    draw: Draw = from_label,
) -> tuple[dict[str, Any], dict[int, int]]:
    """One ceremony: the case for the file, and the new shares.

    ``old`` are the shares of the epoch before; None: a new key, where each dealer takes a random constant term.
    """
    case: dict[str, Any] = {
        "name": name,
        "kind": "generate" if old is None else "reshare",
        "epoch": epoch,
        "threshold": threshold,
        "dealers": [],
        "recipients": [],
    }
    dealt: dict[int, list[int]] = {}
    weights = {i: 1 if old is None else weight(i, dealers) for i in dealers}
    for i in dealers:
        first = 0 if old is None else 1
        random = [draw(epoch, i, k) for k in range(first, threshold)]
        drawn = [int.from_bytes(each, "little") % L for each in random]
        coefficients = drawn if old is None else [old[i], *drawn]
        dealt[i] = coefficients
        case["dealers"].append(
            {
                "identifier": i,
                "entropy": [each.hex() for each in random],
                "coefficients": [scalar(c) for c in coefficients],
                "commitments": [element(times(c)) for c in coefficients],
                "sub_shares": {str(j): scalar(value(coefficients, j)) for j in recipients},
                "lagrange_weight": scalar(weights[i]),
            }
        )
    new = {j: sum(weights[i] * value(dealt[i], j) for i in dealers) % L for j in recipients}
    public = {j: element(times(new[j])) for j in recipients}
    for j in recipients:
        case["recipients"].append({"identifier": j, "share": scalar(new[j]), "verification_share": public[j]})
    combined = [sum(weights[i] * dealt[i][k] for i in dealers) % L for k in range(threshold)]
    case["group_commitments"] = [element(times(c)) for c in combined]
    case["group_secret"] = scalar(combined[0])
    case["group_public_key"] = element(times(combined[0]))
    case["verification_hash"] = verification_hash(public)
    for subset in combinations(recipients, threshold):
        assert sum(weight(j, subset) * new[j] for j in subset) % L == combined[0]
    return case, new


def make() -> dict[str, Any]:
    """The whole file."""
    generate, shares = ceremony("generate 2-of-3", 1, 2, [1, 2, 3], [1, 2, 3], None)
    refresh, shares = ceremony("refresh 2-of-3", 2, 2, [1, 2, 3], [1, 2, 3], shares)
    lost = {i: shares[i] for i in (1, 2)}
    heal, shares = ceremony("heal seat 3 of 2-of-3", 3, 2, [1, 2, 3], [1, 2], lost)
    grow, shares = ceremony("2-of-3 to 3-of-5", 4, 3, [1, 2, 3, 4, 5], [1, 2, 3], shares)
    shrink, shares = ceremony("3-of-5 to 2-of-3, dealer 2 excluded", 5, 2, [1, 2, 3], [1, 3, 4, 5], shares)
    return {
        "description": [
            "Key generation and resharing of one key over edwards25519, epoch by epoch: the shares of a case are what",
            "the next one deals. Scalars are 32 bytes little-endian, elements as in RFC 8032, 5.1.2; all hex.",
            "entropy: 64 random bytes, little-endian, reduced modulo L, for each coefficient; in a reshare for all but",
            "the first, which is the dealer's share of the epoch before. entropy is SHAKE256 of a label: see",
            "tests/frost/reference.py.",
            "commitments: coefficient * B. sub_shares: f_i(j) for each recipient j. lagrange_weight: of dealer i at 0",
            "over all dealers of the case (generate: 1). share of j: the sum of lagrange_weight * f_i(j).",
            "In 2-of-3 to 3-of-5 two seats join at once. The program lets one seat without a share join in a ceremony.",
            "verification_share: share * B. group_commitments: to the polynomial that all new shares lie on.",
            "group_secret exists in this file only: no process of the system ever holds it.",
            "verification_hash: SHA-512 over all verification shares, as a Ready record has it.",
        ],
        "suite": "FROST(Ed25519, SHA-512)",
        "group_order": str(L),
        "cases": [generate, refresh, heal, grow, shrink],
    }


def text() -> str:
    """The file as it is written."""
    return json.dumps(make(), indent=1) + "\n"


if __name__ == "__main__":
    VECTORS.write_text(text())
