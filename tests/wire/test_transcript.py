"""What is hashed is unambiguous: other items, or the same bytes cut in another place, give another digest."""

from hypothesis import given, settings
from hypothesis import strategies as st

from common.wire.transcript import digest

ITEMS = st.lists(st.binary(max_size=6), max_size=4)


@settings(max_examples=150)
@given(ITEMS, ITEMS)
def test_two_lists_of_items_have_one_digest_only_if_they_are_equal(one: list[bytes], other: list[bytes]) -> None:
    assert (digest(b"purpose", *one) == digest(b"purpose", *other)) == (one == other)


@given(st.binary(min_size=1, max_size=20), st.data())
def test_the_same_bytes_cut_in_another_place_are_other_items(raw: bytes, data: st.DataObject) -> None:
    at, other = data.draw(st.integers(0, len(raw))), data.draw(st.integers(0, len(raw)))
    cut = {digest(b"purpose", raw[:place], raw[place:]) for place in {at, other}}
    assert len(cut) == len({at, other})


@given(st.binary(max_size=20))
def test_a_digest_for_one_purpose_is_none_for_another(raw: bytes) -> None:
    assert digest(b"one", raw) != digest(b"other", raw)
    assert digest(b"one" + raw) != digest(b"one", raw)
