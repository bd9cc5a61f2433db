"""``traceparent`` is taken strictly and passed on exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.observability.tracing import TraceContext, format_traceparent, parse_traceparent
from tests.observability.traces import contexts

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


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


@given(contexts)
def test_a_context_survives_its_header(context: TraceContext) -> None:
    header = format_traceparent(context)
    assert len(header) == 55
    assert parse_traceparent(header) == context
