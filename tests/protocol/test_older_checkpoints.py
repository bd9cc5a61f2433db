"""A roster that goes on from an older epoch than a seat holds: refused while it runs, told where it came by the log,
and where going back was meant a way for each seat."""

import pytest

from common.errors import BadInput
from common.wire import codec
from common.wire.messages import KeyRecord
from signer_service.protocol import remedy
from signer_service.protocol.ceremony_alarms import shares_ahead
from signer_service.protocol.ceremony_state import CeremonyState, KeyCopySeen
from signer_service.protocol.ceremony_view import alarms
from tests import playbook
from tests.protocol.crash_world import again, beginning
from tests.protocol.test_lying_broker import Broker, current, held
from tests.protocol.test_new_generations import next_log, refresh
from tests.world import World


def state_of(world: World, index: int) -> CeremonyState:
    state = world.seats[index].state
    assert state is not None
    return state


def refused(world: World, index: int) -> list[object]:
    """Codes of the roster alarms that this seat has told."""
    return [note.fields["code"] for note in world.seats[index].notes if note.name == "roster-alarm"]


def forked_after_a_refresh() -> tuple[World, KeyRecord, KeyRecord]:
    """Everybody is at epoch 2 and has erased epoch 1; then the broker shows seat 3 another log."""
    world, _ = again(beginning(2, 3))
    old = current(world, 1).record
    refresh(world)
    new = current(world, 1).record
    assert held(world) == {1: {2}, 2: {2}, 3: {2}}
    world.shown[3] = list(world.log)
    world.log.append(b"a")
    world.shown[3].append(b"b")
    world.run_for(30_000)
    for index in world.seats:
        world.ask_refresh(index)
    world.run_for(30_000)
    assert all(alarms(state_of(world, index)) for index in world.seats)
    del world.shown[3]
    world.generation = 2
    return world, old, new


def next_roster(world: World, record: KeyRecord, version: int = 2) -> bytes:
    return world.house.roster(2, (1, 2, 3), version=version, log_generation=2, checkpoints=(codec.encode(record),))


# --- while it runs ---------------------------------------------------------------------------------------------------


def test_a_roster_file_that_would_go_back_behind_the_shares_is_not_taken_while_running_and_signing_goes_on() -> None:
    world, old, new = forked_after_a_refresh()
    world.give_roster(next_roster(world, old))
    world.run_for(5_000)
    assert [refused(world, index) for index in world.seats] == [["checkpoint"]] * 3
    assert {keys.epoch for keys in world.keys_at().values()} == {2}
    playbook.every_subset_signs(world.keys_at())
    # What was refused stands in no way of the right one.
    world.give_roster(next_roster(world, new, version=3))
    world.run_for(5_000)
    refresh(world)
    assert [alarms(state_of(world, index)) for index in world.seats] == [()] * 3


def test_a_seat_without_a_share_does_not_bring_others_a_roster_that_goes_back_behind_what_it_read() -> None:
    world, old, _ = forked_after_a_refresh()
    world.lose_disk(3)
    world.start(3)
    world.run_for(2_000)
    assert held(world)[3] == set()
    world.give_roster(next_roster(world, old))
    world.run_for(5_000)
    assert refused(world, 3) == ["checkpoint"]
    playbook.every_subset_signs(world.keys_at(seats=(1, 2)))


def test_a_seat_whose_share_is_newer_than_what_the_log_went_back_to_says_so_for_as_long_as_it_is_so() -> None:
    world, old, new = forked_after_a_refresh()
    raw = next_roster(world, old)
    # A seat that has nothing, and never read the old log, brings it.
    world.say(1, codec.decode_ceremony(raw))
    world.run_for(5_000)
    assert not world.keys_at()
    for index in world.seats:
        assert shares_ahead(state_of(world, index)) == (playbook.KEY,)
    # The copy of the newer epoch is all that is left of it for who looks for it: nobody writes over it.
    for index, seat in world.seats.items():
        seat.published.clear()
        world.feed(index, KeyCopySeen(playbook.KEY, new))
    world.run_for(2 * world.timing.republish_ms)
    assert [seat.published for seat in world.seats.values()] == [[], [], []]
    world.give_roster(world.house.roster(2, (1, 2, 3), version=3, log_generation=3, checkpoints=(codec.encode(new),)))
    world.run_for(5_000)
    assert not any(shares_ahead(state_of(world, index)) for index in world.seats)
    playbook.every_subset_signs(world.keys_at())


# --- going back was meant --------------------------------------------------------------------------------------------


def test_a_seat_that_holds_no_share_starts_whatever_epoch_it_once_read_of() -> None:
    world, _ = again(beginning(2, 3))
    old = beginning(2, 3).record
    world.stop(3)
    for epoch in (2, 3):
        for index in (1, 2):
            world.ask_refresh(index)
        world.run(lambda epoch=epoch: world.agrees(epoch, (1, 2)))  # type: ignore[misc]
        world.run_for(3_000)
    world.lose_disk(2)
    world.start(3)
    world.run_for(2_000)
    world.start(2)
    world.run_for(2_000)
    assert held(world) == {1: {1, 3}, 2: set(), 3: {1}}
    back = next_log(world, old)
    back.start()
    back.run(lambda: back.holds(2), 3_000_000)


def test_a_share_that_was_only_staged_refuses_no_checkpoint() -> None:
    """The ceremony in which seat 3 was to be healed never ended, and the log is gone: epoch 1 is the newest."""
    world, _ = again(beginning(2, 3))
    healing(world)
    assert held(world)[3] == set()
    back = next_log(world, beginning(2, 3).record)
    back.start()
    back.run(lambda: back.holds(2), 3_000_000)


def test_a_seat_that_alone_has_the_newer_share_is_told_both_ways_out_and_the_second_one_works() -> None:
    world, _ = again(beginning(2, 3))
    broker = healing(world)
    broker.split((1, 2))
    world.run_for(5_000)
    assert held(world) == {1: {1}, 2: {1}, 3: {2}}
    back = next_log(world, beginning(2, 3).record)
    back.start(1, 2)
    back.run_for(5_000)
    with pytest.raises(BadInput, match="--epoch") as caught:
        back.start(3)
    assert (caught.value.code, caught.value.detail.endswith(remedy.CHECKPOINT)) == ("checkpoint", True)
    playbook.every_subset_signs(back.keys_at(seats=(1, 2)))
    back.lose_disk(3)
    back.start(3)
    back.run(lambda: back.holds(2), 3_000_000)
    playbook.every_subset_signs(back.keys_at())


def healing(world: World) -> Broker:
    """Seat 3 has lost its disk; all have staged what heals it, and nobody has seen the commit."""
    world.lose_disk(3)
    world.run_for(1_000)
    broker = Broker(world)
    for index, seat in world.seats.items():
        seat.tamper = lambda record, _, index=index: broker.keep_back(index, record)
    world.start(3)
    world.run(lambda: len(broker.commits) > 0 and len(broker.votes) == len(world.seats), 3_000_000)
    return broker


# --- a roster that is no successor -----------------------------------------------------------------------------------


def test_a_file_of_a_newer_log_whose_version_is_not_above_the_logs_is_an_alarm_and_no_endless_wait() -> None:
    world, _ = again(beginning(2, 3))
    record = current(world, 1).record
    world.give_roster(world.house.roster(2, (1, 2, 3), version=3))
    world.run_for(3_000)
    raw, world.generation = next_roster(world, record, version=2), 2
    for index, seat in world.seats.items():
        seat.roster = raw
        world.stop(index)
        world.start(index)
        world.run_for(2_000)
    for index in world.seats:
        assert refused(world, index) == ["roster-generation"]
        assert not state_of(world, index).awaits_new_log
    refresh(world)


def test_who_waits_for_the_roster_of_a_newer_log_says_so_while_he_does() -> None:
    world, _ = again(beginning(2, 3))
    record = current(world, 1).record
    for seat in world.seats.values():
        seat.tamper = lambda *_: []
    world.give_roster(next_roster(world, record))
    world.run_for(1_000)
    assert [alarms(state_of(world, index)) for index in world.seats] == [("awaits-new-log",)] * 3
    for seat in world.seats.values():
        seat.tamper = None
    world.run_for(3_000)
    assert [alarms(state_of(world, index)) for index in world.seats] == [()] * 3
