"""A proof holds for its points and its context, and under no changed byte of either."""

import pytest

from common.errors import Bug
from common.secret import Secret
from signer_service.frost import proofs
from signer_service.frost.errors import InvalidProof
from signer_service.frost.group import IDENTITY, ORDER, Element, Scalar, base_mul, encode_scalar, mul, sub
from signer_service.frost.proofs import PROOF_BYTES, prove, prove_equal, verify_equal, verify_proof
from tests.frost.keymaker import entropy, scalar
from tests.frost.test_elements import SMALL_ORDER

SECRET = Secret(scalar("x"))
PUBLIC = base_mul(SECRET.expose())
BASE = base_mul(scalar("ephemeral"))
SHARED = mul(BASE, SECRET.expose())
CONTEXT = b"suite, attempt, phase, sender, record"
OTHER = base_mul(scalar("other"))

KNOWLEDGE = prove(SECRET, PUBLIC, CONTEXT, entropy("k"))
EQUALITY = prove_equal(SECRET, BASE, SHARED, CONTEXT, entropy("e"))


def flipped(data: bytes) -> list[bytes]:
    """``data`` with each byte changed in turn."""
    return [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(len(data))]


def contexts() -> list[bytes]:
    return [*flipped(CONTEXT), b"", CONTEXT + b"\x00", CONTEXT[:-1]]


def test_honest_proofs_verify() -> None:
    verify_proof(PUBLIC, CONTEXT, KNOWLEDGE)
    verify_equal(PUBLIC, BASE, SHARED, CONTEXT, EQUALITY)
    assert len(KNOWLEDGE) == len(EQUALITY) == PROOF_BYTES


def test_a_proof_fails_under_any_changed_byte_of_its_context() -> None:
    for context in contexts():
        with pytest.raises(InvalidProof):
            verify_proof(PUBLIC, context, KNOWLEDGE)
        with pytest.raises(InvalidProof):
            verify_equal(PUBLIC, BASE, SHARED, context, EQUALITY)


def test_a_proof_fails_with_any_changed_byte() -> None:
    for proof in flipped(KNOWLEDGE):
        with pytest.raises(InvalidProof):
            verify_proof(PUBLIC, CONTEXT, proof)
    for proof in flipped(EQUALITY):
        with pytest.raises(InvalidProof):
            verify_equal(PUBLIC, BASE, SHARED, CONTEXT, proof)


@pytest.mark.parametrize("length", [0, 32, 63, 65, 96])
def test_a_proof_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidProof):
        verify_proof(PUBLIC, CONTEXT, (KNOWLEDGE * 2)[:length])
    with pytest.raises(InvalidProof):
        verify_equal(PUBLIC, BASE, SHARED, CONTEXT, (EQUALITY * 2)[:length])


def test_a_second_encoding_of_a_proof_is_refused() -> None:
    for proof in (KNOWLEDGE, EQUALITY):
        z = int.from_bytes(proof[32:], "little") + ORDER
        again = proof[:32] + z.to_bytes(32, "little")
        with pytest.raises(InvalidProof):
            verify_proof(PUBLIC, CONTEXT, again)
        with pytest.raises(InvalidProof):
            verify_equal(PUBLIC, BASE, SHARED, CONTEXT, again)
    c = int.from_bytes(EQUALITY[:32], "little") + ORDER
    with pytest.raises(InvalidProof):
        verify_equal(PUBLIC, BASE, SHARED, CONTEXT, c.to_bytes(32, "little") + EQUALITY[32:])


def test_a_proof_of_knowledge_is_for_one_point() -> None:
    for point in (OTHER, sub(IDENTITY, PUBLIC), IDENTITY):
        with pytest.raises(InvalidProof):
            verify_proof(point, CONTEXT, KNOWLEDGE)


def test_a_proof_of_equality_is_for_one_set_of_points() -> None:
    for at in range(3):
        for point in (OTHER, IDENTITY):
            points = [PUBLIC, BASE, SHARED]
            points[at] = point
            with pytest.raises(InvalidProof):
                verify_equal(points[0], points[1], points[2], CONTEXT, EQUALITY)
    with pytest.raises(InvalidProof):
        verify_equal(PUBLIC, SHARED, BASE, CONTEXT, EQUALITY)


def test_a_proof_about_zero_is_refused_though_its_equation_holds() -> None:
    """Anybody can make one: with X the identity, z = k fits every challenge."""
    k = scalar("k")
    with pytest.raises(InvalidProof):
        verify_proof(IDENTITY, CONTEXT, base_mul(k) + encode_scalar(k))
    for base in (BASE, IDENTITY):
        c = proofs._equality_challenge((IDENTITY, base, IDENTITY), (base_mul(k), mul(base, k)), CONTEXT)
        with pytest.raises(InvalidProof):
            verify_equal(IDENTITY, base, IDENTITY, CONTEXT, encode_scalar(c) + encode_scalar(k))


def test_nothing_is_proved_with_a_trivial_commitment() -> None:
    for head in SMALL_ORDER.values():
        with pytest.raises(InvalidProof):
            verify_proof(PUBLIC, CONTEXT, head + bytes(32))


def test_a_complainer_cannot_show_another_shared_point() -> None:
    """With a false K the honest dealer would look guilty: a proof made with the right x does not cover it."""
    with pytest.raises(Bug):
        prove_equal(SECRET, BASE, OTHER, CONTEXT, entropy("e"))
    with pytest.raises(InvalidProof):
        verify_equal(PUBLIC, BASE, OTHER, CONTEXT, EQUALITY)


def test_a_prover_refuses_zero_another_s_point_and_too_little_entropy() -> None:
    with pytest.raises(Bug):
        prove(Secret(Scalar(0)), IDENTITY, CONTEXT, entropy("k"))
    with pytest.raises(Bug):
        prove(SECRET, OTHER, CONTEXT, entropy("k"))
    with pytest.raises(Bug):
        prove_equal(Secret(Scalar(0)), BASE, IDENTITY, CONTEXT, entropy("e"))
    for size in (0, 32, 63, 65):
        with pytest.raises(Bug):
            prove(SECRET, PUBLIC, CONTEXT, bytes(size))
        with pytest.raises(Bug):
            prove_equal(SECRET, BASE, SHARED, CONTEXT, bytes(size))


def test_repeated_randomness_does_not_repeat_a_nonce_in_another_context() -> None:
    """Two challenges on one nonce give x away; a snapshot that is restored repeats its randomness."""
    again = prove(SECRET, PUBLIC, CONTEXT + b"!", entropy("k"))
    assert again[:32] != KNOWLEDGE[:32]
    assert prove(SECRET, PUBLIC, CONTEXT, entropy("other"))[:32] != KNOWLEDGE[:32]
    nonces = set()
    for base, context in ((BASE, CONTEXT), (BASE, CONTEXT + b"!"), (OTHER, CONTEXT)):
        proof = prove_equal(SECRET, base, mul(base, SECRET.expose()), context, entropy("e"))
        c, z = (int.from_bytes(half, "little") for half in (proof[:32], proof[32:]))
        nonces.add((z - c * SECRET.expose()) % ORDER)
    assert len(nonces) == 3


def test_a_proof_of_knowledge_is_no_proof_of_equality() -> None:
    with pytest.raises(InvalidProof):
        verify_equal(PUBLIC, BASE, SHARED, CONTEXT, KNOWLEDGE)
    with pytest.raises(InvalidProof):
        verify_proof(PUBLIC, CONTEXT, EQUALITY)
    assert Element(KNOWLEDGE[:32]) != IDENTITY
