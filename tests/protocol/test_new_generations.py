"""The operator goes on with another log, or settles a fork: what seats do with the shares that they come with."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from common.errors import BadInput
from common.ids import Epoch, Index
from common.secret import Secret
from common.wire import codec
from common.wire.messages import CeremonyRecord, KeyRecord
from signer_service.frost.group import ORDER, Scalar, base_mul
from signer_service.protocol.ceremony_disk import durable, restore
from signer_service.protocol.ceremony_state import HeldShare, KeySecrets
from signer_service.protocol.ceremony_view import alarms
from tests import playbook
from tests.audit.logs import audited
from tests.protocol.crash_world import again, beginning
from tests.protocol.test_lying_broker import Broker, current, held
from tests.world import World


def next_log(world: World, record: KeyRecord, generation: int = 2) -> World:
    """An empty log that goes on from ``record``, and the disks of ``world`` before it. Nobody has begun yet."""
    size, threshold = len(world.seats), record.threshold
    fresh = World(threshold, size, seed=9)
    fresh.generation, fresh.now = generation, world.now
    raw = fresh.house.roster(
        threshold,
        range(1, size + 1),
        version=generation,
        log_generation=generation,
        checkpoints=(codec.encode(record),),
    )
    for index, seat in fresh.seats.items():
        seat.roster, seat.disk = raw, world.seats[index].disk
    return fresh


def refresh(world: World) -> None:
    epoch = world.key().epoch
    for index in world.seats:
        world.ask_refresh(index)
    world.run(lambda: world.agrees(epoch + 1))
    world.run_for(3_000)


def secrets_of(world: World, index: int) -> KeySecrets:
    state = world.seats[index].state
    assert state is not None
    return state.of_key(playbook.KEY)


# --- a checkpoint that is too old ------------------------------------------------------------------------------------


def test_a_log_that_would_go_on_from_an_epoch_that_was_erased_is_refused_with_both_epochs_and_the_way_out() -> None:
    world, _ = again(beginning(2, 3))
    old = current(world, 1).record
    refresh(world)
    new = current(world, 1).record
    assert held(world) == {1: {2}, 2: {2}, 3: {2}}
    behind = next_log(world, old)
    for index in behind.seats:
        with pytest.raises(BadInput, match=r"goes on from epoch 1 of key default.* at epoch 2 .*key-records") as caught:
            behind.start(index)
        assert caught.value.code == "checkpoint"
        assert "delete and move nothing" in caught.value.detail
    ahead = next_log(world, new, generation=3)
    ahead.start()
    ahead.run(lambda: ahead.holds(2))


def test_a_log_that_goes_on_from_an_older_epoch_whose_share_was_kept_is_taken() -> None:
    """A commit that only one has seen leads nowhere: the operator has to be able to go back."""
    world, _ = again(beginning(2, 3))
    broker = Broker(world)
    broker.refresh()
    broker.split((2, 3))
    world.run_for(5_000)
    assert held(world) == {1: {1, 2}, 2: {1}, 3: {1}}
    forward = next_log(world, broker.records[0])
    forward.start()
    forward.run_for(10_000)
    assert set(forward.keys_at()) == {1}, "two have lost what they had staged"
    back = next_log(forward, beginning(2, 3).record, generation=3)
    back.start()
    back.run(lambda: back.holds(1))
    back.run_for(1_000)
    refresh(back)
    playbook.every_subset_signs(back.keys_at())
    # The share of epoch 2 of before is not the one that counts, and has not kept it from being stored.
    assert {len(secrets_of(back, index).held) for index in (2, 3)} == {1}
    for index in back.seats:
        back.stop(index)
    back.start()
    back.run(lambda: back.agrees(2))


# --- shares of another history ---------------------------------------------------------------------------------------


def with_foreign_secrets(foreign: Callable[[KeySecrets], KeySecrets]) -> World:
    """A new log to which seat 3 comes with secrets of another history: ``foreign`` of its own. Nobody has begun yet."""
    world, _ = again(beginning(2, 3))
    broker = Broker(world)
    broker.refresh()
    world.log.append(broker.commits[0])
    broker.mute()
    state = world.seats[3].state
    assert state is not None
    forked = durable(replace(state, secrets={playbook.KEY: foreign(secrets_of(world, 3))}))
    world.run_for(3_000)
    fresh = next_log(world, broker.records[0])
    fresh.seats[3].disk = forked
    return fresh


def test_a_staged_share_that_is_not_the_committed_one_is_dropped_and_the_next_start_works() -> None:
    def staged(mine: KeySecrets) -> KeySecrets:
        assert mine.part is not None
        assert mine.part.staged is not None
        other = Scalar(mine.part.staged.share.expose() * 7 % ORDER)
        share = HeldShare(mine.part.staged.epoch, Secret(other), bytes(base_mul(other)))
        return replace(mine, part=replace(mine.part, staged=share))

    fresh = with_foreign_secrets(staged)
    fresh.start()
    fresh.run_for(2_000)
    assert held(fresh)[3] == {1}
    assert secrets_of(fresh, 3).part is None
    fresh.stop(3)
    fresh.start(3)
    fresh.run(lambda: fresh.agrees(3))


def test_a_held_share_of_another_history_stays_beside_the_committed_one_of_its_number() -> None:
    other = HeldShare(Epoch(2), Secret(Scalar(7)), bytes(base_mul(Scalar(7))))
    fresh = with_foreign_secrets(lambda mine: replace(mine, held=(*mine.held, other)))
    fresh.start()
    fresh.run(lambda: fresh.holds(2))
    assert secrets_of(fresh, 3).find(Epoch(2), other.verification_share) is not None
    fresh.stop(3)
    fresh.start(3)
    fresh.run(lambda: fresh.holds(2))
    playbook.every_subset_signs(fresh.keys_at())


# --- old records on a new log ----------------------------------------------------------------------------------------


def nothing(_: World) -> list[bytes]:
    return []


def an_old_roster(world: World) -> list[bytes]:
    return world.log[:1]


def all_of_the_old_log(world: World) -> list[bytes]:
    return list(world.log)


@pytest.mark.parametrize("first", [nothing, an_old_roster, all_of_the_old_log])
@pytest.mark.parametrize(("threshold", "size"), [(2, 3), (3, 5)])
def test_old_records_on_a_new_log_cost_nobody_the_share_that_its_checkpoint_counts_on(
    threshold: int, size: int, first: Callable[[World], list[bytes]]
) -> None:
    """The commit was shown to seat 1 alone: the others have their shares of it staged. The operator goes on from it;
    but anybody may write to the new log before the seats do."""
    world, _ = again(beginning(threshold, size))
    broker = Broker(world)
    broker.refresh()
    before = list(world.log)
    for index in range(2, size + 1):
        world.shown[index] = before
    world.log.append(broker.commits[0])
    broker.mute()
    world.run_for(3_000)
    fresh = next_log(world, broker.records[0])
    fresh.log = first(world)[: len(beginning(threshold, size).log)]
    fresh.start()
    fresh.run(lambda: fresh.holds(2))
    fresh.run_for(3_000)
    playbook.every_subset_signs(fresh.keys_at())


def test_until_the_new_logs_roster_is_read_nothing_is_said_but_that() -> None:
    world, _ = again(beginning(2, 3))
    fresh = next_log(world, beginning(2, 3).record)
    fresh.log = list(world.log)
    said: list[str] = []

    def lose(record: CeremonyRecord, _: World) -> list[CeremonyRecord]:
        said.append(type(record).__name__)
        return []

    fresh.seats[1].tamper = lose
    fresh.start(1)
    fresh.run_for(1_000)
    fresh.ask_refresh(1)
    fresh.run_for(60_000)
    assert set(said) == {"Roster"}


# --- a fork that is settled ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [False, True])
def test_a_seat_that_was_shown_another_log_comes_back_with_the_next_log_generation(restart: bool) -> None:
    world, _ = again(beginning(2, 3))
    for index in world.seats:
        world.ask_refresh(index)
    world.run(lambda: world.key().attempt is not None)
    world.shown[3] = list(world.log)
    world.log.append(b"a")
    world.shown[3].append(b"b")
    world.run_for(60_000)
    assert all(alarms(seat.state) for seat in world.seats.values() if seat.state is not None)
    del world.shown[3]  # The broker is mended: from here on there is one log.
    checkpoint = codec.encode(world.key().current.record)  # type: ignore[union-attr]
    raw = world.house.roster(2, (1, 2, 3), version=2, log_generation=2, checkpoints=(checkpoint,))
    world.generation = 2
    world.give_roster(raw)
    world.run_for(3_000)
    for index in world.seats if restart else ():
        world.stop(index)
        world.start(index)
        world.run_for(2_000)
    for index in world.seats:
        world.ask_refresh(index)
    world.run(lambda: world.agrees(2), 120_000)
    states = [seat.state for seat in world.seats.values() if seat.state is not None]
    assert len({state.log.running_hash for state in states}) == 1
    assert [alarms(state) for state in states] == [(), (), ()]
    report = audited(world.log)
    assert (report.problem, report.running_hash) == (None, states[0].log.running_hash)
    assert restore(durable(states[2]), Index(3), world.trust, world.timing, generation=2).log == states[2].log
    playbook.every_subset_signs(world.keys_at())
