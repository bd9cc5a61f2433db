"""Frozen values to canonical bytes and back, strictly: what a replica writes down of its own state.

The types say how: integers, bytes, text, booleans, enums, None, tuples, mappings (ascending by key), ``Secret`` and
frozen dataclasses of these. The bytes begin with a version and end in a checksum, so that a cut or flipped file is
``BadInput`` and never another value. (Against a person, not an accident, the shell seals the file.)
"""

import hashlib
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from common.errors import BadInput, Bug
from common.secret import Secret
from signer_service.frost.group import ORDER, Scalar

T = TypeVar("T")

_MAGIC: Final = b"SFN1"
_CHECKSUM_BYTES: Final = 32

_Write = Callable[[Any, list[bytes]], None]
_Read = Callable[["_Reader"], Any]


def pack(kind: type[T], value: T) -> bytes:
    """Return the bytes of ``value``, which is a ``kind``. Equal values give equal bytes.

    Raises:
        Bug: a type that this module does not know.
    """
    out = [_MAGIC]
    _shape(kind).write(value, out)
    body = b"".join(out)
    return body + hashlib.sha256(body).digest()


def unpack(kind: type[T], data: bytes) -> T:
    """Return the value that ``pack`` wrote.

    Raises:
        BadInput: code ``snapshot``: cut, changed, of another version or of another type.
    """
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if not body.startswith(_MAGIC) or hashlib.sha256(body).digest() != checksum:
        raise BadInput("snapshot", "the bytes were cut or changed, or are of another version")
    reader = _Reader(body, len(_MAGIC))
    value = _shape(kind).read(reader)
    if reader.at != len(body):
        raise BadInput("snapshot", "bytes after the end")
    return value  # type: ignore[no-any-return]


class _Reader:
    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise BadInput("snapshot", "the bytes end inside a value")
        taken, self.at = self.data[self.at : end], end
        return taken

    def count(self) -> int:
        return int.from_bytes(self.take(4), "big")


@dataclass(frozen=True, slots=True)
class _Shape:
    """How one type is written and read. Put together once per type."""

    write: _Write
    read: _Read


def _shape(kind: Any) -> _Shape:
    return _made(kind)


@cache
def _made(kind: Any) -> _Shape:
    if kind is Scalar:
        return _Shape(_write_int, _read_scalar)
    while hasattr(kind, "__supertype__"):
        kind = kind.__supertype__
    origin, members = get_origin(kind) or kind, get_args(kind)
    if origin in {Union, types.UnionType}:
        return _union(members)
    if origin is tuple:
        return _tuple(members)
    if origin is Mapping:
        return _mapping(_shape(members[0]), _shape(members[1]))
    if origin is Secret:
        inner = _shape(members[0])
        return _Shape(lambda value, out: inner.write(value.expose(), out), lambda reader: Secret(inner.read(reader)))
    if origin in _PLAIN:
        return _PLAIN[origin]
    if isinstance(origin, type) and issubclass(origin, Enum):
        return _enum(origin)
    if isinstance(origin, type) and is_dataclass(origin):
        return _record(origin)
    raise Bug(f"no snapshot of {kind}")


def _write_int(value: int, out: list[bytes]) -> None:
    size = (value.bit_length() + 8) // 8
    out.append(bytes((size,)) + value.to_bytes(size, "big", signed=True))


def _read_int(reader: _Reader) -> int:
    return int.from_bytes(reader.take(reader.take(1)[0]), "big", signed=True)


def _read_scalar(reader: _Reader) -> int:
    value = _read_int(reader)
    if not 0 <= value < ORDER:
        raise BadInput("snapshot", "a number that is no scalar")
    return value


def _write_bool(value: bool, out: list[bytes]) -> None:
    out.append(b"\x01" if value else b"\x00")


def _write_bytes(value: bytes, out: list[bytes]) -> None:
    out.append(len(value).to_bytes(4, "big"))
    out.append(value)


def _read_text(reader: _Reader) -> str:
    try:
        return reader.take(reader.count()).decode()
    except UnicodeDecodeError:
        raise BadInput("snapshot", "text that is no text") from None


_PLAIN: Final[Mapping[Any, _Shape]] = {
    type(None): _Shape(lambda _value, _out: None, lambda _reader: None),
    bool: _Shape(_write_bool, lambda reader: reader.take(1) == b"\x01"),
    int: _Shape(_write_int, _read_int),
    bytes: _Shape(_write_bytes, lambda reader: reader.take(reader.count())),
    str: _Shape(lambda value, out: _write_bytes(value.encode(), out), _read_text),
}


def _enum(kind: type[Enum]) -> _Shape:
    def read(reader: _Reader) -> Any:
        try:
            return kind(_read_text(reader))
        except ValueError:
            raise BadInput("snapshot", "a word that has no meaning") from None

    return _Shape(lambda value, out: _write_bytes(value.value.encode(), out), read)


def _union(members: tuple[Any, ...]) -> _Shape:
    shapes = tuple(_shape(member) for member in members)
    classes = tuple(get_origin(member) or getattr(member, "__supertype__", member) for member in members)

    def write(value: Any, out: list[bytes]) -> None:
        at = next(i for i, each in enumerate(classes) if isinstance(value, each))
        out.append(bytes((at,)))
        shapes[at].write(value, out)

    def read(reader: _Reader) -> Any:
        at = reader.take(1)[0]
        if at >= len(shapes):
            raise BadInput("snapshot", "a value of no known kind")
        return shapes[at].read(reader)

    return _Shape(write, read)


def _tuple(members: tuple[Any, ...]) -> _Shape:
    if len(members) == 2 and members[1] is Ellipsis:
        each = _shape(members[0])

        def write_all(value: Any, out: list[bytes]) -> None:
            out.append(len(value).to_bytes(4, "big"))
            for one in value:
                each.write(one, out)

        return _Shape(write_all, lambda reader: tuple(each.read(reader) for _ in range(reader.count())))
    shapes = tuple(_shape(member) for member in members)

    def write(value: Any, out: list[bytes]) -> None:
        for shape, one in zip(shapes, value, strict=True):
            shape.write(one, out)

    return _Shape(write, lambda reader: tuple(shape.read(reader) for shape in shapes))


def _mapping(key_shape: _Shape, value_shape: _Shape) -> _Shape:
    def write(value: Any, out: list[bytes]) -> None:
        out.append(len(value).to_bytes(4, "big"))
        for key in sorted(value):
            key_shape.write(key, out)
            value_shape.write(value[key], out)

    def read(reader: _Reader) -> Any:
        return {key_shape.read(reader): value_shape.read(reader) for _ in range(reader.count())}

    return _Shape(write, read)


def _record(kind: type[Any]) -> _Shape:
    hints = get_type_hints(kind)
    parts = tuple((each.name, attrgetter(each.name), _shape(hints[each.name])) for each in fields(kind))

    def write(value: Any, out: list[bytes]) -> None:
        for _, get, shape in parts:
            shape.write(get(value), out)

    def read(reader: _Reader) -> Any:
        return kind(**{name: shape.read(reader) for name, _, shape in parts})

    return _Shape(write, read)
