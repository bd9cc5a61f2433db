"""Key generation on the ceremony log, under a network that loses, repeats, reorders and forges, with crashes."""

from dataclasses import replace

import pytest

from common.errors import BadInput
from common.ids import KeyId
from common.trust import check_key_record
from common.wire.messages import Announce, CeremonyRecord, Open, Phase, Roster
from tests import playbook
from tests.world import CALM, HOSTILE, World, same_fold


def announces_only(record: CeremonyRecord, _: World) -> list[CeremonyRecord]:
    """A seat that dies after its Announce."""
    return [record] if isinstance(record, Roster | Open | Announce) else []


def ends_well(world: World) -> None:
    """One epoch, one key, at every seat; every t of them sign; anybody can check the record."""
    for key in world.keys:
        held = world.keys_at(key)
        assert held.keys() == set(world.seats)
        assert {(keys.epoch, keys.public.group_key) for keys in held.values()} == {
            (1, held[1].public.group_key),
        }
        assert len({keys.scope for keys in held.values()}) == 1
        playbook.every_subset_signs(held)
        record = world.key(key).current
        assert record is not None
        check_key_record(record.record, playbook.public("operator"), topic=playbook.TOPIC, pinned=None, previous=None)
    same_fold(world)


@pytest.mark.parametrize("seed", range(5))
def test_two_of_three_seats_end_in_one_epoch_whatever_the_network_does(seed: int) -> None:
    world = World(2, 3, seed, HOSTILE)
    world.start()
    world.run(lambda: world.holds(1))
    world.weather = CALM
    world.run_for(5_000)
    ends_well(world)
    for index in world.seats:
        world.stop(index)
    world.start()
    world.run_for(5_000)
    ends_well(world)


@pytest.mark.parametrize("seed", range(2))
def test_three_of_five_seats_end_in_one_epoch_whatever_the_network_does(seed: int) -> None:
    world = World(3, 5, seed, HOSTILE)
    world.start()
    world.run(lambda: world.holds(1))
    world.weather = CALM
    world.run_for(5_000)
    ends_well(world)


def test_each_key_of_the_roster_gets_a_key_of_its_own() -> None:
    world = World(2, 3, 7, replace(HOSTILE, crash=0.0), keys=("default", "other", "third"))
    world.start()
    world.run(lambda: all(world.holds(1, key=key) for key in world.keys))
    world.weather = CALM
    world.run_for(3_000)
    ends_well(world)
    assert len({world.keys_at(key)[1].public.group_key for key in world.keys}) == 3


def test_the_smallest_committee_needs_both_seats() -> None:
    world = World(2, 2)
    world.start()
    world.run(lambda: world.holds(1))
    ends_well(world)


def test_key_generation_waits_for_every_seat_and_ends_nothing_meanwhile() -> None:
    world = World(2, 3)
    world.start(1, 2)
    world.run_for(60_000)
    attempt = world.key().attempt
    assert attempt is not None
    assert (attempt.phase, attempt.number) == (Phase.ANNOUNCE, 1)
    world.start(3)
    world.run(lambda: world.holds(1))
    ends_well(world)


def test_a_seat_that_dies_after_its_announce_costs_an_attempt_and_no_more() -> None:
    world = World(2, 3)
    world.seats[3].tamper = announces_only
    world.start()
    world.run(lambda: world.key().ended == 1)
    world.seats[3].tamper = None
    world.run(lambda: world.holds(1))
    ends_well(world)


def test_a_failed_attempt_leaves_no_secret_behind() -> None:
    world = World(2, 3)
    world.seats[3].tamper = announces_only
    world.start()
    world.run(lambda: world.key().ended == 1)
    world.run_for(100)
    for seat in world.seats.values():
        assert seat.state is not None
        part = seat.state.of_key(playbook.KEY).part
        assert part is None or part.open_id == getattr(world.key().attempt, "open_id", None)
        assert not seat.state.of_key(playbook.KEY).held


def test_a_key_that_the_roster_pins_is_never_generated_again() -> None:
    # The log was lost: another key under the same name would be a fraud, and the old one would be forgotten.
    world = World(2, 3)
    raw = world.house.roster(2, (1, 2, 3), pins={playbook.KEY: playbook.public("some group key")})
    for seat in world.seats.values():
        seat.roster = raw
    world.start()
    world.run_for(30_000)
    assert world.key().attempt is None
    assert not world.key().opens


def test_a_seat_that_held_a_share_never_joins_another_generation_of_that_key() -> None:
    first = World(2, 3)
    first.start()
    first.run(lambda: first.holds(1))
    first.run_for(3_000)
    again = World(2, 3, seed=1)
    disk = first.seats[2].disk
    assert disk is not None
    # The log is empty again, and the roster says so.
    raw = again.house.roster(2, (1, 2, 3), version=2, log_generation=2)
    for seat in again.seats.values():
        seat.roster = raw
    again.seats[2].disk = disk
    again.generation = 2
    again.start()
    again.run_for(30_000)
    assert not again.keys_at()
    state = again.seats[2].state
    assert state is not None
    assert state.of_key(playbook.KEY).ever_held
    assert KeyId("default") in state.secrets


def test_every_seat_publishes_a_copy_when_the_lowest_does_not() -> None:
    world = World(2, 3)
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(2_000)
    copies = {record for seat in world.seats.values() for record in seat.published}
    assert len(copies) == 1
    assert all(seat.published for seat in world.seats.values())


def test_a_share_file_of_no_use_is_refused_by_name() -> None:
    world = World(2, 3)
    world.start()
    world.run(lambda: world.holds(1))
    other = world.seats[2].disk
    assert other is not None
    mine = world.seats[1].disk
    assert mine is not None
    world.seats[1].disk = replace(mine, secrets=other.secrets)
    with pytest.raises(BadInput, match=r"seat 1, key default, epoch 1 .*put the right file back"):
        world.start(1)
