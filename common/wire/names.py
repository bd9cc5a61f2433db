"""Text and names in transit: strings, UUIDs and hex, as shapes of ``common.wire.avro``.

Names repeat: the same keys, topics, callers and boot ids stand in record after record. Checking one costs more than
remembering that it was checked, so the last ones are kept, in both directions.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from common.wire.avro import Shape, fixed, read_long, refuse, truncated, write_long

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

    def to_bytes(value: str) -> bytes:
        if not (low <= len(value) <= high and accepts(value)):
            refuse(detail)
        try:
            raw = value.encode()
        except UnicodeEncodeError:
            refuse("expected text that UTF-8 can hold")
        return write_long(len(raw)) + raw

    def from_bytes(raw: bytes) -> str:
        try:
            value = raw.decode()
        except UnicodeDecodeError:
            refuse("expected UTF-8")
        if not (low <= len(value) <= high and accepts(value)):
            refuse(detail)
        return value

    if repeats:
        to_bytes = lru_cache(_REPEATS)(to_bytes)
        from_bytes = lru_cache(_REPEATS)(from_bytes)

    def write(value: str, out: list[bytes]) -> None:
        out.append(to_bytes(value))

    def read(data: bytes, at: int) -> tuple[str, int]:
        size, at = read_long(data, at)
        if not 0 <= size <= 4 * high:
            refuse(detail)
        end = at + size
        if end > len(data):
            truncated()
        return from_bytes(data[at:end]), end

    return Shape(write, read)


def matching(pattern: str, high: int) -> Shape[str]:
    """An Avro ``string`` that is a full match of ``pattern``: names, which repeat."""
    return text(0, high, re.compile(pattern).fullmatch, repeats=True)


def hexadecimal(size: int) -> Shape[str]:
    """Lower-case hex of ``size`` bytes in memory, an Avro ``fixed`` in transit: no second spelling is possible."""
    accepts = re.compile(f"[0-9a-f]{{{2 * size}}}").fullmatch
    raw = fixed(size)

    def write(value: str, out: list[bytes]) -> None:
        if accepts(value) is None:
            refuse(f"expected {2 * size} lower-case hex digits")
        out.append(bytes.fromhex(value))

    def read(data: bytes, at: int) -> tuple[str, int]:
        value, at = raw.read(data, at)
        return value.hex(), at

    return Shape(write, read)


def _uuid_to_bytes(value: str) -> bytes:
    if _is_uuid(value) is None:
        refuse("expected a UUID in lower-case canonical form")
    return bytes.fromhex(value.replace("-", ""))


def _uuid_from_bytes(raw: bytes) -> str:
    digits = raw.hex()
    if len(digits) != 32:
        truncated()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _uuid(to_bytes: Callable[[str], bytes], from_bytes: Callable[[bytes], str]) -> Shape[str]:
    def write(value: str, out: list[bytes]) -> None:
        out.append(to_bytes(value))

    def read(data: bytes, at: int) -> tuple[str, int]:
        end = at + 16
        return from_bytes(data[at:end]), end

    return Shape(write, read)


_is_uuid: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch

UUID: Final = _uuid(_uuid_to_bytes, _uuid_from_bytes)
"""Canonical text in memory (``common.ids.parse_uuid``), ``fixed(16)`` with logical type ``uuid`` in transit."""

REPEATED_UUID: Final = _uuid(lru_cache(_REPEATS)(_uuid_to_bytes), lru_cache(_REPEATS)(_uuid_from_bytes))
"""The same for boot ids, of which a system has a handful at a time."""
