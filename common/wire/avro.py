"""The binary encoding of Avro 1.12, strictly: each value has one encoding, and each length a bound, known beforehand.

Avro allows several encodings of one value (padded integers, arrays cut into blocks) and no bound on anything. Here
the shortest integers and one block per array are the only ones taken, so what was decoded re-encodes to the same
bytes; and a length is compared with its bound before anything is made of it, so a record of 100 bytes cannot claim a
gigabyte. General-purpose readers do neither: fastavro takes -1 for an enum's last symbol and 255 for true.

A ``Shape`` is a pair of plain functions. They are put together once, at import, by ``common.wire.shapes``; what they
write is what any Avro library writes and reads (the tests hold them against fastavro, both ways).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Final, Generic, NoReturn, TypeVar

from common.errors import BadInput, Bug

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

MAX_LONG: Final = 2**63 - 1

_BYTE: Final = tuple(bytes([n]) for n in range(128))


@dataclass(frozen=True, slots=True)
class Shape(Generic[T]):
    """How one type travels: ``write`` appends its bytes, ``read`` returns the value and the position after it.

    Both raise ``BadInput``: ``truncated``, ``not-canonical`` or ``out-of-bounds``, with the field's path.
    """

    write: Callable[[T, list[bytes]], None]
    read: Callable[[bytes, int], tuple[T, int]]


def refuse(detail: str, field: str | None = None) -> NoReturn:
    """Raise ``BadInput`` with code ``out-of-bounds``."""
    raise BadInput("out-of-bounds", detail, field)


def truncated() -> NoReturn:
    """Raise ``BadInput`` with code ``truncated``."""
    raise BadInput("truncated", "the bytes end inside a value")


def write_long(value: int) -> bytes:
    """Zig-zag, then 7 bits a byte, low ones first. ``value`` is in -2**63 .. 2**63 - 1."""
    rest = value << 1 if value >= 0 else (-value << 1) - 1
    if rest < 128:
        return _BYTE[rest]
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """Return the integer at ``at`` and the position after it."""
    try:
        byte = data[at]
        if byte < 128:
            return (byte >> 1) ^ -(byte & 1), at + 1
        value = byte & 127
        shift = 7
        for at in range(at + 1, at + 10):  # noqa: B020, PLR1704 - ten bytes hold 64 bits
            byte = data[at]
            if byte < 128:
                break
            value |= (byte & 127) << shift
            shift += 7
        else:
            refuse("an integer is longer than 64 bits")
    except IndexError:
        truncated()
    if byte == 0:
        raise BadInput("not-canonical", "an integer is padded")
    value |= byte << shift
    if value >> 64:
        refuse("an integer is longer than 64 bits")
    return (value >> 1) ^ -(value & 1), at + 1


def integer(low: int, high: int = MAX_LONG) -> Shape[int]:
    """An Avro ``int`` or ``long`` from ``low`` to ``high``, both included."""

    detail = f"expected {low} to {high}"

    def write(value: int, out: list[bytes]) -> None:
        if not low <= value <= high:
            refuse(detail)
        out.append(write_long(value))

    def read(data: bytes, at: int) -> tuple[int, int]:
        value, at = read_long(data, at)
        if not low <= value <= high:
            refuse(detail)
        return value, at

    return Shape(write, read)


def instant(low: int) -> Shape[int]:
    """An Avro ``long`` with logical type ``timestamp-millis``, from ``low`` on.

    The same bytes as ``integer``, written out for the six that a time between 1970 and 2039 takes: two stand in every
    item, and a loop over six bytes costs as much as three other fields.
    """
    plain = integer(low, 2**53 - 1)

    def write(value: int, out: list[bytes]) -> None:
        n = value << 1
        if not 1 << 35 <= n < 1 << 42:
            plain.write(value, out)
            return
        out.append(
            bytes(
                (
                    n & 127 | 128,
                    n >> 7 & 127 | 128,
                    n >> 14 & 127 | 128,
                    n >> 21 & 127 | 128,
                    n >> 28 & 127 | 128,
                    n >> 35,
                )
            )
        )

    def read(data: bytes, at: int) -> tuple[int, int]:
        six = data[at : at + 6]
        if len(six) == 6:
            a, b, c, d, e, f = six
            if a & b & c & d & e & 128 and 0 < f < 128 and not a & 1:
                return (
                    a & 127 | (b & 127) << 7 | (c & 127) << 14 | (d & 127) << 21 | (e & 127) << 28 | f << 35
                ) >> 1, at + 6
        return plain.read(data, at)

    return Shape(write, read)


def _write_bool(value: bool, out: list[bytes]) -> None:
    out.append(b"\x01" if value else b"\x00")


def _read_bool(data: bytes, at: int) -> tuple[bool, int]:
    byte = data[at : at + 1]
    if byte == b"\x00":
        return False, at + 1
    if byte == b"\x01":
        return True, at + 1
    if not byte:
        truncated()
    raise BadInput("not-canonical", "a boolean is 0 or 1")


BOOLEAN: Final = Shape(_write_bool, _read_bool)


def fixed(size: int) -> Shape[bytes]:
    """An Avro ``fixed`` of ``size`` bytes."""

    def write(value: bytes, out: list[bytes]) -> None:
        if len(value) != size:
            refuse(f"expected {size} bytes")
        out.append(value)

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        end = at + size
        value = data[at:end]
        if len(value) != size:
            truncated()
        return value, end

    return Shape(write, read)


def blob(low: int, high: int) -> Shape[bytes]:
    """Avro ``bytes``, ``low`` to ``high`` of them."""
    return _sized(lambda size: low <= size <= high, f"expected {low} to {high} bytes")


def optional_fixed(size: int) -> Shape[bytes]:
    """Avro ``bytes``: exactly ``size`` of them, or none."""
    return _sized(lambda length: length in (0, size), f"expected {size} bytes or none")


def _sized(fits: Callable[[int], bool], detail: str) -> Shape[bytes]:
    def write(value: bytes, out: list[bytes]) -> None:
        if not fits(len(value)):
            refuse(detail)
        out.append(write_long(len(value)))
        out.append(value)

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        size, at = read_long(data, at)
        if not fits(size):
            refuse(detail)
        end = at + size
        value = data[at:end]
        if len(value) != size:
            truncated()
        return value, end

    return Shape(write, read)


def enumeration(kind: type[E]) -> Shape[E]:
    """An Avro ``enum`` whose symbols are the names of ``kind``'s members, in their order."""
    members = tuple(kind)
    encoded = {member: write_long(number) for number, member in enumerate(members)}

    def write(value: E, out: list[bytes]) -> None:
        out.append(encoded[value])

    def read(data: bytes, at: int) -> tuple[E, int]:
        number, at = read_long(data, at)
        if not 0 <= number < len(members):
            refuse("no such symbol")
        return members[number], at

    return Shape(write, read)


def array(item: Shape[T], low: int, high: int) -> Shape[tuple[T, ...]]:
    """An Avro ``array`` of ``low`` to ``high`` items, as one block with its count."""
    detail = f"expected {low} to {high} items"
    write_item, read_item = item.write, item.read

    def write(values: tuple[T, ...], out: list[bytes]) -> None:
        if not low <= len(values) <= high:
            refuse(detail)
        if values:
            out.append(write_long(len(values)))
            for value in values:
                write_item(value, out)
        out.append(b"\x00")

    def read(data: bytes, at: int) -> tuple[tuple[T, ...], int]:
        count, at = read_long(data, at)
        if not low <= count <= high:
            if count < 0:
                raise BadInput("not-canonical", "an array is one block, with its count alone")
            refuse(detail)
        if count == 0:
            return (), at
        values = []
        for _ in range(count):
            value, at = read_item(data, at)
            values.append(value)
        end, at = read_long(data, at)
        if end:
            raise BadInput("not-canonical", "an array is one block, with its count alone")
        return tuple(values), at

    return Shape(write, read)


def checked(shape: Shape[T], check: Callable[[T], None]) -> Shape[T]:
    """``shape``, for values that pass ``check`` too; it refuses by raising."""

    def write(value: T, out: list[bytes]) -> None:
        check(value)
        shape.write(value, out)

    def read(data: bytes, at: int) -> tuple[T, int]:
        value, at = shape.read(data, at)
        check(value)
        return value, at

    return Shape(write, read)


def record(kind: type[T], members: Mapping[str, Shape[Any]], check: Callable[[T], None] | None = None) -> Shape[T]:
    """An Avro ``record``, its fields in the order of the dataclass ``kind``; ``check`` is for what spans fields."""
    if [field.name for field in fields(kind)] != list(members):  # type: ignore[arg-type]
        raise Bug(f"the shape of {kind.__name__} does not have its fields, in their order")
    if hasattr(kind, "__post_init__"):
        raise Bug(f"{kind.__name__} has a __post_init__, which nobody would call")
    writers = tuple((name, shape.write) for name, shape in members.items())
    # Slot by slot: the __init__ of a frozen dataclass takes as long as reading the fields. ``read`` is the only holder
    # of the value until it is whole.
    readers = tuple((name, shape.read, getattr(kind, name).__set__) for name, shape in members.items())
    new = object.__new__

    def write(value: T, out: list[bytes]) -> None:
        name = ""
        try:
            for name, put in writers:
                put(getattr(value, name), out)
        except BadInput as bad:
            raise _inside(name, bad) from None
        if check is not None:
            check(value)

    def read(data: bytes, at: int) -> tuple[T, int]:
        value = new(kind)
        name = ""
        try:
            for name, get, fill in readers:  # noqa: B007 - for the except clause
                member, at = get(data, at)
                fill(value, member)
        except BadInput as bad:
            raise _inside(name, bad) from None
        if check is not None:
            check(value)
        return value, at

    return Shape(write, read)


def _inside(name: str, bad: BadInput) -> BadInput:
    return BadInput(bad.code, bad.detail, name if bad.field is None else f"{name}.{bad.field}")


def union(branches: Mapping[type[Any], Shape[Any]]) -> Shape[Any]:
    """An Avro ``union`` of records, in this order."""
    numbered = {kind: (write_long(n), shape.write) for n, (kind, shape) in enumerate(branches.items())}
    readers = tuple(shape.read for shape in branches.values())

    def write(value: object, out: list[bytes]) -> None:
        number, put = numbered[type(value)]
        out.append(number)
        put(value, out)

    def read(data: bytes, at: int) -> tuple[Any, int]:
        number, at = read_long(data, at)
        if not 0 <= number < len(readers):
            refuse("no such branch")
        return readers[number](data, at)

    return Shape(write, read)
