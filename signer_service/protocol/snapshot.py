"""Frozen values to canonical bytes and back, strictly: what a replica writes down of its own state.

The types say how: integers, bytes, text, booleans, enums, None, tuples, mappings (ascending by key), ``Secret`` and
frozen dataclasses of these. The bytes begin with a version and end in a checksum, so that a cut or flipped file is
``BadInput`` and never another value. (Against a person, not an accident, the shell seals the file.)
"""

import hashlib
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from common.errors import BadInput, Bug
from common.secret import Secret

T = TypeVar("T")

_MAGIC: Final = b"SFN1"
_CHECKSUM_BYTES: Final = 32


def pack(kind: type[T], value: T) -> bytes:
    """Return the bytes of ``value``, which is a ``kind``. Equal values give equal bytes.

    Raises:
        Bug: a type that this module does not know.
    """
    out: list[bytes] = []
    _write(kind, value, out)
    body = _MAGIC + b"".join(out)
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
    value = _read(kind, reader)
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


@cache
def _hints(kind: Any) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(kind)
    return tuple((each.name, hints[each.name]) for each in fields(kind))


def _plain(kind: Any) -> Any:
    while hasattr(kind, "__supertype__"):
        kind = kind.__supertype__
    return kind


def _options(kind: Any) -> tuple[Any, ...] | None:
    """The members of ``X | Y | None``."""
    if get_origin(kind) in {Union, types.UnionType}:
        return get_args(kind)
    return None


def _write(kind: Any, value: Any, out: list[bytes]) -> None:
    kind = _plain(kind)
    options = _options(kind)
    origin = get_origin(kind) or kind
    if options is not None:
        at = next(i for i, option in enumerate(options) if isinstance(value, get_origin(option) or _plain(option)))
        out.append(bytes([at]))
        _write(options[at], value, out)
    elif origin is type(None):
        pass
    elif origin is bool:
        out.append(bytes([value]))
    elif origin is int:
        size = (value.bit_length() + 8) // 8
        out.append(bytes([size]) + value.to_bytes(size, "big", signed=True))
    elif origin is bytes:
        out.append(len(value).to_bytes(4, "big") + value)
    elif origin is str:
        _write(bytes, value.encode(), out)
    elif origin is Secret:
        _write(get_args(kind)[0], value.expose(), out)
    elif origin is tuple:
        members = get_args(kind)
        if len(members) == 2 and members[1] is Ellipsis:
            out.append(len(value).to_bytes(4, "big"))
            members = (members[0],) * len(value)
        for member, each in zip(members, value, strict=True):
            _write(member, each, out)
    elif origin is Mapping:
        key_kind, value_kind = get_args(kind)
        out.append(len(value).to_bytes(4, "big"))
        for key in sorted(value):
            _write(key_kind, key, out)
            _write(value_kind, value[key], out)
    elif isinstance(origin, type) and issubclass(origin, Enum):
        _write(str, value.value, out)
    elif isinstance(origin, type) and is_dataclass(origin):
        for name, hint in _hints(origin):
            _write(hint, getattr(value, name), out)
    else:
        raise Bug(f"no snapshot of {kind}")


def _read(kind: Any, reader: _Reader) -> Any:
    kind = _plain(kind)
    options = _options(kind)
    origin = get_origin(kind) or kind
    if options is not None:
        at = reader.take(1)[0]
        if at >= len(options):
            raise BadInput("snapshot", "a value of no known kind")
        return _read(options[at], reader)
    if origin is type(None):
        return None
    if origin is bool:
        return reader.take(1) == b"\x01"
    if origin is int:
        return int.from_bytes(reader.take(reader.take(1)[0]), "big", signed=True)
    if origin is bytes:
        return reader.take(reader.count())
    if origin is str:
        return _text(reader)
    if origin is Secret:
        return Secret(_read(get_args(kind)[0], reader))
    if origin is tuple:
        members = get_args(kind)
        if len(members) == 2 and members[1] is Ellipsis:
            return tuple(_read(members[0], reader) for _ in range(reader.count()))
        return tuple(_read(member, reader) for member in members)
    if origin is Mapping:
        key_kind, value_kind = get_args(kind)
        return {_read(key_kind, reader): _read(value_kind, reader) for _ in range(reader.count())}
    if isinstance(origin, type) and issubclass(origin, Enum):
        text = _text(reader)
        try:
            return origin(text)
        except ValueError:
            raise BadInput("snapshot", "a word that has no meaning") from None
    if isinstance(origin, type) and is_dataclass(origin):
        return origin(**{name: _read(hint, reader) for name, hint in _hints(origin)})
    raise Bug(f"no snapshot of {kind}")


def _text(reader: _Reader) -> str:
    try:
        return reader.take(reader.count()).decode()
    except UnicodeDecodeError:
        raise BadInput("snapshot", "text that is no text") from None
