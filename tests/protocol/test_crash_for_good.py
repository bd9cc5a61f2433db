"""A replica is lost for good, disk and all, after each of its sends, one by one; then another machine takes its place.

What such a replica wrote to its disk makes no difference to anybody: only what it sent does. Of each kind of place one
is played, as in ``test_crash_and_restart``; ``make crashes`` plays all.
"""

from collections.abc import Iterator
from itertools import permutations

import pytest

from common.ids import Index
from common.wire.messages import Ready
from signer_service.protocol.log_state import Committee
from tests import playbook
from tests.protocol.crash_world import (
    LONG,
    Case,
    Place,
    again,
    asked_for,
    beginning,
    check,
    played,
    remembered,
    settled,
    undisturbed,
    until_settled,
)

CASES = (
    Case("generate", None, 2, (1, 2, 3)),
    Case("refresh", (2, 3), 2, (1, 2, 3)),
    Case("heal", (2, 4), 2, (1, 2, 3, 4), lost=4),
    Case("grow", (2, 3), 2, (1, 2, 3, 4)),
    Case("shrink", (2, 4), 2, (1, 2, 3)),
    Case("lower t", (3, 4), 2, (1, 2, 3, 4)),
    Case("raise t", (2, 4), 3, (1, 2, 3, 4), long=True),
    Case("refresh", (3, 5), 3, (1, 2, 3, 4, 5), long=True),
    Case("heal", (3, 5), 3, (1, 2, 3, 4, 5), lost=2, long=True),
)


def losses(case: Case) -> Iterator[Place]:
    """Each place where it makes a difference to the others that the seat came so far."""
    begun: set[int] = set()
    for place in undisturbed(case):
        if place.seen_by_others or place.seat not in begun:
            begun.add(place.seat)
            yield place


@pytest.mark.parametrize("case", asked_for(CASES), ids=str)
def test_a_seat_lost_for_good_at_any_place_costs_no_key_and_can_be_replaced(case: Case) -> None:
    with remembered():
        for place in played(losses(case)):
            world, others = place.world, set(case.seats) - {place.seat}
            world.lose_disk(place.seat)
            if case.old is not None:
                until_settled(world, case, others, place.name)
                check(world, case, place.shares, others)
            # A key generation needs all n: there the others wait, and nothing is at stake yet.
            if place.seat in case.seats:
                world.start(place.seat)
                until_settled(world, case, set(case.seats), place.name)
                check(world, case, place.shares, set(case.seats))


@pytest.mark.parametrize(("threshold", "size"), [(2, 4), (3, 5)])
def test_seats_that_say_ready_and_go_silent_cost_no_key(threshold: int, size: int) -> None:
    # The worst that q allows for: one seat is away all along, and floor((n-t)/2) of those that said Ready are gone.
    committee = Committee(threshold, dict.fromkeys(map(Index, beginning(threshold, size).disks), b""))
    assert (size - threshold) // 2 == 1
    assert committee.commit_quorum == size - 1
    case = Case("refresh", (threshold, size), threshold, tuple(range(1, size + 1)))
    with remembered():
        # Of five seats each is away once and silent once; every pair where the long form is asked for.
        ring = [(seat, seat % size + 1) for seat in case.seats]
        for away, silent in permutations(case.seats, 2) if size < 5 or LONG else ring:
            world, shares = again(beginning(threshold, size))
            world.stop(away)
            rest = set(case.seats) - {away, silent}

            def goes_silent(record: object, _: object, seat: int = silent) -> list[object]:
                world.at(1, world.lose_disk, seat) if isinstance(record, Ready) else None  # noqa: B023
                return [record]

            world.seats[silent].tamper = goes_silent  # type: ignore[assignment]
            case.bring_on(world)
            world.run_for(15_000)
            assert world.seats[silent].state is None
            held = world.keys_at(seats=rest)
            assert {index: keys.epoch for index, keys in held.items()} == dict.fromkeys(rest, 2)
            assert len(rest) >= threshold
            playbook.every_subset_signs(held)
            # The seat that was away is healed: with it there are q again, and the key goes on without the silent one.
            world.start(away)
            until_settled(world, case, rest | {away}, f"{away} away, {silent} silent")
            check(world, case, shares, rest | {away})
            assert settled(world, case, rest | {away})
