"""P1: from key generation on, the private key never exists in any one process.

The test computes the private key from the shares of t seats, which only a test that owns all of them can do, and looks
for it in everything that any seat ever boxed as a secret, kept in its state or wrote to its disk.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from common.ids import Index
from common.secret import Secret
from signer_service.frost.group import ORDER, Scalar, base_mul, encode_scalar
from signer_service.frost.sharing import lagrange_weights
from tests import playbook
from tests.world import World


class Memory:
    """Every value that was ever put into a ``Secret`` while a world ran, and what states and disks held after steps."""

    def __init__(self) -> None:
        self.scalars: set[int] = set()
        self.blobs: list[bytes] = []

    def take(self, value: Any) -> None:
        if isinstance(value, Secret):
            self.take(value.expose())
        elif isinstance(value, bool) or value is None:
            return
        elif isinstance(value, int):
            self.scalars.add(value)
        elif isinstance(value, bytes | bytearray):
            self.blobs.append(bytes(value))
        elif is_dataclass(value):
            for each in fields(value):
                self.take(getattr(value, each.name))
        elif isinstance(value, dict):
            self.take(tuple(value.items()))
        elif isinstance(value, tuple | list | set | frozenset):
            for each in value:
                self.take(each)

    def holds(self, key: int) -> bool:
        encodings = (encode_scalar(Scalar(key)), key.to_bytes(32, "big"))
        return key in self.scalars or any(form in blob for blob in self.blobs for form in encodings)


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    memory = Memory()
    make = Secret.__init__

    def remember(self: Secret[Any], value: Any) -> None:
        make(self, value)
        memory.take(value)

    with monkeypatch.context() as patch:
        patch.setattr(Secret, "__init__", remember)
        yield memory


def private_key(world: World) -> int:
    """What no process may ever compute."""
    held = world.keys_at()
    some = tuple(sorted(held))[: held[1].threshold]
    weights = lagrange_weights(tuple(map(Index, some)))
    total = 0
    for index in some:
        share = held[index].share
        assert share is not None
        total += weights[Index(index)] * share.share.expose()
    assert base_mul(Scalar(total % ORDER)) == held[1].public.group_key
    return total % ORDER


@pytest.mark.parametrize(("threshold", "size"), [(2, 3), (3, 5)])
def test_p1_the_private_key_is_never_in_any_seat(threshold: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch) as memory:
        world = World(threshold, size, seed=7)
        world.start()
        world.run(lambda: world.holds(1))
        world.run_for(2_000)
        for seat in world.seats.values():
            memory.take(seat.state)
            memory.take(seat.disk)
    key = private_key(world)
    shares = [keys.share.share.expose() for keys in world.keys_at().values() if keys.share is not None]
    assert all(memory.holds(share) for share in shares), "the watch sees what seats do hold"
    assert not memory.holds(key)


def test_the_watch_sees_a_process_that_puts_the_key_together(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(2, 3, seed=7)
    world.start()
    world.run(lambda: world.holds(1))
    key = private_key(world)
    with watched(monkeypatch) as memory:
        Secret(Scalar(key))
    assert memory.holds(key)
    assert not memory.holds((key + 1) % ORDER)


def test_p1_no_function_of_the_arithmetic_gives_the_constant_term_from_shares() -> None:
    """``evaluate`` refuses 0, and what interpolates at 0 does so in the exponent, or over dealers' sub-shares."""
    from signer_service.frost import sharing
    from signer_service.frost.errors import UnknownIdentifier

    polynomial = sharing.random_polynomial(Secret(Scalar(5)), 2, playbook.seed("polynomial", 64))
    with pytest.raises(UnknownIdentifier):
        polynomial.evaluate(Index(0))
    assert not [name for name in dir(sharing) if "recover" in name or "reconstruct" in name]
