"""What dealers give adds up to shares of one key, in generate and in reshare, and nothing else does."""

import itertools
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import ed25519
from common.errors import Bug
from common.ids import Index
from common.secret import Secret
from common.wire.messages import CeremonyKind
from signer_service.frost import sharing
from signer_service.frost.errors import (
    DuplicateIdentifier,
    InvalidCommitment,
    InvalidShare,
    InvalidSubShare,
    UnknownIdentifier,
)
from signer_service.frost.group import IDENTITY, ORDER, Element, Scalar, base_mul
from signer_service.frost.keys import KeyPackage, PublicKeyPackage
from signer_service.frost.signing import aggregate
from tests.frost.keymaker import Group, entropy, round_one, round_two, scalar, sign

GENERATE, RESHARE = CeremonyKind.GENERATE, CeremonyKind.RESHARE
MESSAGE = b"a message"


def seats(*numbers: int) -> tuple[Index, ...]:
    return tuple(Index(number) for number in numbers)


def ceremony(
    kind: CeremonyKind,
    constants: Mapping[Index, Secret[Scalar]],
    threshold: int,
    recipients: Iterable[Index],
    label: str,
) -> Group:
    """Every dealer deals, every recipient checks and combines, everybody computes every verification share."""
    recipients = tuple(recipients)
    polynomials = {
        dealer: sharing.random_polynomial(constant, threshold, entropy(f"{label} {dealer}", 64 * (threshold - 1)))
        for dealer, constant in constants.items()
    }
    commitments = {dealer: sharing.commit_polynomial(polynomial) for dealer, polynomial in polynomials.items()}
    dealt = {dealer: sharing.split(polynomial, recipients) for dealer, polynomial in polynomials.items()}
    combined = sharing.combine_commitments(kind, commitments)
    keys, points = {}, {}
    for j in recipients:
        for dealer in constants:
            sharing.check_sub_share(dealt[dealer][j], j, commitments[dealer])
        share = sharing.combine_sub_shares(kind, {dealer: dealt[dealer][j] for dealer in constants})
        points[j] = sharing.evaluate_commitment(combined, j)
        assert points[j] == sharing.combine_verification_share(kind, j, commitments) == base_mul(share.expose())
        keys[j] = KeyPackage(j, share, points[j], combined[0], threshold)
    return Group(PublicKeyPackage(combined[0], threshold, points), keys)


def generate(threshold: int, size: int, label: str = "generate") -> Group:
    members = seats(*range(1, size + 1))
    return ceremony(GENERATE, {i: Secret(scalar(f"{label} {i}")) for i in members}, threshold, members, label)


def reshare(old: Group, dealers: Iterable[int], threshold: int, recipients: Iterable[int], label: str) -> Group:
    constants = {i: old.keys[i].share for i in seats(*dealers)}
    return ceremony(RESHARE, constants, threshold, seats(*recipients), label)


def assert_every_t_subset_holds(group: Group, key: Element) -> None:
    points = group.public.verification_shares
    for subset in itertools.combinations(points, group.public.threshold):
        assert sharing.interpolate_group_key(points, subset) == key
        assert ed25519.verify(key, MESSAGE, sign(group, subset, MESSAGE))
    for subset in itertools.combinations(points, group.public.threshold - 1):
        assert sharing.interpolate_group_key(points, subset) != key
    assert sharing.interpolate_group_key(points, tuple(points)) == key


@pytest.mark.parametrize(("threshold", "size"), [(1, 1), (1, 3), (2, 3), (3, 5), (5, 7)])
def test_every_t_subset_holds_the_generated_key(threshold: int, size: int) -> None:
    group = generate(threshold, size)
    secrets = sum(scalar(f"generate {i}") for i in range(1, size + 1)) % ORDER
    assert group.public.group_key == base_mul(Scalar(secrets))
    assert_every_t_subset_holds(group, group.public.group_key)


def test_the_key_outlives_refresh_heal_growth_shrinking_and_a_changed_threshold() -> None:
    epochs = [generate(2, 3)]
    key = epochs[0].public.group_key
    for dealers, threshold, recipients, label in (
        ((1, 2, 3), 2, (1, 2, 3), "refresh"),
        ((1, 3), 2, (1, 2, 3), "heal of 2"),
        ((1, 2, 3), 3, (1, 2, 3, 4, 5), "grow, t from 2 to 3"),
        ((1, 2, 4, 5), 3, (1, 2, 3, 4, 5), "refresh by four"),
        ((2, 4, 5), 2, (2, 4, 5, 9), "shrink, t from 3 to 2, seats leave and come"),
        ((9, 2), 1, (2, 9), "t of 1"),
        ((2, 9), 2, (1, 2, 3), "t back to 2"),
    ):
        epochs.append(reshare(epochs[-1], dealers, threshold, recipients, label))
        assert epochs[-1].public.group_key == key
        assert_every_t_subset_holds(epochs[-1], key)
    shares = [
        package.share.expose() for epoch in epochs if epoch.public.threshold > 1 for package in epoch.keys.values()
    ]
    assert len(set(shares)) == len(shares)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_a_reshare_by_any_t_or_more_dealers_keeps_the_key(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 6))
    old = generate(data.draw(st.integers(1, size)), size, "drawn")
    dealers = data.draw(st.permutations(range(1, size + 1)))
    dealers = dealers[: data.draw(st.integers(old.public.threshold, size))]
    recipients = data.draw(st.lists(st.integers(1, 65535), min_size=1, max_size=6, unique=True))
    threshold = data.draw(st.integers(1, len(recipients)))
    new = reshare(old, dealers, threshold, recipients, "drawn reshare")
    chosen = data.draw(st.permutations(recipients))[:threshold]
    assert sharing.interpolate_group_key(new.public.verification_shares, seats(*chosen)) == old.public.group_key
    assert ed25519.verify(old.public.group_key, MESSAGE, sign(new, chosen, MESSAGE))


def test_fewer_dealers_than_the_old_threshold_give_another_key() -> None:
    old = generate(3, 5)
    assert reshare(old, (1, 2), 3, (1, 2, 3), "too few").public.group_key != old.public.group_key


def test_shares_of_two_epochs_neither_hold_the_key_nor_sign() -> None:
    old = generate(3, 5)
    new = reshare(old, (1, 2, 3, 4, 5), 3, (1, 2, 3, 4, 5), "refresh")
    for chosen in itertools.combinations(range(1, 6), 3):
        for stale in itertools.chain(itertools.combinations(chosen, 1), itertools.combinations(chosen, 2)):
            keys = {i: (old if i in stale else new).keys[i] for i in seats(*chosen)}
            points = {i: package.verification_share for i, package in keys.items()}
            assert sharing.interpolate_group_key(points, seats(*chosen)) != old.public.group_key
            nonces, commitments = round_one(keys, chosen)
            shares = round_two(keys, nonces, commitments, MESSAGE)
            with pytest.raises(InvalidShare) as caught:
                aggregate(new.public, commitments, MESSAGE, shares)
            assert caught.value.culprits == stale


def test_a_sub_share_that_is_not_on_the_committed_polynomial_is_refused() -> None:
    polynomial = sharing.random_polynomial(Secret(scalar("s")), 3, entropy("rest", 128))
    commitments = sharing.commit_polynomial(polynomial)
    good = polynomial.evaluate(Index(2)).expose()
    sharing.check_sub_share(Secret(good), Index(2), commitments)
    other = sharing.commit_polynomial(sharing.random_polynomial(Secret(scalar("s")), 3, entropy("other", 128)))
    for value, index, listed in (
        (Scalar((good + 1) % ORDER), 2, commitments),
        (Scalar(0), 2, commitments),
        (good, 3, commitments),
        (good, 2, other),
        (good, 2, commitments[:2]),
        (good, 2, commitments[::-1]),
    ):
        with pytest.raises(InvalidSubShare):
            sharing.check_sub_share(Secret(value), Index(index), listed)


def test_a_seat_whose_verification_share_is_made_the_identity_crashes_nobody() -> None:
    """A dealer that colludes with the victim knows all that the others gave it, and deals the negative sum."""
    members, victim, threshold = seats(1, 2, 3), Index(2), 2
    polynomials = {
        i: sharing.random_polynomial(Secret(scalar(f"dealer {i}")), threshold, entropy(f"dealer {i} rest", 64))
        for i in members[:2]
    }
    slope = scalar("last slope")
    others = sum(polynomial.evaluate(victim).expose() for polynomial in polynomials.values())
    constant = Scalar((-others - slope * victim) % ORDER)
    polynomials[members[2]] = sharing.Polynomial(Secret((constant, slope)))
    commitments = {i: sharing.commit_polynomial(polynomial) for i, polynomial in polynomials.items()}
    combined = sharing.combine_commitments(GENERATE, commitments)
    points = {j: sharing.evaluate_commitment(combined, j) for j in members}
    assert points[victim] == IDENTITY == sharing.combine_verification_share(GENERATE, victim, commitments)
    assert [sharing.holds_no_share(points[j]) for j in members] == [False, True, False]
    share = sharing.combine_sub_shares(GENERATE, {i: p.evaluate(victim) for i, p in polynomials.items()})
    assert share.expose() == 0
    for pair in itertools.combinations(members, 2):
        assert sharing.interpolate_group_key(points, pair) == combined[0]


def test_commitments_that_cancel_to_the_identity_are_computed_not_crashed_on() -> None:
    polynomial = sharing.random_polynomial(Secret(scalar("s")), 3, entropy("rest", 128))
    mirror = sharing.Polynomial(Secret(tuple(Scalar(-c % ORDER) for c in polynomial.coefficients.expose())))
    commitments = {Index(1): sharing.commit_polynomial(polynomial), Index(2): sharing.commit_polynomial(mirror)}
    assert sharing.combine_commitments(GENERATE, commitments) == (IDENTITY,) * 3
    assert sharing.combine_verification_share(GENERATE, Index(5), commitments) == IDENTITY


def test_commitments_of_different_lengths_or_none_are_refused() -> None:
    point = base_mul(scalar("p"))
    for commitments in ({}, {Index(1): (point,), Index(2): (point, point)}, {Index(1): ()}):
        for kind in CeremonyKind:
            with pytest.raises(InvalidCommitment):
                sharing.combine_verification_share(kind, Index(1), commitments)
    with pytest.raises(InvalidCommitment):
        sharing.evaluate_commitment((), Index(1))


@pytest.mark.parametrize("bad", [0, -1, 65536, ORDER, ORDER + 1])
def test_an_identifier_of_0_or_out_of_range_is_refused(bad: int) -> None:
    """0 would be given the secret itself; an identifier that is equal to another modulo L would divide by zero."""
    polynomial = sharing.random_polynomial(Secret(scalar("s")), 2, entropy("rest"))
    for attempt in (
        lambda: polynomial.evaluate(Index(bad)),
        lambda: sharing.split(polynomial, seats(1, bad)),
        lambda: sharing.evaluate_commitment(sharing.commit_polynomial(polynomial), Index(bad)),
        lambda: sharing.lagrange_at_zero(Index(1), seats(1, bad)),
        lambda: sharing.combine_sub_shares(RESHARE, {Index(1): Secret(Scalar(1)), Index(bad): Secret(Scalar(1))}),
    ):
        with pytest.raises(UnknownIdentifier):
            attempt()


def test_an_identifier_that_stands_twice_is_refused() -> None:
    polynomial = sharing.random_polynomial(Secret(scalar("s")), 2, entropy("rest"))
    point = base_mul(scalar("p"))
    for attempt in (
        lambda: sharing.split(polynomial, seats(1, 2, 1)),
        lambda: sharing.lagrange_at_zero(Index(1), seats(1, 2, 2)),
        lambda: sharing.interpolate_group_key({Index(1): point, Index(2): point}, seats(1, 2, 1)),
    ):
        with pytest.raises(DuplicateIdentifier):
            attempt()


def test_an_identifier_outside_the_set_has_no_weight() -> None:
    with pytest.raises(UnknownIdentifier):
        sharing.lagrange_at_zero(Index(4), seats(1, 2, 3))
    with pytest.raises(UnknownIdentifier):
        sharing.interpolate_group_key({Index(1): base_mul(scalar("p"))}, seats(1, 2))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 65535), min_size=1, max_size=15, unique=True), st.integers(0, 2**32))
def test_lagrange_weights_take_any_polynomial_of_that_degree_to_its_constant_term(chosen: list[int], seed: int) -> None:
    polynomial = sharing.random_polynomial(
        Secret(scalar(f"constant {seed}")), len(chosen), entropy(f"rest {seed}", 64 * (len(chosen) - 1))
    )
    indices = seats(*chosen)
    value = sum(sharing.lagrange_at_zero(i, indices) * polynomial.evaluate(i).expose() for i in indices) % ORDER
    assert value == scalar(f"constant {seed}")


def test_a_polynomial_takes_exactly_its_entropy_and_prints_redacted() -> None:
    for threshold, size in ((0, 0), (1, 64), (2, 0), (2, 63), (3, 64)):
        with pytest.raises(Bug):
            sharing.random_polynomial(Secret(scalar("s")), threshold, bytes(size))
    polynomial = sharing.random_polynomial(Secret(scalar("s")), 3, entropy("rest", 128))
    assert repr(polynomial) == "Polynomial(coefficients=<redacted>)"
    assert len(set(polynomial.coefficients.expose())) == 3
    assert repr(polynomial.evaluate(Index(1))) == "<redacted>"
