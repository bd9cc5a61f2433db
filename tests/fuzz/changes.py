"""Inputs out of inputs. The same dice, the same change: a finding can be had again."""

import random  # noqa: TID251 - a test's dice, from a seed that reproduces the run
from collections.abc import Sequence
from typing import Any, Final

import schemas
from common.wire import codec
from tests.wire.samples import fastavro_read, fastavro_write, header

NUMBERS: Final = (0, 1, -1, 2, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**53, 2**63 - 1, -(2**63))
BYTES: Final = (0x00, 0x01, 0x02, 0x7F, 0x80, 0xC3, 0xFE, 0xFF)


def change(data: bytes, dice: random.Random, others: Sequence[bytes], words: Sequence[bytes], longest: int) -> bytes:
    """Return ``data`` with one to four changes: bytes set, cut, put in, repeated, or taken from another input."""
    raw = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 2, 3, 4))):
        _change_once(raw, dice, others, words)
    return bytes(raw[:longest])


def _change_once(raw: bytearray, dice: random.Random, others: Sequence[bytes], words: Sequence[bytes]) -> None:
    at = dice.randint(0, len(raw))
    size = min(dice.choice((1, 1, 2, 4, 8, 16, 64)), len(raw) - at)
    match dice.randrange(9):
        case 0 if raw:
            raw[at % len(raw)] ^= 1 << dice.randrange(8)
        case 1 if raw:
            raw[at % len(raw)] = dice.choice(BYTES)
        case 2:
            del raw[at : at + size]
        case 3:
            del raw[at:]
        case 4:
            raw[at:at] = dice.randbytes(dice.choice((1, 1, 2, 4, 9)))
        case 5:
            raw[at:at] = raw[at : at + size] * dice.choice((1, 1, 2, 8))
        case 6 if words:
            raw[at : at + dice.choice((0, size))] = dice.choice(words)
        case 7 if others:
            other = dice.choice(others)
            begin = dice.randint(0, len(other))
            raw[at : at + dice.choice((0, size))] = other[begin : begin + dice.choice((1, 4, 16, 64, 512))]
        case _:
            number = dice.choice(NUMBERS)
            raw[at : at + size] = (number % 2**64).to_bytes(8, dice.choice(("big", "little")))[: max(1, size)]


def change_values(raw: bytes, dice: random.Random) -> bytes:
    """Return the record ``raw`` (single-object encoding, of today's schemas) with one to three other values in it.

    As somebody writes it who knows the schemas and heeds no bound: numbers at their edges, members repeated, left out
    or in another order, a field of one item moved to another. Where the values cannot be written, ``raw`` itself.
    """
    name = next(name for name in schemas.names() if raw.startswith(header(name)))
    whole = fastavro_read(name, raw[10:])
    for _ in range(dice.choice((1, 1, 2, 3))):
        whole = _other(whole, dice)
    try:
        return raw[:10] + fastavro_write(name, whole)
    except Exception:  # noqa: BLE001 - a number that does not fit, a fixed of another size, a corpus file cut short
        return raw


def kind_of(raw: bytes) -> type[Any] | None:
    """The record that ``raw`` says it is, by today's schemas."""
    entry = codec._BY_HEADER.get(raw[:10])
    return None if entry is None else entry.kind


def _other(value: Any, dice: random.Random) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return dice.choice((*NUMBERS, value + 1, value - 1))
        case bytes():
            return _other_bytes(value, dice)
        case str():
            return dice.choice(("", value[:-1], value + "x", value.upper(), "\x00", "é" * 9, value * 3))
        case dict() if value:
            name = dice.choice(sorted(value))
            return {**value, name: _other(value[name], dice)}
        case tuple():
            return (value[0], _other(value[1], dice))
        case list():
            return _other_list(list(value), dice)
    return value


def _other_bytes(value: bytes, dice: random.Random) -> bytes:
    changed = bytearray(value)
    if changed and dice.random() < 0.6:
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        return bytes(changed)
    return dice.choice((bytes(len(value)), b"\xff" * len(value), dice.randbytes(len(value)), value[:-1], value + b"\0"))


def _other_list(values: list[Any], dice: random.Random) -> list[Any]:
    if not values:
        return values
    at, to = dice.randrange(len(values)), dice.randrange(len(values))
    match dice.randrange(14):
        case 0:
            del values[at]
        case 1:
            values.insert(to, values[at])
        case 2:
            values[at], values[to] = values[to], values[at]
        case 3:
            return []
        case 4:
            return values * dice.choice((2, 5))
        case 5 if isinstance(values[at], dict):
            name = dice.choice(sorted(values[at]))
            values[at] = {**values[at], name: values[to][name]} if name in values[to] else values[at]
        case _:
            values[at] = _other(values[at], dice)
    return values
