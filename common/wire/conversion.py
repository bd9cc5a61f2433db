"""Our values and the plain ones that an Avro library reads and writes, with every bound held on the way.

fastavro knows types, not bounds: it reads an array of any count, a text of any length, any 64-bit number. A ``Shape``
turns what it read into ours, and ours into what it writes, and refuses in both directions what is out of bounds.
Shapes are put together once, at import, by the tables (``common.wire.shapes``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from operator import attrgetter
from typing import Any, Final, Generic, NoReturn, TypeVar

from common.errors import BadInput, Bug

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

MAX_LONG: Final = 2**63 - 1
NAMESPACE: Final = "signer_flow.v1"
"""Of every schema: fastavro names the branches of a union in full."""


@dataclass(frozen=True, slots=True)
class Shape(Generic[T]):
    """How one type travels: ``write`` returns the plain value of ours, ``read`` returns ours of the plain one.

    Both raise ``BadInput``, ``out-of-bounds``, with the field's path.
    """

    write: Callable[[T], Any]
    read: Callable[[Any], T]


def refuse(detail: str, field: str | None = None) -> NoReturn:
    """Raise ``BadInput`` with code ``out-of-bounds``."""
    raise BadInput("out-of-bounds", detail, field)


def as_it_is(value: T) -> T:
    """Return ``value``. Records and arrays know this function, and do not call it for each of their members."""
    return value


def integer(low: int, high: int = MAX_LONG) -> Shape[int]:
    """An Avro ``int`` or ``long`` from ``low`` to ``high``, both included."""
    detail = f"expected {low} to {high}"

    def check(value: int) -> int:
        if not low <= value <= high:
            refuse(detail)
        return value

    return Shape(check, check)


def fixed(size: int) -> Shape[bytes]:
    """An Avro ``fixed`` of ``size`` bytes. The reader cannot give another number of them; our own code could."""
    detail = f"expected {size} bytes"

    def check(value: bytes) -> bytes:
        if len(value) != size:
            refuse(detail)
        return value

    return Shape(check, as_it_is)


def blob(low: int, high: int) -> Shape[bytes]:
    """Avro ``bytes``, ``low`` to ``high`` of them."""
    detail = f"expected {low} to {high} bytes"

    def check(value: bytes) -> bytes:
        if not low <= len(value) <= high:
            refuse(detail)
        return value

    return Shape(check, check)


def optional_fixed(size: int) -> Shape[bytes]:
    """Avro ``bytes``: exactly ``size`` of them, or none."""
    detail = f"expected {size} bytes or none"

    def check(value: bytes) -> bytes:
        if value and len(value) != size:
            refuse(detail)
        return value

    return Shape(check, check)


def enumeration(kind: type[E]) -> Shape[E]:
    """An Avro ``enum`` whose symbols are the names of ``kind``'s members (its reader gives no other symbol)."""
    return Shape(attrgetter("_name_"), {member.name: member for member in kind}.__getitem__)


BOOLEAN: Final[Shape[bool]] = Shape(as_it_is, as_it_is)


def array(item: Shape[T], low: int, high: int) -> Shape[tuple[T, ...]]:
    """An Avro ``array`` of ``low`` to ``high`` items."""
    detail = f"expected {low} to {high} items"
    write_item, read_item = item.write, item.read

    def write(values: tuple[T, ...]) -> list[Any]:
        if not low <= len(values) <= high:
            refuse(detail)
        return [write_item(value) for value in values]

    def read(plain: list[Any]) -> tuple[T, ...]:
        if not low <= len(plain) <= high:
            refuse(detail)
        return tuple([read_item(one) for one in plain])

    return Shape(write, read)


def fixed_array(size: int, low: int, high: int) -> Shape[tuple[bytes, ...]]:
    """An Avro ``array`` of ``low`` to ``high`` ``fixed`` of ``size`` bytes each: no call for each of them."""
    detail = f"expected {low} to {high} items"
    sizes = {size}

    def write(values: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if not low <= len(values) <= high:
            refuse(detail)
        if values and set(map(len, values)) != sizes:
            refuse(f"expected {size} bytes each")
        return values

    def read(plain: list[bytes]) -> tuple[bytes, ...]:
        if not low <= len(plain) <= high:
            refuse(detail)
        return tuple(plain)

    return Shape(write, read)


def integer_array(number: tuple[int, int], low: int, high: int, *, ascending: bool = False) -> Shape[tuple[int, ...]]:
    """An Avro ``array`` of ``low`` to ``high`` integers, each from ``number[0]`` to ``number[1]``; no call for each.

    ``ascending``: each more than the one before.
    """
    detail = f"expected {low} to {high} items"
    least, most = number

    def check(values: Sequence[int]) -> tuple[int, ...]:
        if not low <= len(values) <= high:
            refuse(detail)
        if values and not (least <= min(values) and max(values) <= most):
            refuse(f"expected {least} to {most}")
        if ascending:
            in_order(values)
        return tuple(values)

    return Shape(check, check)


def in_order(values: Sequence[int]) -> None:
    """Refuse ``values`` unless each is more than the one before."""
    if len(values) > 1 and sorted(set(values)) != list(values):
        refuse("expected ascending values, each once")


def checked(shape: Shape[T], check: Callable[[T], None]) -> Shape[T]:
    """``shape``, for values that pass ``check`` too; it refuses by raising."""

    def write(value: T) -> Any:
        check(value)
        return shape.write(value)

    def read(plain: Any) -> T:
        value = shape.read(plain)
        check(value)
        return value

    return Shape(write, read)


def record(kind: type[T], members: Mapping[str, Shape[Any]], check: Callable[[T], None] | None = None) -> Shape[T]:
    """An Avro ``record`` with the fields of the dataclass ``kind``; ``check`` is for what spans fields."""
    if [field.name for field in fields(kind)] != list(members):  # type: ignore[arg-type]
        raise Bug(f"the shape of {kind.__name__} does not have its fields, in their order")
    if hasattr(kind, "__post_init__"):
        raise Bug(f"{kind.__name__} has a __post_init__, which nobody would call")
    writers = tuple((name, shape.write) for name, shape in members.items())
    # Slot by slot: the __init__ of a frozen dataclass takes as long as all the rest. ``read`` is the only holder of
    # the value until it is whole.
    slots = {name: getattr(kind, name).__set__ for name in members}
    kept = tuple((name, slots[name]) for name, shape in members.items() if shape.read is as_it_is)
    readers = tuple((name, shape.read, slots[name]) for name, shape in members.items() if shape.read is not as_it_is)
    new = object.__new__

    def write(value: T) -> dict[str, Any]:
        plain = {}
        name = ""
        try:
            for name, put in writers:
                plain[name] = put(getattr(value, name))
        except BadInput as bad:
            raise _inside(name, bad) from None
        if check is not None:
            check(value)
        return plain

    def read(plain: dict[str, Any]) -> T:
        value = new(kind)
        name = ""
        try:
            for name, get, fill in readers:
                fill(value, get(plain[name]))
        except BadInput as bad:
            raise _inside(name, bad) from None
        for name, fill in kept:
            fill(value, plain[name])
        if check is not None:
            check(value)
        return value

    return Shape(write, read)


def _inside(name: str, bad: BadInput) -> BadInput:
    return BadInput(bad.code, bad.detail, name if bad.field is None else f"{name}.{bad.field}")


def union(branches: Mapping[type[Any], Shape[Any]]) -> Shape[Any]:
    """An Avro ``union`` of records: plain, it is a pair of the branch's full name and the record."""
    writers = {kind: (f"{NAMESPACE}.{kind.__name__}", shape.write) for kind, shape in branches.items()}
    readers = {f"{NAMESPACE}.{kind.__name__}": shape.read for kind, shape in branches.items()}

    def write(value: object) -> tuple[str, Any]:
        name, put = writers[type(value)]
        return name, put(value)

    def read(plain: tuple[str, Any]) -> Any:
        name, inner = plain
        return readers[name](inner)

    return Shape(write, read)
