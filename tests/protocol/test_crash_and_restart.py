"""A replica dies before and after each of its durable writes and each of its sends, one by one, and starts again.

Enumerated, not drawn by lot: an undisturbed ceremony tells all the places. Of each kind (what the seat is to the
ceremony, what it just did, in which phase, with which secrets) one is played, now of one seat, now of another;
``make crashes`` plays every place of every seat, and larger committees too.
"""

import pytest

from tests.protocol.crash_world import Case, asked_for, check, played, remembered, undisturbed, until_settled

CASES = (
    Case("generate", None, 2, (1, 2, 3)),
    Case("refresh", (2, 3), 2, (1, 2, 3)),
    Case("heal", (2, 3), 2, (1, 2, 3), lost=3),
    Case("grow", (2, 3), 2, (1, 2, 3, 4)),
    Case("shrink", (2, 3), 2, (1, 2)),
    Case("raise t", (2, 3), 3, (1, 2, 3)),
    Case("lower t", (3, 4), 2, (1, 2, 3, 4)),
    Case("generate", None, 3, (1, 2, 3, 4, 5), long=True),
    Case("refresh", (3, 4), 3, (1, 2, 3, 4), long=True),
    Case("refresh", (3, 5), 3, (1, 2, 3, 4, 5), long=True),
    Case("heal", (3, 5), 3, (1, 2, 3, 4, 5), lost=2, long=True),
    Case("raise t", (2, 4), 3, (1, 2, 3, 4), long=True),
    Case("shrink and lower t", (3, 5), 2, (1, 2, 4), long=True),
)


@pytest.mark.parametrize("case", asked_for(CASES), ids=str)
def test_a_crash_at_any_place_ends_in_one_epoch_of_the_same_key(case: Case) -> None:
    everybody = set(case.seats)
    with remembered():
        for place in played(undisturbed(case)):
            place.world.crash(place.seat)
            until_settled(place.world, case, everybody, place.name)
            check(place.world, case, place.shares, everybody)


@pytest.mark.parametrize("case", asked_for(each for each in CASES if each.long or each.name == "refresh"), ids=str)
def test_a_seat_that_comes_back_when_all_is_over_finds_its_place(case: Case) -> None:
    everybody = set(case.seats)
    with remembered():
        for place in played(undisturbed(case)):
            place.world.stop(place.seat)
            place.world.run_for(60_000)
            place.world.start(place.seat)
            until_settled(place.world, case, everybody, place.name)
            check(place.world, case, place.shares, everybody)
