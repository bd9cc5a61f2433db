"""Text and names in transit: strings, UUIDs and hex, as shapes of ``common.wire.conversion``.

Names repeat: the same keys, topics, callers and boot ids stand in record after record. Checking one costs more than
remembering that it was checked, so the last ones are kept, in both directions.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from common.wire.conversion import Shape, refuse

_REPEATS: Final = 1024
"""How many names are remembered: strangers can push ours out, which costs a microsecond, but not pile up."""


def text(
    low: int, high: int, accepts: Callable[[str], object] = str.isprintable, *, repeats: bool = False
) -> Shape[str]:
    """An Avro ``string`` of ``low`` to ``high`` characters for which ``accepts`` is true.

    By default: printable ones. A name with a line break or a terminal's control codes in it would forge log lines.
    ``repeats``: the same few stand in record after record, so the last ones checked are remembered.
    """
    detail = f"expected {low} to {high} characters that may stand here"

    def check(value: str) -> str:
        if not (low <= len(value) <= high and accepts(value)):
            refuse(detail)
        return value

    if repeats:
        check = lru_cache(_REPEATS)(check)
    return Shape(check, check)


def encodable(value: str) -> bool:
    """Whether UTF-8 can hold ``value``: Python's text may have half of a surrogate pair in it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def matching(pattern: str, high: int) -> Shape[str]:
    """An Avro ``string`` that is a full match of ``pattern``: names, which repeat."""
    return text(0, high, re.compile(pattern).fullmatch, repeats=True)


def hexadecimal(size: int) -> Shape[str]:
    """Lower-case hex of ``size`` bytes in memory, an Avro ``fixed`` in transit: no second spelling is possible."""
    accepts = re.compile(f"[0-9a-f]{{{2 * size}}}").fullmatch

    def write(value: str) -> bytes:
        if accepts(value) is None:
            refuse(f"expected {2 * size} lower-case hex digits")
        return bytes.fromhex(value)

    return Shape(write, bytes.hex)


_is_uuid: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


def _uuid_to_bytes(value: str) -> bytes:
    if _is_uuid(value) is None:
        refuse("expected a UUID in lower-case canonical form")
    return bytes.fromhex(value.replace("-", ""))


def _uuid_from_bytes(raw: bytes) -> str:
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


UUID: Final = Shape(_uuid_to_bytes, _uuid_from_bytes)
"""Canonical text in memory (``common.ids.parse_uuid``), ``fixed(16)`` with logical type ``uuid`` in transit."""

REPEATED_UUID: Final[Shape[str]] = Shape(lru_cache(_REPEATS)(_uuid_to_bytes), lru_cache(_REPEATS)(_uuid_from_bytes))
"""The same for boot ids, of which a system has a handful at a time."""
