"""Nothing but a canonical point of prime order, and a canonical scalar, comes in."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import BadInput, Bug
from signer_service.frost import group
from signer_service.frost.errors import InvalidCommitment, InvalidElement, InvalidScalar
from signer_service.frost.group import IDENTITY, ORDER, Element, Scalar
from signer_service.frost.nonces import Commitment
from tests.frost.keymaker import entropy, scalar

FIELD = 2**255 - 19
ORDER_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
SMALL_ORDER = {
    "identity": bytes(IDENTITY),
    "order 2": (FIELD - 1).to_bytes(32, "little"),
    "order 4": bytes(32),
    "order 4, other sign": bytes(31) + b"\x80",
    "order 8": ORDER_8,
    "order 8, other sign": ORDER_8[:31] + b"\x85",
    "order 8, other y": bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    "order 8, other y and sign": bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    "identity with a sign": b"\x01" + bytes(30) + b"\x80",
    "identity, not canonical": (FIELD + 1).to_bytes(32, "little"),
    "order 4, not canonical": FIELD.to_bytes(32, "little"),
}

scalars = st.integers(0, ORDER - 1).map(Scalar)


@pytest.mark.parametrize("data", SMALL_ORDER.values(), ids=SMALL_ORDER.keys())
def test_a_point_of_small_order_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidElement):
        group.decode_element(data)


@pytest.mark.parametrize("torsion", [ORDER_8, SMALL_ORDER["order 4"], SMALL_ORDER["order 2"]])
def test_a_point_with_a_torsion_part_is_refused_though_libsodium_adds_it(torsion: bytes) -> None:
    honest = group.base_mul(scalar("honest"))
    poisoned = group.add(honest, Element(torsion))
    assert poisoned != honest
    assert group.decode_element(honest) == honest
    with pytest.raises(InvalidElement):
        group.decode_element(poisoned)


def test_every_encoding_with_y_of_the_field_s_size_or_more_is_refused() -> None:
    for y in range(FIELD, 2**255):
        for sign in (0, 1 << 255):
            with pytest.raises(InvalidElement):
                group.decode_element((y + sign).to_bytes(32, "little"))


def test_bytes_that_are_no_point_of_the_curve_are_refused() -> None:
    with pytest.raises(InvalidElement):
        group.decode_element((2).to_bytes(32, "little"))


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_an_element_or_scalar_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidElement):
        group.decode_element(entropy("x", length))
    with pytest.raises(InvalidScalar):
        group.decode_scalar(bytes(length))


@pytest.mark.parametrize("value", [ORDER, ORDER + 1, 2 * ORDER, 2**255, 2**256 - 1])
def test_a_scalar_of_l_or_more_is_refused(value: int) -> None:
    with pytest.raises(InvalidScalar):
        group.decode_scalar(value.to_bytes(32, "little"))


def test_the_scalars_from_0_to_l_minus_1_are_taken() -> None:
    for value in (0, 1, ORDER - 1):
        assert group.decode_scalar(value.to_bytes(32, "little")) == value


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40) | st.binary(min_size=32, max_size=32))
def test_decoders_take_any_bytes_and_raise_only_bad_input(data: bytes) -> None:
    with suppress(BadInput):
        assert group.decode_element(data) == data
    with suppress(BadInput):
        assert group.encode_scalar(group.decode_scalar(data)) == data


@pytest.mark.parametrize("bad", SMALL_ORDER.values(), ids=SMALL_ORDER.keys())
def test_a_commitment_with_one_bad_half_is_refused(bad: bytes) -> None:
    good = group.base_mul(scalar("good"))
    assert Commitment.from_bytes(good + good).to_bytes() == good + good
    for data in (good + bad, bad + good):
        with pytest.raises(InvalidElement):
            Commitment.from_bytes(data)
    for data in (good, good + good + b"\x00", b""):
        with pytest.raises(InvalidCommitment):
            Commitment.from_bytes(data)


@settings(max_examples=30, deadline=None)
@given(scalars, scalars)
def test_the_group_and_the_scalars_agree(a: Scalar, b: Scalar) -> None:
    point_a, point_b = group.base_mul(a), group.base_mul(b)
    assert group.add(point_a, point_b) == group.base_mul(Scalar((a + b) % ORDER))
    assert group.sub(point_a, point_b) == group.base_mul(Scalar((a - b) % ORDER))
    assert group.mul(point_a, b) == group.base_mul(Scalar(a * b % ORDER))
    assert group.multiply_accumulate([(point_a, b), (point_b, a)]) == group.base_mul(Scalar(2 * a * b % ORDER))
    if a:
        assert a * group.inverse(a) % ORDER == 1


def test_zero_and_the_identity_do_not_crash() -> None:
    point, zero, one = group.base_mul(scalar("p")), Scalar(0), Scalar(1)
    assert group.base_mul(zero) == group.mul(point, zero) == group.mul(IDENTITY, one) == IDENTITY
    assert group.sub(point, point) == group.total([]) == group.multiply_accumulate([]) == IDENTITY
    assert group.add(point, IDENTITY) == group.add(IDENTITY, point) == group.sub(point, IDENTITY) == point
    assert group.add(IDENTITY, IDENTITY) == group.total([IDENTITY, IDENTITY]) == IDENTITY
    assert group.total([point, group.sub(IDENTITY, point), point]) == point
    assert group.multiply_accumulate([(point, zero), (point, one), (IDENTITY, one)]) == point


def test_too_little_entropy_is_our_own_bug() -> None:
    for length in (0, 32, 63, 65):
        with pytest.raises(Bug):
            group.random_scalar(bytes(length))
    with pytest.raises(Bug):
        group.inverse(Scalar(0))
