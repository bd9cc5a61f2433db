"""Ceremonies that are played again and again from one beginning, each time with a death at another place.

An undisturbed run tells how often each seat comes by a place where its process may die: before and after each durable
write, and after each send (which is before the next). Then there is one run for each of these places; in the short form
one for each kind of place, now of one seat, now of another (``played``): seats of one role do the same things one after
another. A disk is written as the shell writes it: what was only read since the last write is lost with the process.

The fold is remembered between the runs: it is a pure function of what it is given, and what it is given is compared.
"""

import gc
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import combinations, product
from typing import Final

import pytest

from common import ed25519
from common.ids import Index, Offset, OpenId
from common.trust import check_key_record
from common.wire.messages import KeyRecord
from signer_service.frost import group
from signer_service.frost.group import ORDER, Scalar, base_mul
from signer_service.frost.sharing import lagrange_weights
from signer_service.protocol import ceremony
from signer_service.protocol.ceremony_disk import Durable
from signer_service.protocol.ceremony_state import CeremonyState
from signer_service.protocol.ceremony_view import alarms
from signer_service.protocol.findings import Folded
from signer_service.protocol.fold import fold
from signer_service.protocol.fold_commit import may_erase
from signer_service.protocol.log_state import LogState
from signer_service.protocol.log_wire import LogTrust
from tests import playbook
from tests.world import SimSeat, World, same_fold

LONG: Final = os.environ.get("CRASHES") == "all"
BEFORE: Final = "before"
"""Names the sharing that a case begins with; others are named by the attempt that they came from."""


# --- a beginning -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beginning:
    """A system at rest: what stands in the log, and what is on each disk."""

    threshold: int
    size: int
    now: int
    log: tuple[bytes, ...]
    disks: Mapping[int, Durable]
    record: KeyRecord


@cache
def beginning(threshold: int, size: int) -> Beginning:
    """A committee that has just made its key."""
    world = World(threshold, size, seed=threshold * 16 + size)
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(3_000)
    current = world.key().current
    assert current is not None
    disks = {index: seat.disk for index, seat in world.seats.items() if seat.disk is not None}
    return Beginning(threshold, size, world.now, tuple(world.log), disks, current.record)


@dataclass
class Shares:
    """Every share that ever was on any disk, by the attempt that it came from."""

    of: dict[str | OpenId, dict[int, Scalar]] = field(default_factory=dict)

    def __call__(self, seat: SimSeat, state: CeremonyState) -> None:
        mine = state.of_key(playbook.KEY)
        if mine.part is not None and mine.part.staged is not None:
            self.of.setdefault(mine.part.open_id, {})[seat.index] = mine.part.staged.share.expose()

    def begin(self, world: World) -> None:
        for index, seat in world.seats.items():
            for held in seat.state.of_key(playbook.KEY).held if seat.state is not None else ():
                self.of.setdefault(BEFORE, {})[index] = held.share.expose()

    def copy(self) -> "Shares":
        """For a branch of the world."""
        return Shares({name: dict(shares) for name, shares in self.of.items()})

    def mixed(self, threshold: int) -> Iterator[tuple[dict[str | OpenId, list[int]], Mapping[Index, Scalar]]]:
        """Each choice of ``threshold`` shares that are not all of one sharing."""
        seats = sorted({index for shares in self.of.values() for index in shares})
        for subset in combinations(seats, threshold):
            for names in product(self.of, repeat=threshold):
                chosen = {i: self.of[name].get(i) for i, name in zip(subset, names, strict=True)}
                shares = {Index(i): share for i, share in chosen.items() if share is not None}
                if len(set(names)) > 1 and len(shares) == threshold:
                    told = {name: [i for i, each in zip(subset, names, strict=True) if each == name] for name in names}
                    yield told, shares


def again(start: Beginning, seed: int = 0) -> tuple[World, Shares]:
    """A world that goes on from there, everybody up."""
    world = World(start.threshold, start.size, seed)
    world.lazy, world.now, world.log = True, start.now, list(start.log)
    for index, disk in start.disks.items():
        world.seats[index].disk = disk
    shares = Shares()
    world.watch = shares
    world.start()
    world.run_for(1_000)
    shares.begin(world)
    return world, shares


# --- cases -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One kind of ceremony. ``old`` (t, n) is the committee before it, None where there is no key yet."""

    name: str
    old: tuple[int, int] | None
    threshold: int
    seats: tuple[int, ...]
    lost: int = 0
    """The seat that has lost its disk, and is to be healed."""
    long: bool = False
    """Played only when asked for: it takes long."""

    @property
    def epoch(self) -> int:
        """The epoch that this ceremony is to reach, at least."""
        return 1 if self.old is None else 2

    def role(self, seat: int) -> str:
        """What this ceremony does to a seat."""
        if seat == self.lost:
            return "is healed"
        if seat not in self.seats:
            return "leaves"
        return "joins" if self.old is not None and seat > self.old[1] else "stays"

    def __str__(self) -> str:
        before = f"{self.old[0]} of {self.old[1]} to " if self.old is not None else ""
        return f"{self.name} {before}{self.threshold} of {len(self.seats)}"

    def world(self) -> tuple[World, Shares]:
        """Everything before the ceremony."""
        if self.old is None:
            world, shares = World(self.threshold, len(self.seats)), Shares()
            world.lazy, world.watch = True, shares
            return world, shares
        world, shares = again(beginning(*self.old))
        for index in set(self.seats) - set(world.seats):
            world.seats[index] = SimSeat(index, b"", f"seat {index}")
        return world, shares

    def bring_on(self, world: World) -> None:
        """What makes it begin."""
        if self.old is None:
            for index in world.seats:
                world.at(0, world.start, index)
        elif self.lost:
            world.lose_disk(self.lost)
            world.at(0, world.start, self.lost)
        elif (self.threshold, len(self.seats)) == self.old:
            for index in world.seats:
                world.at(0, world.ask_refresh, index)
        else:
            raw = world.house.roster(self.threshold, self.seats, version=2)
            for index, seat in world.seats.items():
                seat.roster = raw
                world.at(0, world.start if seat.life == 0 else world.read_roster, index)


def settled(world: World, case: Case, live: set[int]) -> bool:
    """Whether the seats that should hold a share all do, of one epoch, and nobody has anything left to do."""
    # A seat that dies for good before it asked to be healed leaves nothing to do.
    asked = not case.lost or case.lost in live or world.key().epoch > 1 or bool(world.key().heals)
    if not world.agrees(case.epoch if asked else 1, live):
        return False
    key = world.key()
    if key.current is None or key.attempt is not None or key.opens or key.heals.keys() & live:
        return False
    up = {index: seat.state for index, seat in world.seats.items() if seat.state is not None}
    if any(state.log.offset != len(world.log) - 1 for state in up.values()):
        return False
    if not may_erase(key.current):
        return True
    kept = {held.epoch for state in up.values() for held in state.of_key(playbook.KEY).held}
    return kept == {key.epoch} and not any(past.holders.keys() & up.keys() - set(past.erased) for past in key.past)


def check(world: World, case: Case, shares: Shares, live: set[int]) -> None:
    """One epoch, the same key, every t of the live holders sign, no mixture does; nobody was blamed."""
    current = world.key().current
    assert current is not None
    before = beginning(*case.old).record if case.old is not None else None
    check_key_record(current.record, playbook.public("operator"), topic=playbook.TOPIC, pinned=None, previous=before)
    group_key = before.public_key if before is not None else current.record.public_key
    assert current.record.public_key == group_key
    held = world.keys_at(seats=live)
    assert held.keys() == live
    assert {(keys.epoch, bytes(keys.public.group_key)) for keys in held.values()} == {(current.epoch, group_key)}
    playbook.every_subset_signs(held)
    for threshold in {case.threshold, case.old[0] if case.old is not None else case.threshold}:
        for told, mixture in shares.mixed(threshold):
            weights = lagrange_weights(tuple(mixture))
            secret = Scalar(sum(weights[i] * share for i, share in mixture.items()) % ORDER)
            assert secret == 0 or base_mul(secret) != group_key, f"shares of several epochs make the key: {told}"
    assert not world.blamed()
    assert not [name for seat in world.seats.values() if seat.state is not None for name in standing(seat.state)]
    same_fold(world)


def standing(state: CeremonyState) -> list[str]:
    """Alarms, but for the one that says that an old epoch is still held somewhere."""
    return [name for name in alarms(state) if not name.startswith("old-epoch")]


# --- playing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where the process of ``seat`` may die: the world just before, and the shares that were on disks by then."""

    name: str
    seat: int
    role: str
    what: str
    world: World
    shares: Shares

    @property
    def kind(self) -> tuple[object, ...]:
        """What makes a death here another one than elsewhere, apart from whose it is."""
        state = self.world.seats[self.seat].state
        assert state is not None
        key, mine = state.log.keys.get(playbook.KEY), state.of_key(playbook.KEY)
        staged = mine.part is not None and mine.part.staged is not None
        return (
            self.role,
            self.what,
            key.epoch if key is not None else None,
            key.attempt.phase if key is not None and key.attempt is not None else None,
            mine.part is not None,
            staged,
            tuple(held.epoch for held in mine.held),
        )

    @property
    def seen_by_others(self) -> bool:
        """Whether it matters to others that the seat came so far: if its disk is lost as well, only sends do."""
        return self.what in {"after ToLog", "after ToKeys"}


def asked_for(cases: Iterable[Case]) -> list[Case]:
    """The quick ones; with ``CRASHES=all`` in the environment the long ones too."""
    return [case for case in cases if not case.long or LONG]


def undisturbed(case: Case) -> Iterator[Place]:
    """Play it once, with nothing wrong; then yield each place where a process may die."""
    world, shares = case.world()
    points: deque[Place] = deque()
    count = dict.fromkeys(case.seats, 0)

    def note(seat: SimSeat, place: str) -> None:
        count[seat.index] = count.get(seat.index, 0) + 1
        if place == "after ToAudit":
            return  # No seat reads that topic: to die here is to die after the send before.
        name = f"{case.name}: seat {seat.index}, place {count[seat.index]}, {place}"
        branch, known = world.branch(), shares.copy()
        branch.watch = known
        points.append(Place(name, seat.index, case.role(seat.index), place, branch, known))

    world.on_point = note
    case.bring_on(world)
    until_settled(world, case, set(case.seats))
    world.run_for(1_500)
    assert settled(world, case, set(case.seats)), world.describe()
    check(world, case, shares, set(case.seats))
    assert world.key().epoch == case.epoch
    assert all(number > 10 for number in count.values()), count
    while points:
        yield points.popleft()


def played(places: Iterable[Place]) -> Iterator[Place]:
    """All of them with ``CRASHES=all`` in the environment; else one of each kind, of another seat from kind to kind."""
    if LONG:
        yield from places
        return
    kinds: dict[tuple[object, ...], list[Place]] = {}
    for place in places:
        kinds.setdefault(place.kind, []).append(place)
    for number, same in enumerate(kinds.values()):
        yield same[number % len(same)]


def until_settled(world: World, case: Case, live: set[int], name: str = "", limit_ms: int = 300_000) -> None:
    """Let time pass until everybody has come to rest."""
    end = world.now + limit_ms
    while not settled(world, case, live):
        assert world.now < end, f"{name}: not within {limit_ms} ms: {world.describe()}"
        world.run_for(200)


@contextmanager
def remembered() -> Iterator[None]:
    """Compute what was computed before only once: the fold, operations on points, and whether a signature verifies.

    All of them are pure; of the fold, what it is given is compared.
    """
    known: dict[tuple[bytes, Offset, bytes], tuple[LogState, Folded]] = {}

    def recall(state: LogState, offset: Offset, raw: bytes, trust: LogTrust) -> Folded:
        place = (state.running_hash, offset, raw)
        found = known.get(place)
        if found is None or (found[0] is not state and found[0] != state):
            found = known[place] = (state, fold(state, offset, raw, trust))
        return found[1]

    gc.collect()
    gc.disable()  # There is much, and none of it goes before the end.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ceremony, "fold", recall)
        for name in (
            "crypto_scalarmult_ed25519_noclamp",
            "crypto_scalarmult_ed25519_base_noclamp",
            "crypto_core_ed25519_add",
            "crypto_core_ed25519_is_valid_point",
        ):
            patch.setattr(group, name, lru_cache(maxsize=100_000)(getattr(group, name)))
        patch.setattr(ed25519, "verify", lru_cache(maxsize=100_000)(ed25519.verify))
        try:
            yield
        finally:
            gc.enable()
