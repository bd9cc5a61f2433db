"""W3C Trace Context, level 1, by hand: the ``traceparent`` header and nothing else.

By hand, because automatic instrumentation of Kafka clients makes orphan spans, and because the header crosses two
trust borders (HTTP and Kafka): what cannot be parsed strictly starts a new trace and never an error.

A Kafka record of ours works for many requests, each of which may be in a trace of its own. ``traceparent`` names the
first of them, as any tool reads it. Where that is not all there is to say, ``traceparents`` beside it lists them,
separated by commas: on ``signer.v1`` one entry per item in order (empty: in no trace), elsewhere each trace once. Who
works on such a record makes a span in each of the traces. Headers are signed by nobody: they decide nothing but where
spans are shown.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_FIELDS = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x21-\x7e]*)?")
_MAX_LENGTH = 512
_SAMPLED = 0x01
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16

HEADER: Final = "traceparent"
LIST_HEADER: Final = "traceparents"
MOST_CONTEXTS: Final = 64
"""In one record. Traces beyond that show no spans of whoever reads it."""
_MAX_LIST_LENGTH: Final = MOST_CONTEXTS * (55 + 1)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span's place in a trace.

    ``trace_id`` is 32 and ``span_id`` 16 lower-case hex digits, neither all zero.
    """

    trace_id: str
    span_id: str
    sampled: bool


def parse_traceparent(text: str) -> TraceContext | None:
    """Return the context that ``text`` names, or None if it is not a valid ``traceparent``.

    Trace Context, 3.2: version 00 is exactly 55 characters; a later version may carry more after a dash, and only
    its first four fields are read; version ff, upper case and all-zero identifiers are invalid. None means: begin a
    new trace (3.2.2.3), never refuse the request.
    """
    if len(text) > _MAX_LENGTH:
        return None
    match = _FIELDS.fullmatch(text)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def format_traceparent(context: TraceContext) -> str:
    """Return ``context`` as a version 00 header value: 55 characters. Flags that we do not know are not passed on."""
    return f"00-{context.trace_id}-{context.span_id}-{'01' if context.sampled else '00'}"


def item_headers(contexts: Sequence[TraceContext | None]) -> list[tuple[str, bytes]]:
    """Return the headers of a record whose items, in order, are in these traces; none if no item is in any."""
    first = next((context for context in contexts if context is not None), None)
    if first is None:
        return []
    found = [(HEADER, format_traceparent(first).encode())]
    if any(context != first for context in contexts):
        entries = ("" if context is None else format_traceparent(context) for context in contexts)
        found.append((LIST_HEADER, ",".join(entries).encode()))
    return found


def read_item_headers(headers: Iterable[tuple[str, bytes]], items: int) -> list[TraceContext | None]:
    """Return the context of each of ``items`` items. Whatever is not as ``item_headers`` writes it is in no trace."""
    single, listed = _find(headers)
    if listed is None or len(listed) != items:
        return [single] * items
    return [parse_traceparent(entry) for entry in listed]


def set_headers(contexts: Iterable[TraceContext]) -> list[tuple[str, bytes]]:
    """Return the headers of a record that works for these traces: each once, the first ``MOST_CONTEXTS`` of them."""
    distinct = list(dict.fromkeys(contexts))[:MOST_CONTEXTS]
    if not distinct:
        return []
    texts = [format_traceparent(context) for context in distinct]
    found = [(HEADER, texts[0].encode())]
    if len(texts) > 1:
        found.append((LIST_HEADER, ",".join(texts).encode()))
    return found


def read_set_headers(headers: Iterable[tuple[str, bytes]]) -> list[TraceContext]:
    """Return the contexts that a record works for, each once; what is malformed is left out."""
    single, listed = _find(headers)
    contexts = [single] if listed is None else [parse_traceparent(entry) for entry in listed]
    return list(dict.fromkeys(context for context in contexts if context is not None))


def _find(headers: Iterable[tuple[str, bytes]]) -> tuple[TraceContext | None, list[str] | None]:
    single: TraceContext | None = None
    listed: list[str] | None = None
    for name, value in headers:
        if name == HEADER and len(value) <= _MAX_LENGTH and value.isascii():
            single = parse_traceparent(value.decode())
        elif name == LIST_HEADER and len(value) <= _MAX_LIST_LENGTH and value.isascii():
            entries = value.decode().split(",")
            listed = entries if len(entries) <= MOST_CONTEXTS else None
    return single, listed
