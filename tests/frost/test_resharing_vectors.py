"""Key generation, refresh, heal, 2-of-3 to 3-of-5 and back: every value as an independent implementation finds it."""

from typing import Any

import pytest

from common.ids import Index
from common.secret import Secret
from common.wire import transcript
from common.wire.messages import CeremonyKind
from signer_service.frost.group import ORDER, Element, base_mul, decode_element, decode_scalar, encode_scalar
from signer_service.frost.sharing import (
    Polynomial,
    check_sub_share,
    combine_commitments,
    combine_sub_shares,
    combine_verification_share,
    commit_polynomial,
    evaluate_commitment,
    interpolate_group_key,
    lagrange_weights,
    random_polynomial,
    split,
)
from tests.frost import reference
from tests.frost.keymaker import vectors

FILE: Any = vectors("resharing-ed25519.json")
CASES: list[Any] = FILE["cases"]


def secret(text: str) -> Secret[Any]:
    return Secret(decode_scalar(bytes.fromhex(text)))


def elements(texts: list[str]) -> tuple[Element, ...]:
    return tuple(decode_element(bytes.fromhex(text)) for text in texts)


def polynomial_of(case: Any, dealer: Any, shares: dict[int, str]) -> Polynomial:
    """The dealer's polynomial as the program makes it: from random bytes and, in a reshare, its own share."""
    random = bytes.fromhex("".join(dealer["entropy"]))
    if case["kind"] == "reshare":
        return random_polynomial(secret(shares[dealer["identifier"]]), case["threshold"], random)
    constant = Secret(decode_scalar(encode_scalar(int.from_bytes(random[:64], "little") % ORDER)))  # type: ignore[arg-type]
    return random_polynomial(constant, case["threshold"], random[64:])


def test_the_file_is_what_the_independent_implementation_makes() -> None:
    assert reference.VECTORS.read_text() == reference.text()


def test_the_reference_has_the_curve_of_rfc_8032() -> None:
    # 7.1, test 1: a secret that is hashed and clamped, and its public key.
    clamped = 0x4FE94D9006F020A5A3C080D96827FFFD3C010AC0F12E7A42CB33284F86837C30
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert reference.element(reference.times(clamped)) == public
    assert reference.element(reference.times(reference.L)) == (1).to_bytes(32, "little").hex()
    assert int(FILE["group_order"]) == reference.L == ORDER


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case["name"] for case in CASES])
def test_every_value_of_a_resharing_is_that_of_the_vector(number: int) -> None:
    case = CASES[number]
    kind = CeremonyKind(case["kind"])
    shares = {each["identifier"]: each["share"] for each in CASES[number - 1]["recipients"]} if number else {}
    recipients = [Index(each["identifier"]) for each in case["recipients"]]
    dealers = tuple(Index(each["identifier"]) for each in case["dealers"])
    weights = lagrange_weights(dealers)
    commitments: dict[Index, tuple[Element, ...]] = {}
    sub_shares: dict[Index, dict[Index, Secret[Any]]] = {}
    for dealer in case["dealers"]:
        index = Index(dealer["identifier"])
        polynomial = polynomial_of(case, dealer, shares)
        assert [encode_scalar(c).hex() for c in polynomial.coefficients.expose()] == dealer["coefficients"]
        commitments[index] = commit_polynomial(polynomial)
        assert [each.hex() for each in commitments[index]] == dealer["commitments"]
        assert elements(dealer["commitments"]) == commitments[index]
        sub_shares[index] = split(polynomial, recipients)
        told = {str(j): encode_scalar(each.expose()).hex() for j, each in sub_shares[index].items()}
        assert told == dealer["sub_shares"]
        for j, each in sub_shares[index].items():
            check_sub_share(each, j, commitments[index])
        weight = weights[index] if kind is CeremonyKind.RESHARE else 1
        assert encode_scalar(weight).hex() == dealer["lagrange_weight"]  # type: ignore[arg-type]
    combined = combine_commitments(kind, commitments)
    assert [each.hex() for each in combined] == case["group_commitments"]
    assert combined[0].hex() == case["group_public_key"]
    assert base_mul(secret(case["group_secret"]).expose()).hex() == case["group_public_key"]
    points: dict[Index, Element] = {}
    for recipient in case["recipients"]:
        j = Index(recipient["identifier"])
        share = combine_sub_shares(kind, {i: sub_shares[i][j] for i in dealers})
        assert encode_scalar(share.expose()).hex() == recipient["share"]
        points[j] = evaluate_commitment(combined, j)
        assert points[j].hex() == base_mul(share.expose()).hex() == recipient["verification_share"]
        assert combine_verification_share(kind, j, commitments) == points[j]
    assert interpolate_group_key(points, recipients[: case["threshold"]]).hex() == case["group_public_key"]
    assert transcript.verification_hash(dict(points)).hex() == case["verification_hash"]


def test_the_cases_are_one_key_through_its_epochs() -> None:
    assert [case["epoch"] for case in CASES] == [1, 2, 3, 4, 5]
    assert len({case["group_public_key"] for case in CASES}) == 1
    shares = [each["share"] for case in CASES for each in case["recipients"]]
    assert len(set(shares)) == len(shares), "no share outlives its epoch"
    sizes = [(case["threshold"], len(case["recipients"]), len(case["dealers"])) for case in CASES]
    assert sizes == [(2, 3, 3), (2, 3, 3), (2, 3, 2), (3, 5, 3), (2, 3, 4)]
