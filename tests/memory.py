"""What an attacker finds in a process: every value that its objects lead to, and every box of a secret that is alive.

Like a core dump that knows Python: it finds what is reachable from the objects it is given, and, through ``Boxes``,
what nobody can reach but the collector has not freed yet. It does not find what was freed: CPython does not wipe it.
"""

import gc
import types
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from common.secret import Secret

_MASK: Final = (1 << 512) - 0x5EED
_SMALLEST: Final = 1 << 128
"""Smaller numbers are offsets, times and sizes; a random scalar is larger but for a chance of 2**-124."""


def masked(value: int) -> int:
    """A number that is not ``value`` and says the same: what a test remembers of a secret must not be found as one."""
    return value ^ _MASK


def number(value: object) -> int | None:
    """The scalar that ``value`` is or encodes (32 bytes, little-endian); None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value >= _SMALLEST else None
    if isinstance(value, bytes | bytearray) and len(value) == 32:
        return int.from_bytes(value, "little")
    return None


class Dump:
    """All values that ``roots`` lead to, over attributes, containers, closures, frames and what C objects refer to."""

    def __init__(self, roots: Iterable[object], *, without: Iterable[object] = ()) -> None:
        self.numbers: set[int] = set()
        """Masked; of integers and of 32 bytes read as scalars."""
        self.integers: set[int] = set()
        """Masked; of integers only."""
        blobs: list[bytes] = []
        skipped = list(without)
        seen = {id(each) for each in skipped}
        todo = list(roots)
        while todo:
            each = todo.pop()
            if id(each) in seen:
                continue
            seen.add(id(each))
            skipped.append(each)  # alive, so that no id is used twice
            if isinstance(each, type | types.ModuleType):
                continue
            found = number(each)
            if found is not None:
                self.numbers.add(masked(found))
                if isinstance(each, int):
                    self.integers.add(masked(found))
            if isinstance(each, bytes | bytearray | memoryview):
                blobs.append(bytes(each))
            elif isinstance(each, str):
                blobs.append(each.encode("utf-8", "surrogatepass"))
            elif isinstance(each, types.FunctionType):
                # Not its globals: they are the whole program, and this test.
                todo += [each.__closure__, each.__defaults__, each.__kwdefaults__]
            else:
                todo += gc.get_referents(each)
        self.blob = b"\n\n".join(blobs)

    def holds(self, values: Iterable[int]) -> set[int]:
        """Which of these masked scalars it holds, as a number or inside of bytes or text, in any usual spelling."""
        wanted = set(values)
        return {each for each in wanted if each in self.numbers or any(form in self.blob for form in spelled(each))}


def spelled(value: int) -> Iterator[bytes]:
    """How the masked scalar may stand inside of bytes."""
    plain = value ^ _MASK
    for raw in (plain.to_bytes(64, "little")[:32], plain.to_bytes(64, "big")[-32:]):
        yield raw
        yield raw.hex().encode()
    yield str(plain).encode()


class Boxes:
    """Every ``Secret`` that was made while it watched: what was in it, masked, and whether the box is still there."""

    def __init__(self) -> None:
        self.made: dict[int, list[weakref.ref[Secret[Any]]]] = {}

    def note(self, box: Secret[Any], value: object) -> None:
        for each in value if isinstance(value, tuple) else (value,):
            found = number(each)
            if found is not None:
                self.made.setdefault(masked(found), []).append(weakref.ref(box))

    def alive(self) -> set[int]:
        """What boxes that exist hold, reachable or not."""
        return {value for value, boxes in self.made.items() if any(box() is not None for box in boxes)}


@contextmanager
def boxes_watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Boxes]:
    """Note every secret that is boxed from now on."""
    boxes = Boxes()
    make = Secret.__init__

    def remember(self: Secret[Any], value: Any) -> None:
        make(self, value)
        boxes.note(self, value)

    with monkeypatch.context() as patch:
        patch.setattr(Secret, "__init__", remember)
        yield boxes
