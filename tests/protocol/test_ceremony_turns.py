"""One bad seat among those that have no share must not keep the others from ever getting one."""

from collections.abc import Iterable

from common.ids import Epoch, Index
from common.wire.messages import Announce, CeremonyRecord, HealRequest
from tests import playbook
from tests.protocol.crash_world import again, beginning
from tests.world import World


def test_a_seat_that_asks_to_be_healed_and_does_nothing_else_keeps_nobody_from_being_healed() -> None:
    # 3-of-5: three that hold a share, one that went silent, and one without: a commit takes four.
    world, _ = again(beginning(3, 5))
    world.lose_disk(5)
    world.say(4, HealRequest(playbook.KEY, Epoch(1)))
    world.stop(4)
    world.start(5)
    world.run(lambda: world.agrees(2, (1, 2, 3, 5)))
    playbook.every_subset_signs(world.keys_at(seats=(1, 2, 3, 5)))


def test_of_two_seats_to_be_healed_each_has_its_turn() -> None:
    world, _ = again(beginning(3, 5))
    for index in (4, 5):
        world.lose_disk(index)
    world.start(4, 5)
    world.run(lambda: world.agrees(3))
    playbook.every_subset_signs(world.keys_at())


def test_a_newcomer_that_announces_and_does_nothing_else_keeps_no_other_from_joining() -> None:
    # To 3-of-5: the three of before and one of two newcomers. The bad one is always faster, where it may come at all.
    world, _ = again(beginning(2, 3))
    world.give_roster(world.house.roster(3, range(1, 6), version=2))

    def slower(record: CeremonyRecord, world: World) -> Iterable[CeremonyRecord]:
        attempt = world.key().attempt
        races = attempt is not None and 4 in attempt.newcomers and 4 not in attempt.announced
        return [] if isinstance(record, Announce) and races else [record]

    world.seats[4].tamper = lambda record, _: [record] if isinstance(record, Announce) else []
    world.seats[5].tamper = slower
    world.start(4, 5)
    world.run(lambda: world.agrees(2, (1, 2, 3, 5)))
    assert Index(4) not in world.keys_at()
    playbook.every_subset_signs(world.keys_at(seats=(1, 2, 3, 5)))


def test_a_ceremony_that_replaces_dead_machines_ends_although_another_one_dies_in_it() -> None:
    # 3-of-5, two dead and replaced. A vote takes four, and of those that held the key only three are left.
    world, _ = again(beginning(3, 5))
    world.lose_disk(4)
    world.lose_disk(5)
    world.give_roster(world.house.roster(3, (1, 2, 3, 6, 7), version=2))
    world.start(6)
    world.run(lambda: (attempt := world.key().attempt) is not None and 6 in attempt.announced)
    world.lose_disk(6)
    world.start(7)
    world.run(lambda: world.agrees(2, (1, 2, 3, 7)))
    playbook.every_subset_signs(world.keys_at(seats=(1, 2, 3, 7)))
