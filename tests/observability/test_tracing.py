"""``traceparent`` is taken strictly and passed on exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.observability.tracing import TraceContext, child, format_traceparent, new_trace, parse_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"

identifiers = st.binary(min_size=24, max_size=24)


def test_the_example_of_the_recommendation_is_read() -> None:
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-01") == TraceContext(TRACE, SPAN, sampled=True)
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-00") == TraceContext(TRACE, SPAN, sampled=False)


def test_a_later_version_is_read_by_its_first_four_fields() -> None:
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-01-what-comes-later") == TraceContext(TRACE, SPAN, sampled=True)
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-01") == TraceContext(TRACE, SPAN, sampled=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"cc-{TRACE}-{SPAN}-01.later",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 500}",
        f"00-{TRACE}-{SPAN}-\u0660\u0661",
    ],
)
def test_what_is_not_a_traceparent_begins_a_new_trace(text: str) -> None:
    assert parse_traceparent(text) is None


@given(st.text())
def test_any_text_is_parsed_or_left(text: str) -> None:
    context = parse_traceparent(text)
    assert context is None or parse_traceparent(format_traceparent(context)) == context


@given(identifiers, st.booleans())
def test_a_context_survives_its_header(entropy: bytes, sampled: bool) -> None:
    context = new_trace(entropy, sampled=sampled)
    header = format_traceparent(context)
    assert len(header) == 55
    assert parse_traceparent(header) == context


@given(identifiers, st.binary(min_size=8, max_size=8), st.booleans())
def test_a_child_stays_in_its_trace_with_a_span_of_its_own(entropy: bytes, own: bytes, sampled: bool) -> None:
    parent = new_trace(entropy, sampled=sampled)
    made = child(parent, own)
    assert (made.trace_id, made.sampled) == (parent.trace_id, parent.sampled)
    assert int(made.span_id, 16) == (int.from_bytes(own, "big") or 1)


def test_even_all_zero_entropy_gives_valid_identifiers() -> None:
    assert parse_traceparent(format_traceparent(new_trace(bytes(24)))) is not None


@pytest.mark.parametrize("size", [0, 7, 9, 23, 25])
def test_another_amount_of_entropy_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="random bytes"):
        new_trace(bytes(size))
    with pytest.raises(ValueError, match="random bytes"):
        child(TraceContext(TRACE, SPAN, sampled=True), bytes(size))
