"""RFC 9591, appendix E.1: FROST(Ed25519, SHA-512), byte for byte at every value that it prints."""

from typing import Any

import pytest

from common import ed25519
from common.ids import Index
from common.secret import Secret
from signer_service.frost.group import Element, base_mul, decode_element, decode_scalar, encode_scalar
from signer_service.frost.keys import KeyPackage, PublicKeyPackage
from signer_service.frost.nonces import Commitment, SigningNonces, commit
from signer_service.frost.sharing import Polynomial, interpolate_group_key
from signer_service.frost.signing import (
    SignatureShare,
    aggregate,
    binding_factor_inputs,
    binding_factors,
    prepare,
    sign_share,
    verify_share,
)
from tests.frost.keymaker import vectors

VECTOR: Any = vectors("rfc9591-frost-ed25519-sha512.json")
INPUTS = VECTOR["inputs"]
ROUND_ONE = VECTOR["round_one_outputs"]["outputs"]
ROUND_TWO = VECTOR["round_two_outputs"]["outputs"]
MESSAGE = bytes.fromhex(INPUTS["message"])
GROUP_KEY = decode_element(bytes.fromhex(INPUTS["group_public_key"]))
SHARES = {
    Index(entry["identifier"]): Secret(decode_scalar(bytes.fromhex(entry["participant_share"])))
    for entry in INPUTS["participant_shares"]
}
PUBLIC = PublicKeyPackage(GROUP_KEY, 2, {index: base_mul(share.expose()) for index, share in SHARES.items()})


def made_nonces() -> dict[Index, SigningNonces]:
    return {
        Index(entry["identifier"]): commit(
            SHARES[entry["identifier"]],
            bytes.fromhex(entry["hiding_nonce_randomness"] + entry["binding_nonce_randomness"]),
        )[0]
        for entry in ROUND_ONE
    }


def printed_commitments() -> dict[Index, Commitment]:
    return {
        Index(entry["identifier"]): Commitment.from_bytes(
            bytes.fromhex(entry["hiding_nonce_commitment"] + entry["binding_nonce_commitment"])
        )
        for entry in ROUND_ONE
    }


def made_shares(commitments: dict[Index, Commitment]) -> dict[Index, SignatureShare]:
    nonces = made_nonces()
    return {
        i: sign_share(
            KeyPackage(i, SHARES[i], PUBLIC.verification_shares[i], GROUP_KEY, 2), nonces[i], commitments, MESSAGE
        )
        for i in commitments
    }


def test_the_vector_is_the_one_with_participants_1_and_3_of_3() -> None:
    assert INPUTS["participant_list"] == [entry["identifier"] for entry in ROUND_ONE] == [1, 3]
    assert len(SHARES) == 3


def test_shares_are_the_polynomial_at_each_identifier() -> None:
    coefficients = [INPUTS["group_secret_key"], *INPUTS["share_polynomial_coefficients"]]
    polynomial = Polynomial(Secret(tuple(decode_scalar(bytes.fromhex(c)) for c in coefficients)))
    for index, share in SHARES.items():
        assert polynomial.evaluate(index).expose() == share.expose()


def test_the_group_key_is_that_of_the_secret_and_of_every_pair_of_verification_shares() -> None:
    assert base_mul(decode_scalar(bytes.fromhex(INPUTS["group_secret_key"]))) == GROUP_KEY
    for pair in ((1, 2), (1, 3), (2, 3)):
        assert interpolate_group_key(PUBLIC.verification_shares, map(Index, pair)) == GROUP_KEY


@pytest.mark.parametrize("entry", ROUND_ONE, ids=lambda entry: str(entry["identifier"]))
def test_nonces_and_commitments(entry: Any) -> None:
    nonces = made_nonces()[entry["identifier"]]
    assert encode_scalar(nonces.hiding.expose()).hex() == entry["hiding_nonce"]
    assert encode_scalar(nonces.binding.expose()).hex() == entry["binding_nonce"]
    assert nonces.commitment.hiding.hex() == entry["hiding_nonce_commitment"]
    assert nonces.commitment.binding.hex() == entry["binding_nonce_commitment"]
    assert nonces.commitment.to_bytes().hex() == entry["hiding_nonce_commitment"] + entry["binding_nonce_commitment"]


@pytest.mark.parametrize("entry", ROUND_ONE, ids=lambda entry: str(entry["identifier"]))
def test_binding_factor_inputs_and_binding_factors(entry: Any) -> None:
    index = entry["identifier"]
    commitments = printed_commitments()
    assert binding_factor_inputs(GROUP_KEY, commitments, MESSAGE)[index].hex() == entry["binding_factor_input"]
    factor = binding_factors(GROUP_KEY, commitments, MESSAGE)[index]
    assert encode_scalar(factor).hex() == entry["binding_factor"]


def test_the_order_in_which_commitments_arrive_changes_nothing() -> None:
    commitments = printed_commitments()
    turned = dict(reversed(commitments.items()))
    assert list(turned) != list(commitments)
    assert binding_factor_inputs(GROUP_KEY, turned, MESSAGE) == binding_factor_inputs(GROUP_KEY, commitments, MESSAGE)
    assert made_shares(turned) == made_shares(commitments)


@pytest.mark.parametrize("entry", ROUND_TWO, ids=lambda entry: str(entry["identifier"]))
def test_signature_shares(entry: Any) -> None:
    index = Index(entry["identifier"])
    commitments = printed_commitments()
    share = made_shares(commitments)[index]
    assert encode_scalar(share).hex() == entry["sig_share"]
    verify_share(PUBLIC, index, share, commitments, MESSAGE)


def test_the_signature_and_its_group_commitment() -> None:
    commitments = printed_commitments()
    signature = aggregate(PUBLIC, commitments, MESSAGE, made_shares(commitments))
    assert signature.hex() == VECTOR["final_output"]["sig"]
    assert prepare(GROUP_KEY, commitments, MESSAGE).group_commitment == Element(signature[:32])
    assert ed25519.verify(GROUP_KEY, MESSAGE, signature)
