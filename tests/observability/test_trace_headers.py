"""A record that works for many requests names the trace of each, and headers that nobody signed can do no harm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.observability.tracing import (
    HEADER,
    LIST_HEADER,
    MOST_CONTEXTS,
    TraceContext,
    item_headers,
    read_item_headers,
    read_set_headers,
    set_headers,
)
from tests.observability.traces import contexts, trace

A, B = trace(1), trace(2)


@given(st.lists(st.none() | contexts, max_size=64))
def test_each_item_keeps_its_own_trace(given_contexts: list[TraceContext | None]) -> None:
    headers = item_headers(given_contexts)
    assert read_item_headers(headers, len(given_contexts)) == given_contexts


@given(st.lists(contexts, max_size=64))
def test_a_package_names_each_trace_once(given_contexts: list[TraceContext]) -> None:
    assert read_set_headers(set_headers(given_contexts)) == list(dict.fromkeys(given_contexts))


def test_one_trace_for_all_items_takes_one_header_that_any_tool_reads() -> None:
    assert item_headers([A, A, A]) == [(HEADER, b"00-" + b"01" * 16 + b"-" + b"01" * 8 + b"-01")]
    assert item_headers([None, None]) == []
    assert [name for name, _ in item_headers([None, A])] == [HEADER, LIST_HEADER]


def test_a_package_of_too_many_traces_names_the_first_of_them() -> None:
    many = [trace(n) for n in range(1, 2 * MOST_CONTEXTS)]
    assert read_set_headers(set_headers(many)) == many[:MOST_CONTEXTS]


@pytest.mark.parametrize(
    "headers",
    [
        [(HEADER, b"\xff\x00")],
        [(HEADER, b"x" * 100_000)],
        [(HEADER, b"00-ab")],
        [(LIST_HEADER, b",".join([b"00-ab"] * 64))],
        [(LIST_HEADER, b"," * 100_000)],
        [(LIST_HEADER, b"\xff,\xff")],
        [("Traceparent", item_headers([A])[0][1])],
    ],
)
def test_rubbish_in_the_headers_is_no_trace(headers: list[tuple[str, bytes]]) -> None:
    assert read_item_headers(headers, 2) == [None, None]
    assert read_set_headers(headers) == []


def test_a_list_of_another_length_than_the_items_is_not_believed() -> None:
    assert read_item_headers(item_headers([A, B]), 3) == [A, A, A]


@given(st.lists(st.tuples(st.sampled_from([HEADER, LIST_HEADER, "other"]), st.binary(max_size=200)), max_size=5))
def test_any_headers_are_read_or_left(headers: list[tuple[str, bytes]]) -> None:
    assert len(read_item_headers(headers, 3)) == 3
    assert len(read_set_headers(headers)) <= MOST_CONTEXTS
