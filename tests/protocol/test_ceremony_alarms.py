"""What a person has to look at although signing goes on: it stands while it is so, and no longer."""

from dataclasses import replace

import pytest

from common.ids import Index, Instant, Offset
from common.wire.messages import Presence, RefusalCode, ReplicaState
from signer_service.protocol.ceremony_alarms import differing, old_epochs_held, overdue, unreachable
from signer_service.protocol.ceremony_opening import refusal
from signer_service.protocol.ceremony_state import CeremonyState
from signer_service.protocol.ceremony_view import alarms, status
from signer_service.protocol.refresh_decision import decide_refresh
from signer_service.protocol.roster_step import refuse_step
from tests import playbook
from tests.protocol.crash_world import again, beginning
from tests.world import World


def state_of(world: World, index: int = 1) -> CeremonyState:
    state = world.seats[index].state
    assert state is not None
    return state


def beat_of(state: CeremonyState) -> Presence:
    return Presence(Instant(1), 1, Instant(1), ReplicaState.READY, False, 1, (), 0, 0, 0, status(state), 0)


def test_an_old_epoch_is_held_and_can_be_stolen_until_enough_have_the_new_one() -> None:
    world, _ = again(beginning(2, 3))
    assert not old_epochs_held(state_of(world))
    world.stop(3)
    for index in (1, 2):
        world.ask_refresh(index)
    world.run(lambda: world.agrees(2, (1, 2)))
    # While sessions of the old epoch drain it has to be there.
    assert not old_epochs_held(state_of(world))
    world.run_for(2_000)
    for index in (1, 2):
        assert old_epochs_held(state_of(world, index)) == (playbook.KEY,)
        assert "old-epoch-not-erased/default" in alarms(state_of(world, index))
    world.start(3)
    world.run(lambda: world.agrees(3))
    world.run_for(3_000)
    for index in world.seats:
        assert not old_epochs_held(state_of(world, index))
        assert not alarms(state_of(world, index))


def test_an_erased_that_is_missing_is_an_alarm_and_names_no_epoch_that_is_safe() -> None:
    world, _ = again(beginning(2, 3))
    silent = {2, 3}
    for index in silent:
        world.seats[index].tamper = lambda record, _: [] if type(record).__name__ == "Erased" else [record]
    world.ask_refresh(1)
    world.run(lambda: world.agrees(2))
    world.run_for(3_000)
    # They have erased, and nobody can know: two of three may still have theirs.
    assert "old-epoch-not-erased/default" in alarms(state_of(world))
    world.seats[2].tamper = None
    world.run_for(3_000)
    assert not alarms(state_of(world))


def test_a_refresh_is_overdue_when_none_came_long_after_it_was_due() -> None:
    world, _ = again(beginning(2, 3))
    state = state_of(world)
    interval = state.timing.refresh_interval_ms
    begun = state.committed[playbook.KEY]
    assert not overdue(state, Instant(begun + interval))
    assert not overdue(state, Instant(begun + interval * 6 // 5))
    assert overdue(state, Instant(begun + interval * 6 // 5 + 1)) == (playbook.KEY,)
    early = replace(state, soft=replace(state.soft, caught_up=False))
    assert not overdue(early, Instant(begun + 10 * interval))


def test_a_seat_that_folded_the_same_log_to_something_else_is_named() -> None:
    world, _ = again(beginning(2, 3))
    state = state_of(world)
    same = {Index(i): beat_of(state_of(world, i)) for i in (2, 3)}
    assert same[Index(2)].keys[0].fold_offset == state.log.offset
    assert not differing(state.log, same)
    flipped = bytes([state.log.running_hash[0] ^ 1]) + state.log.running_hash[1:]

    def lies(offset: int, fold_hash: bytes) -> dict[Index, Presence]:
        beat = same[Index(3)]
        key = replace(beat.keys[0], fold_offset=Offset(offset), fold_hash=fold_hash)
        return {**same, Index(3): replace(beat, keys=(key,))}

    assert differing(state.log, lies(state.log.offset, flipped)) == (3,)
    # An earlier place is compared with what this seat had there.
    assert differing(state.log, lies(state.log.offset - 3, state.log.running_hash)) == (3,)
    # Of what is ahead, or before all that is kept, nothing can be said.
    assert not differing(state.log, lies(state.log.offset + 1, flipped))
    assert not differing(state.log, lies(-1, b""))
    assert not differing(replace(state.log, window=state.log.window[-32:]), lies(state.log.offset - 3, flipped))


def test_a_roster_that_no_ceremony_can_reach_opens_none_and_says_why() -> None:
    world, _ = again(beginning(2, 3))
    world.give_roster(world.house.roster(2, range(1, 7), version=2))
    world.start(4, 5, 6)
    world.run_for(60_000)
    key = world.key()
    assert (key.epoch, key.ended, key.attempt, key.opens) == (1, 0, None, ())
    for index in (1, 2, 3):
        reasons = unreachable(state_of(world, index))
        assert "2 of 6 starts with 5 seats" in reasons[playbook.KEY]
    assert refusal(state_of(world), playbook.KEY, Instant(world.now)) is RefusalCode.REFRESH_UNAVAILABLE
    raw = playbook.refresh_request(playbook.KEY, world.now)
    assert "smaller steps" in decide_refresh(state_of(world), playbook.KEY, raw, Instant(world.now)).detail  # type: ignore[union-attr]
    playbook.every_subset_signs(world.keys_at(seats=(1, 2, 3)))
    # A smaller step is a newer roster; then the rest of the way.
    for version, size in ((3, 4), (4, 6)):
        world.give_roster(world.house.roster(2, range(1, size + 1), version=version))
        world.run(lambda size=size: world.agrees(2, range(1, size + 1)))  # type: ignore[misc]
        assert not unreachable(state_of(world))
        world.run_for(3_000)
    assert world.keys_at()[6].public.group_key == beginning(2, 3).record.public_key
    playbook.every_subset_signs(world.keys_at())
    assert not world.blamed()


def test_a_roster_that_replaces_too_many_machines_at_once_opens_nothing() -> None:
    world, _ = again(beginning(2, 3))
    names = {2: "new seat 2", 3: "new seat 3"}
    world.give_roster(world.house.roster(2, (1, 2, 3), version=2, names=names))
    world.run_for(30_000)
    assert world.key().attempt is None
    assert world.key().epoch == 1
    assert "it would be lost" in unreachable(state_of(world))[playbook.KEY]


@pytest.mark.parametrize(
    ("old", "new", "reached"),
    [
        ((2, 3), (2, 4), True),
        ((2, 3), (2, 5), True),
        ((2, 3), (3, 5), True),
        ((2, 3), (2, 6), False),
        ((2, 3), (5, 5), False),
        ((3, 5), (2, 3), True),
        ((3, 5), (3, 7), True),
        ((3, 5), (5, 7), True),
        ((3, 5), (7, 10), False),
        ((7, 10), (2, 2), True),
    ],
)
def test_a_step_is_one_newcomer_to_the_q_of_the_new_committee(
    old: tuple[int, int], new: tuple[int, int], reached: bool
) -> None:
    holders = {Index(i): playbook.public(f"seat {i}") for i in range(1, old[1] + 1)}
    wanted = {Index(i): playbook.public(f"seat {i}") for i in range(1, new[1] + 1)}
    assert (refuse_step(playbook.KEY, old[0], holders, new[0], wanted) == "") is reached
