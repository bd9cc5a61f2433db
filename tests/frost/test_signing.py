"""What t participants sign is a plain Ed25519 signature; what is wrong is refused; who lied is named."""

import itertools
from hashlib import shake_256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common import ed25519
from common.errors import BadInput, Bug
from common.ids import Index
from common.secret import Secret
from signer_service.frost.errors import (
    CommitmentMismatch,
    DuplicateIdentifier,
    InvalidShare,
    TooFewSigners,
    UnknownIdentifier,
)
from signer_service.frost.group import ORDER, Scalar
from signer_service.frost.keys import PublicKeyPackage
from signer_service.frost.nonces import collect, commit
from signer_service.frost.signing import (
    SignatureShare,
    aggregate,
    prepare,
    sign_share,
    verify_share,
)
from tests.frost.keymaker import deal, entropy, round_one, round_two, scalar, sign

MESSAGE = b"a message"


@st.composite
def committees(draw: st.DrawFn) -> tuple[int, int, tuple[int, ...]]:
    size = draw(st.integers(1, 15))
    threshold = draw(st.integers(1, min(size, 10)))
    chosen = draw(st.permutations(range(1, size + 1)))
    return threshold, size, tuple(chosen[: draw(st.integers(threshold, size))])


@settings(max_examples=40, deadline=None)
@given(committees(), st.integers(0, 65536), st.integers(0, 2**32))
@example((1, 1, (1,)), 0, 0)
@example((2, 3, (3, 1)), 0, 1)
@example((10, 15, tuple(range(6, 16))), 65536, 2)
@example((10, 15, tuple(range(1, 16))), 1, 3)
def test_any_t_to_n_participants_sign_what_openssl_and_libsodium_verify(
    committee: tuple[int, int, tuple[int, ...]], size: int, seed: int
) -> None:
    threshold, count, chosen = committee
    message = shake_256(seed.to_bytes(8, "big")).digest(size)
    group = deal(threshold, count)
    signature = sign(group, chosen, message, label=str(seed))
    Ed25519PublicKey.from_public_bytes(group.public.group_key).verify(signature, message)
    assert ed25519.verify(group.public.group_key, message, signature)


def test_own_nonces_give_the_same_context_as_everybody_s_commitments() -> None:
    group = deal(3, 5)
    nonces, commitments = round_one(group.keys, (5, 2, 3))
    public = prepare(group.public.group_key, commitments, MESSAGE)
    for index in commitments:
        assert prepare(group.public.group_key, commitments, MESSAGE, (index, nonces[index])) == public


def test_a_signature_share_is_the_same_with_and_without_a_prepared_context() -> None:
    group = deal(2, 3)
    nonces, commitments = round_one(group.keys, (1, 3))
    context = prepare(group.public.group_key, commitments, MESSAGE)
    for index in commitments:
        alone = sign_share(group.keys[index], nonces[index], commitments, MESSAGE)
        assert sign_share(group.keys[index], nonces[index], commitments, MESSAGE, context) == alone


def test_a_context_of_another_session_is_never_used() -> None:
    group = deal(2, 3)
    nonces, commitments = round_one(group.keys, (1, 3))
    shares = round_two(group.keys, nonces, commitments, MESSAGE)
    others = round_one(group.keys, (1, 3), "other")[1]
    key = group.public.group_key
    for foreign in (
        prepare(key, commitments, MESSAGE + b"!"),
        prepare(key, {Index(1): commitments[Index(1)], Index(3): others[Index(3)]}, MESSAGE),
        prepare(deal(2, 3, "other key").public.group_key, commitments, MESSAGE),
    ):
        with pytest.raises(Bug):
            sign_share(group.keys[Index(1)], nonces[Index(1)], commitments, MESSAGE, foreign)
        with pytest.raises(Bug):
            aggregate(group.public, commitments, MESSAGE, shares, foreign)
        with pytest.raises(Bug):
            verify_share(group.public, Index(1), shares[Index(1)], commitments, MESSAGE, context=foreign)


def test_fewer_than_t_participants_do_not_sign() -> None:
    group = deal(3, 5)
    nonces, commitments = round_one(group.keys, (1, 2))
    with pytest.raises(TooFewSigners):
        sign_share(group.keys[Index(1)], nonces[Index(1)], commitments, MESSAGE)
    with pytest.raises(TooFewSigners):
        aggregate(group.public, commitments, MESSAGE, dict.fromkeys(commitments, SignatureShare(Scalar(1))))


def test_fewer_than_t_shares_give_no_signature_even_if_nobody_counts() -> None:
    group = deal(3, 5)
    lowered = PublicKeyPackage(group.public.group_key, 2, group.public.verification_shares)
    keys = {i: type(k)(k.index, k.share, k.verification_share, k.group_key, 2) for i, k in group.keys.items()}
    nonces, commitments = round_one(keys, (1, 2))
    shares = round_two(keys, nonces, commitments, MESSAGE)
    with pytest.raises(Bug):
        aggregate(lowered, commitments, MESSAGE, shares)


def test_a_nonce_of_another_session_is_a_commitment_mismatch() -> None:
    group = deal(2, 3)
    nonces, _ = round_one(group.keys, (1, 2), "one")
    _, commitments = round_one(group.keys, (1, 2), "two")
    key = group.keys[Index(1)]
    with pytest.raises(CommitmentMismatch):
        sign_share(key, nonces[Index(1)], commitments, MESSAGE)
    with pytest.raises(CommitmentMismatch):
        prepare(group.public.group_key, commitments, MESSAGE, (Index(1), nonces[Index(1)]))
    context = prepare(group.public.group_key, commitments, MESSAGE)
    with pytest.raises(CommitmentMismatch):
        sign_share(key, nonces[Index(1)], commitments, MESSAGE, context)


def test_a_participant_that_was_not_chosen_does_not_sign() -> None:
    group = deal(2, 3)
    nonces, commitments = round_one(group.keys, (1, 2, 3))
    without = {index: commitments[index] for index in (Index(1), Index(2))}
    with pytest.raises(CommitmentMismatch):
        sign_share(group.keys[Index(3)], nonces[Index(3)], without, MESSAGE)


@pytest.mark.parametrize("bad", [0, -1, 65536, 2**252])
def test_an_identifier_of_0_or_above_65535_is_refused(bad: int) -> None:
    group = deal(2, 3)
    nonces, commitments = round_one(group.keys, (1, 2))
    with pytest.raises(UnknownIdentifier):
        collect([(1, commitments[Index(1)]), (bad, commitments[Index(2)])])
    smuggled = {Index(1): commitments[Index(1)], Index(bad): commitments[Index(2)]}
    with pytest.raises(UnknownIdentifier):
        sign_share(group.keys[Index(1)], nonces[Index(1)], smuggled, MESSAGE)


def test_an_identifier_that_stands_twice_is_refused() -> None:
    _, commitments = round_one(deal(2, 3).keys, (1, 2))
    assert collect(commitments.items()) == commitments
    with pytest.raises(DuplicateIdentifier):
        collect([(1, commitments[Index(1)]), (2, commitments[Index(2)]), (1, commitments[Index(2)])])


def test_a_participant_outside_the_committee_is_refused_by_the_coordinator() -> None:
    group, larger = deal(2, 3), deal(2, 4)
    nonces, commitments = round_one(larger.keys, (1, 4))
    shares = round_two(larger.keys, nonces, commitments, MESSAGE)
    with pytest.raises(UnknownIdentifier):
        aggregate(group.public, commitments, MESSAGE, shares)
    with pytest.raises(UnknownIdentifier):
        verify_share(group.public, Index(4), shares[Index(4)], commitments, MESSAGE)


def test_a_missing_or_surplus_share_is_refused() -> None:
    group = deal(2, 3)
    nonces, commitments = round_one(group.keys, (1, 2, 3))
    shares = round_two(group.keys, nonces, commitments, MESSAGE)
    two = {index: commitments[index] for index in (Index(1), Index(2))}
    for listed, given_shares in ((commitments, {Index(1): shares[Index(1)]}), (two, shares)):
        with pytest.raises(BadInput) as caught:
            aggregate(group.public, listed, MESSAGE, given_shares)
        assert caught.value.code == "signature-shares"


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_exactly_the_liars_are_named(data: st.DataObject) -> None:
    threshold, size = data.draw(st.sampled_from([(2, 3), (3, 5), (5, 7)]))
    group = deal(threshold, size)
    chosen = data.draw(st.permutations(range(1, size + 1)))[: data.draw(st.integers(threshold, size))]
    liars = sorted(chosen[: data.draw(st.integers(1, threshold - 1))])
    nonces, commitments = round_one(group.keys, chosen)
    shares = round_two(group.keys, nonces, commitments, MESSAGE)
    offsets = data.draw(st.lists(st.integers(1, ORDER - 1), min_size=len(liars), max_size=len(liars)))
    for liar, offset in zip(liars, offsets, strict=True):
        shares[Index(liar)] = SignatureShare(Scalar((shares[Index(liar)] + offset) % ORDER))
    if sum(offsets) % ORDER == 0:
        return
    with pytest.raises(InvalidShare) as caught:
        aggregate(group.public, commitments, MESSAGE, shares)
    assert caught.value.culprits == tuple(liars)
    for index in commitments:
        if index in liars:
            with pytest.raises(InvalidShare) as caught:
                verify_share(group.public, index, shares[index], commitments, MESSAGE)
            assert caught.value.culprits == (index,)
        else:
            verify_share(group.public, index, shares[index], commitments, MESSAGE)


@pytest.mark.parametrize("lie", ["zero", "share of another message", "share with another key", "another's share"])
def test_every_kind_of_lie_is_named(lie: str) -> None:
    group = deal(3, 5)
    nonces, commitments = round_one(group.keys, (1, 3, 4))
    shares = round_two(group.keys, nonces, commitments, MESSAGE)
    liar = Index(3)
    key = group.keys[liar]
    stale = type(key)(liar, Secret(scalar("stale")), key.verification_share, key.group_key, 3)
    shares[liar] = {
        "zero": SignatureShare(Scalar(0)),
        "share of another message": sign_share(key, nonces[liar], commitments, MESSAGE + b"!"),
        "share with another key": sign_share(stale, nonces[liar], commitments, MESSAGE),
        "another's share": shares[Index(1)],
    }[lie]
    with pytest.raises(InvalidShare) as caught:
        aggregate(group.public, commitments, MESSAGE, shares)
    assert caught.value.culprits == (3,)


def test_lies_that_cancel_out_give_a_valid_signature_and_no_blame() -> None:
    """The signature is verified first: shares are only looked at when it fails."""
    group = deal(3, 5)
    nonces, commitments = round_one(group.keys, (1, 2, 3))
    shares = round_two(group.keys, nonces, commitments, MESSAGE)
    honest = aggregate(group.public, commitments, MESSAGE, shares)
    shares[Index(1)] = SignatureShare(Scalar((shares[Index(1)] + 5) % ORDER))
    shares[Index(2)] = SignatureShare(Scalar((shares[Index(2)] - 5) % ORDER))
    assert aggregate(group.public, commitments, MESSAGE, shares) == honest


def test_any_change_of_the_list_changes_every_binding_factor() -> None:
    """A factor over one's own entry only would let concurrent sessions be combined into a forgery (RFC 9591, 7.2)."""
    group = deal(2, 4)
    key = group.public.group_key
    _, commitments = round_one(group.keys, (1, 2, 3))
    _, others = round_one(group.keys, (1, 2, 3, 4), "other")
    base = prepare(key, commitments, MESSAGE).binding_factors
    changed = [
        prepare(key, {**commitments, Index(3): others[Index(3)]}, MESSAGE),
        prepare(key, {**commitments, Index(4): others[Index(4)]}, MESSAGE),
        prepare(key, commitments, MESSAGE + b"!"),
        prepare(deal(2, 4, "other key").public.group_key, commitments, MESSAGE),
    ]
    assert len(set(base.values())) == 3
    for context in changed:
        assert all(context.binding_factors[index] != base[index] for index in base)


def test_every_t_subset_of_the_committee_signs() -> None:
    group = deal(3, 5)
    for chosen in itertools.combinations(range(1, 6), 3):
        assert ed25519.verify(group.public.group_key, MESSAGE, sign(group, chosen, MESSAGE))


def test_nonces_depend_on_the_randomness_and_on_the_share() -> None:
    one, _ = commit(Secret(scalar("a")), entropy("x"))
    for share, label in (("a", "y"), ("b", "x")):
        other, _ = commit(Secret(scalar(share)), entropy(label))
        assert other.hiding.expose() != one.hiding.expose()
        assert other.binding.expose() != one.binding.expose()
    for size in (0, 32, 63, 65):
        with pytest.raises(Bug):
            commit(Secret(scalar("a")), bytes(size))


def test_secrets_print_redacted() -> None:
    group = deal(2, 3)
    key = group.keys[Index(1)]
    nonces, commitments = round_one(group.keys, (1, 2))
    printed = f"{key!r} {key} {nonces[Index(1)]!r} {nonces!s} {prepare(key.group_key, commitments, MESSAGE)!r}"
    assert printed.count("<redacted>") >= 6
    for secret in (key.share, nonces[Index(1)].hiding, nonces[Index(1)].binding):
        assert str(secret.expose()) not in printed
        assert f"{secret.expose():x}" not in printed
