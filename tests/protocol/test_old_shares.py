"""Shares of older epochs while seats are away: who erases what, when. One more disk that is lost must cost no key.

The broker is honest here. A seat hears nothing for a while, is stopped, or comes back where the log has gone on.
"""

from dataclasses import dataclass
from random import Random  # noqa: TID251 - a simulated world has to come out the same again

import pytest

from common.ids import Index
from common.wire.messages import Phase
from signer_service.protocol.ceremony_alarms import old_epochs_held
from signer_service.protocol.ceremony_disk import restore
from tests import playbook
from tests.protocol.test_coming_back_late import LateWorld, refresh, state_of
from tests.protocol.test_lying_broker import current, held, is_whole


class PausedWorld(LateWorld):
    """Some seats are shown nothing of what comes after a moment, and what they say is lost."""

    def __init__(self, threshold: int, size: int) -> None:
        super().__init__(threshold, size, seed=5)
        self.paused: dict[int, int] = {}

    def seen_by(self, index: int) -> list[bytes]:
        return self.log[: self.paused[index]] if index in self.paused else super().seen_by(index)

    def pause(self, index: int) -> None:
        self.paused[index] = len(self.log)
        self.seats[index].tamper = lambda *_: []

    def go_on(self, index: int) -> None:
        del self.paused[index]
        self.seats[index].tamper = None
        self.at(1, self._pump, index, self.seats[index].life)


def with_key(threshold: int, size: int) -> PausedWorld:
    world = PausedWorld(threshold, size)
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(3_000)
    return world


def refresh_without(world: PausedWorld, away: int) -> None:
    """The others refresh once, and are given the time to erase."""
    epoch = current(world, 1).epoch
    world.run_for(1_000)
    for index in world.seats:
        if index != away:
            world.ask_refresh(index)
    world.run(lambda: current(world, 1).epoch == epoch + 1)
    world.run_for(3_000)


def until_ready(world: PausedWorld, away: int) -> None:
    """A refresh goes on until this seat has said Ready."""
    for index in world.seats:
        world.ask_refresh(index)

    def ready() -> bool:
        attempt = world.key().attempt
        return attempt is not None and attempt.phase in {Phase.READY, Phase.COMMIT} and said(attempt.ready)

    def said(spoken: tuple[tuple[Index, bytes], ...]) -> bool:
        return any(seat == away for seat, _ in spoken)

    world.run(ready)


@dataclass(frozen=True)
class Away:
    """How a seat that had said Ready comes back after the epoch that followed."""

    name: str
    copies: bool = True

    def leave(self, world: PausedWorld, seat: int) -> None:
        if self.name == "paused":
            world.pause(seat)
        else:
            world.stop(seat)

    def come_back(self, world: PausedWorld, seat: int) -> None:
        if self.name == "paused":
            world.go_on(seat)
        else:
            world.copies = None if self.copies else {}
            world.start(seat)


@pytest.mark.parametrize("away", [Away("paused"), Away("stopped"), Away("stopped", copies=False)], ids=str)
@pytest.mark.parametrize(("threshold", "size"), [(2, 3), (3, 4), (4, 5)])
def test_a_seat_that_was_away_after_its_ready_and_one_disk_lost_cost_no_key(
    threshold: int, size: int, away: Away
) -> None:
    world = with_key(threshold, size)
    until_ready(world, size)
    away.leave(world, size)
    world.run(lambda: current(world, 1).epoch == 2)
    world.run_for(3_000)
    refresh_without(world, size)
    away.come_back(world, size)
    world.run_for(300)
    assert state_of(world, size).log.keys[playbook.KEY].epoch == 3
    for _ in range(2):
        for lost in range(1, size):
            assert is_whole(world, threshold, lost), (lost, held(world))
        world.run_for(3_000)


def test_a_seat_that_missed_what_was_said_after_a_commit_keeps_what_the_others_keep() -> None:
    """It stops just after it has read the commit, and comes back two epochs later."""
    world = with_key(2, 3)
    for index in world.seats:
        world.ask_refresh(index)
    world.run(lambda: state_of(world, 3).log.keys[playbook.KEY].epoch == 2)
    world.stop(3)
    world.run_for(3_000)
    refresh_without(world, 3)
    refresh_without(world, 3)
    world.start(3)
    world.run_for(2_500)
    assert current(world, 3).epoch == 4
    world.lose_disk(1)
    assert is_whole(world, 2), held(world)


def test_while_a_seat_is_away_no_more_old_shares_pile_up_with_each_refresh() -> None:
    world = with_key(2, 3)
    world.stop(3)
    for _ in range(4):
        refresh_without(world, 3)
    # Of epochs 2 to 4 everybody who has a share has said that he holds the one of epoch 5, too.
    assert held(world) == {1: {1, 5}, 2: {1, 5}}
    assert old_epochs_held(state_of(world, 1))
    assert [each.epoch for each in state_of(world, 1).log.keys[playbook.KEY].past if each.can_be_stolen] == [1]
    world.start(3)
    world.run(lambda: world.agrees(6))
    world.run_for(3_000)
    assert held(world) == {1: {6}, 2: {6}, 3: {6}}


def test_an_epoch_that_somebody_away_may_hold_is_kept_for_him() -> None:
    world = with_key(2, 3)
    until_ready(world, 3)
    world.stop(3)
    world.run(lambda: current(world, 1).epoch == 2)
    world.run_for(3_000)
    refresh_without(world, 3)
    refresh_without(world, 3)
    assert held(world) == {1: {1, 2, 4}, 2: {1, 2, 4}}


def test_a_commit_that_is_replaced_within_its_drain_window_has_its_say_in_what_goes() -> None:
    """Else who reads two commits at once would keep what all others have erased."""
    world = with_key(3, 5)
    until_ready(world, 5)
    world.pause(5)
    world.run(lambda: current(world, 1).epoch == 2)
    world.run_for(3_000)
    assert held(world)[1] == {2}
    world.seats[4].tamper = lambda record, _: [] if type(record).__name__ == "Ready" and said_after(world) else [record]
    refresh_without(world, 5)
    assert held(world)[1] == {2, 3}
    world.go_on(5)
    world.run_for(300)
    assert state_of(world, 5).log.keys[playbook.KEY].epoch == 3
    assert held(world)[5] == {2}


def said_after(world: PausedWorld) -> bool:
    """Whether a Ready that is said now is one of after the commit of epoch 3."""
    return current(world, 4).epoch == 3


def test_nobody_erases_until_all_that_erasing_takes_have_said_that_they_saw_the_commit() -> None:
    world = with_key(2, 3)
    world.seats[3].tamper = lambda record, _: (
        [] if type(record).__name__ == "Ready" and current(world, 3).epoch == 2 else [record]
    )
    refresh(world)
    world.run_for(5_000)
    assert current(world, 1).ready == (1, 2, 3)
    assert current(world, 1).seen == (1, 2)
    assert held(world) == {1: {1, 2}, 2: {1, 2}, 3: {1, 2}}
    world.seats[3].tamper = None
    world.run(lambda: len(current(world, 1).seen) == 3)
    world.run_for(3_000)
    assert held(world) == {1: {2}, 2: {2}, 3: {2}}


def on_disks(world: PausedWorld) -> dict[int, set[int]]:
    """The epochs of the shares at each seat, of those that are down on their disks."""
    found = held(world)
    for index, seat in world.seats.items():
        if seat.state is None and seat.disk is not None:
            saved = restore(seat.disk, Index(index), world.trust, world.timing)
            found[index] = {int(each.epoch) for each in saved.of_key(playbook.KEY).held}
    return found


@pytest.mark.parametrize("seed", [104, 111, 129, 135, 149, 159])
def test_in_no_way_of_being_away_and_coming_back_one_lost_disk_costs_the_key(seed: int) -> None:
    """Refreshes, and seats that are paused or stopped and come back, at most two at once: any disk may be lost at any
    moment. With the oldest and the current share kept, each of these seeds ended in a lost key."""
    dice = Random(seed)
    threshold, size = dice.choice([(2, 3), (2, 3), (3, 4)])
    world = with_key(threshold, size)
    world.lazy = True
    for _ in range(60):
        up = [index for index, seat in world.seats.items() if seat.state is not None and index not in world.paused]
        away = [index for index in world.seats if index not in up]
        chance = dice.random()
        if chance < 0.35:
            for index in up:
                world.ask_refresh(index)
        elif chance < 0.55 and len(up) > size - 2:
            leave = dice.choice([world.pause, world.stop])
            leave(dice.choice(up))
        elif away:
            index = dice.choice(away)
            come_back = world.go_on if index in world.paused else world.start
            come_back(index)
        world.run_for(dice.choice([1, 3, 10, 30, 60, 200, 1_000, 3_000]))
        kept = on_disks(world)
        for lost in kept:
            left = [epochs for index, epochs in kept.items() if index != lost]
            assert any(sum(epoch in mine for mine in left) >= threshold for epoch in set[int]().union(*left)), kept
        assert max(map(len, kept.values())) <= 5
    assert world.key().epoch > 3
