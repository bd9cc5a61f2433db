"""What may stand in a log line, decided value by value.

Logs leave the machine and are kept; shares, nonces, keys, sealed records and users' messages are all bytes here. So
raw bytes never pass, an object shows its class and not its fields, and the text of foreign exceptions (which like to
quote what they choked on) loses its byte literals and quoted inputs.
"""

import re
import traceback
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from common.secret import Secret

REDACTED = "<redacted>"
LONGEST_BYTES_SHOWN = 8
LONGEST_TEXT = 2_000
LONGEST_TRACE = 12_000
MOST_ENTRIES = 64
DEEPEST = 4

# Names under which a secret could come as plain text. A name is compared whole, in lower case.
SECRET_NAMES = frozenset(
    {"authorization", "cookie", "identity_key", "nonce", "password", "private_key", "sealing_key", "secret"}
    | {"share", "sasl_password", "signing_key", "token"}
)

# A literal that a cut left without its closing quote ends with the line: its beginning must not show either.
_BYTE_LITERAL = re.compile(
    r"""\b[bB][rR]?(?:'(?:[^'\\\n]|\\.)*(?:'|\\?(?=\n|$))|"(?:[^"\\\n]|\\.)*(?:"|\\?(?=\n|$)))"""
)
# Greedy to the end of pydantic's line: an input may itself contain whatever could mark its end.
_QUOTED_INPUT = re.compile(r"input_value=(?:[^\n]*(?=, input_type=)|[^\n]*)")


def scrub(value: object, depth: int = 0) -> object:
    """Return ``value`` as what a line may show of it: JSON types only, bounded in depth, entries and length."""
    match value:
        case Secret():
            return REDACTED
        case Enum():
            return scrub(value.value, depth)
        case None | bool() | float():
            return value
        case int():
            # A scalar of the group is an int of 253 bits: a share or a nonce. No count or time is that large.
            return value if value.bit_length() < 64 else f"<{value.bit_length()}-bit integer>"
        case str():
            return _one_line(scrub_text(value))
        case bytes() | bytearray() | memoryview():
            return _bytes(bytes(value))
        case PurePath() | UUID():
            return scrub(str(value), depth)
        case BaseException():
            return describe(value)
        case _ if depth >= DEEPEST:
            return f"<{type(value).__name__}>"
        case Mapping():
            return scrub_fields(dict(list(value.items())[:MOST_ENTRIES]), depth + 1)
        case list() | tuple():
            return [scrub(item, depth + 1) for item in value[:MOST_ENTRIES]]
        case set() | frozenset():
            return sorted((scrub(item, depth + 1) for item in list(value)[:MOST_ENTRIES]), key=str)
        case _:
            return f"<{type(value).__name__}>"


def scrub_fields(fields: Mapping[Any, object], depth: int = 0) -> dict[str, object]:
    """Return ``fields`` with scrubbed names and values; one whose name says that it is secret is not shown at all."""
    shown: dict[str, object] = {}
    for given, value in fields.items():
        name = str(scrub(given, DEEPEST))
        shown[name] = REDACTED if name.lower() in SECRET_NAMES else scrub(value, depth)
    return shown


def scrub_text(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return ``text`` without byte literals and quoted inputs, cut to ``longest`` characters."""
    if len(text) > longest:
        text = f"{text[:longest]}... <{len(text)} characters>"
    if "input_value=" in text:
        text = _QUOTED_INPUT.sub("input_value=<...>", text)
    if "'" in text or '"' in text:
        text = _BYTE_LITERAL.sub("<bytes>", text)
    return text


def describe(error: BaseException) -> str:
    """Return one line for an exception: its class and its scrubbed message."""
    text = _one_line(scrub_text(str(error)))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def trace(error: BaseException) -> str:
    """Return the traceback of ``error`` and its causes: places and source lines, never local variables' values."""
    lines = traceback.TracebackException.from_exception(error, limit=40, capture_locals=False).format()
    text = scrub_text("".join(lines).rstrip(), LONGEST_TRACE)
    return "\n".join(_one_line(line) for line in text.split("\n"))


def _one_line(text: str) -> str:
    # A line break or a terminal's escape sequence in somebody's input would forge or hide lines.
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def _bytes(raw: bytes) -> str:
    return raw.hex() if len(raw) <= LONGEST_BYTES_SHOWN else f"<{len(raw)} bytes>"
