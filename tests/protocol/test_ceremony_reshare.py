"""Refresh, heal, grow, shrink: the same ceremony with another constant term and two rosters."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations

import pytest

from common import ed25519
from common.ids import Index, Instant, KeyId
from common.trust import check_key_record
from common.wire.messages import Announce, CeremonyRecord, Deal, HealRequest, Phase, RefusalCode
from signer_service.frost.sharing import interpolate_group_key
from signer_service.protocol.ceremony_opening import refusal
from signer_service.protocol.ceremony_view import signing_view
from tests import playbook
from tests.world import CALM, HOSTILE, Weather, World, same_fold


def with_key(threshold: int, size: int, seed: int = 0, weather: Weather = CALM) -> World:
    world = World(threshold, size, seed, weather)
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(2_500)
    return world


def refresh(world: World, *seats: int) -> None:
    epoch = world.key().epoch
    for index in seats or tuple(world.seats):
        world.ask_refresh(index)
    world.run(lambda: world.agrees(epoch + 1, seats))
    world.run_for(2_500)


def check_record(world: World) -> None:
    current = world.key().current
    assert current is not None
    check_key_record(current.record, playbook.public("operator"), topic=playbook.TOPIC, pinned=None, previous=None)


@pytest.mark.parametrize(("threshold", "size", "seed"), [(2, 3, 1), (2, 3, 2), (3, 5, 3)])
def test_after_some_refreshes_every_t_subset_signs_and_no_mixed_one_does(threshold: int, size: int, seed: int) -> None:
    world = with_key(threshold, size, seed, replace(HOSTILE, crash=0.005))
    before = world.keys_at()
    for _ in range(2):
        refresh(world)
    world.weather = CALM
    world.run_for(3_000)
    after = world.keys_at()
    assert after[1].public.group_key == before[1].public.group_key
    playbook.every_subset_signs(after)
    check_record(world)
    same_fold(world)
    mixed = {**{i: before[i] for i in (1,)}, **{i: after[i] for i in range(2, size + 1)}}
    points = {Index(i): keys.public.verification_shares[Index(i)] for i, keys in mixed.items()}
    for subset in combinations(sorted(mixed), threshold):
        if 1 in subset:
            assert interpolate_group_key(points, map(Index, subset)) != after[2].public.group_key


@pytest.mark.parametrize(("threshold", "size", "away"), [(2, 3, ()), (3, 5, (5,))])
def test_old_shares_are_gone_everywhere_once_enough_have_new_ones(
    threshold: int, size: int, away: tuple[int, ...]
) -> None:
    # r is 3 of 3 in the one, 4 of 5 in the other.
    world = with_key(threshold, size)
    for index in away:
        world.stop(index)
    there = [index for index in world.seats if index not in away]
    refresh(world, *there)
    for index in there:
        state = world.seats[index].state
        assert state is not None
        mine = state.of_key(playbook.KEY)
        assert [held.epoch for held in mine.held] == [2]
        assert mine.part is None
    assert set(world.key().past[-1].erased) == set(there)


def test_one_dead_seat_does_not_stop_a_refresh_and_the_old_shares_stay_until_it_is_back() -> None:
    world = with_key(2, 3)
    world.stop(3)
    refresh(world, 1, 2)
    for index in (1, 2):
        state = world.seats[index].state
        assert state is not None
        # r is 3 of 3: the seat that is down could be the one that is needed.
        assert [held.epoch for held in state.of_key(playbook.KEY).held] == [1, 2]
    playbook.every_subset_signs(world.keys_at(seats=(1, 2)))
    world.start(3)
    world.run(lambda: world.agrees(3))  # it asked to be healed
    world.run_for(3_000)
    playbook.every_subset_signs(world.keys_at())
    assert all(
        [held.epoch for held in seat.state.of_key(playbook.KEY).held] == [3]
        for seat in world.seats.values()
        if seat.state is not None
    )


def test_the_epoch_before_drains_for_a_moment_and_then_may_not_be_used() -> None:
    world = with_key(2, 3)
    world.ask_refresh(1)
    world.run(lambda: world.holds(2, (1,)))
    state = world.seats[1].state
    assert state is not None
    view = signing_view(state, Instant(world.now))
    assert view.draining[playbook.KEY].epoch == 1
    assert view.draining[playbook.KEY].share is not None
    world.run_for(playbook.QUICK.drain_window_ms + 100)
    state = world.seats[1].state
    assert state is not None
    assert not signing_view(state, Instant(world.now)).draining


def test_a_seat_that_lost_its_disk_is_healed_but_not_before_the_delay() -> None:
    world = with_key(2, 3)
    world.lose_disk(2)
    world.start(2)
    begun = world.now
    world.run(lambda: world.agrees(2))
    assert world.now - begun >= playbook.QUICK.heal_delay_ms
    playbook.every_subset_signs(world.keys_at())


def test_a_stolen_identity_alone_does_not_get_a_share() -> None:
    # Somebody with seat 2's identity key asks to be healed and announces, while the real seat 2 is alive and well.
    world = with_key(2, 3)
    world.say(2, HealRequest(playbook.KEY, world.key().epoch))
    world.run_for(3 * playbook.QUICK.heal_delay_ms)
    assert world.key().epoch == 1, "its own beats contradict the request"
    world.ask_refresh(1)
    world.run(lambda: world.key().attempt is not None)
    attempt = world.key().attempt
    assert attempt is not None
    thief = playbook.announce(attempt.open_id, Index(2), world.entropy)
    world.say(2, thief)
    world.run(lambda: world.agrees(2))
    assert world.noted("announce-refused") >= 1
    playbook.every_subset_signs(world.keys_at())


def test_a_dealer_whose_constant_term_is_not_its_share_is_out() -> None:
    def other_constant(record: CeremonyRecord, world: World) -> Iterable[CeremonyRecord]:
        attempt = world.key().attempt
        if not isinstance(record, Deal) or attempt is None or attempt.generate:
            return [record]
        return [replace(record, commitments=(record.commitments[1], record.commitments[0]))]

    world = with_key(2, 3)
    world.seats[1].tamper = other_constant
    refresh(world)
    current = world.key().current
    assert current is not None
    assert current.expected is not None
    assert current.expected.qualified == (2, 3)
    playbook.every_subset_signs(world.keys_at())


def test_a_reshare_that_fails_costs_nothing_and_is_tried_again() -> None:
    world = with_key(2, 3)
    for index in (2, 3):
        world.seats[index].tamper = lambda record, _: [] if isinstance(record, Deal) else [record]
    world.ask_refresh(1)
    world.run(lambda: world.key().ended >= 1)
    playbook.every_subset_signs(world.keys_at())
    assert world.key().epoch == 1
    for index in (2, 3):
        world.seats[index].tamper = None
    world.run(lambda: world.agrees(2))
    playbook.every_subset_signs(world.keys_at())


def test_a_committee_grows_shrinks_and_changes_its_threshold() -> None:
    world = with_key(2, 3)
    key = world.keys_at()[1].public.group_key
    world.give_roster(world.house.roster(2, range(1, 5), version=2))
    world.start(4)
    world.run(lambda: world.agrees(2))
    world.run_for(2_500)
    playbook.every_subset_signs(world.keys_at())
    world.give_roster(world.house.roster(3, (2, 3, 4), version=3))
    world.run(lambda: world.agrees(3, (2, 3, 4)))
    world.run_for(2_500)
    held = world.keys_at(seats=(2, 3, 4))
    assert held.keys() == {2, 3, 4}
    assert (held[2].threshold, held[2].public.group_key) == (3, key)
    playbook.every_subset_signs(held)
    check_record(world)
    # The seat that left deals, and keeps nothing.
    left = world.seats[1].state
    assert left is not None
    assert not left.of_key(playbook.KEY).held
    assert left.of_key(playbook.KEY).part is None


def test_a_seat_with_a_new_identity_takes_the_place_of_the_old_one() -> None:
    world = with_key(2, 3)
    world.lose_disk(3)
    world.seats[3].name = "new seat 3"
    raw = world.house.roster(2, (1, 2, 3), version=2, names={3: "new seat 3"})
    world.give_roster(raw)
    world.start(3)
    world.run(lambda: world.agrees(2))
    playbook.every_subset_signs(world.keys_at())
    # What the old identity says counts no more.
    world.say(3, HealRequest(playbook.KEY, world.key().epoch), name="seat 3")
    world.run_for(100)
    assert not world.key().heals


def test_a_refresh_is_asked_for_by_an_api_pod_and_by_nobody_else() -> None:
    world = with_key(2, 3)
    state = world.seats[1].state
    assert state is not None
    raw = playbook.refresh_request(playbook.KEY, world.now, edge="another edge key")
    world.feed_refresh(1, raw)
    world.run_for(5_000)
    assert world.key().epoch == 1
    assert refusal(state, playbook.KEY, Instant(world.now)) is None
    assert refusal(state, KeyId("other"), Instant(world.now)) is RefusalCode.UNKNOWN_KEY
    old = playbook.refresh_request(playbook.KEY, world.now - 10**6)
    world.feed_refresh(1, old)
    world.run_for(5_000)
    assert world.key().epoch == 1
    # One seat is asked; the others see the request in its Open, and check it themselves.
    world.ask_refresh(2)
    world.run(lambda: world.agrees(2))


def test_one_bad_seat_cannot_open_a_ceremony() -> None:
    world = with_key(2, 3)
    for _ in range(5):
        open_ = playbook.reshare_open(world.key().epoch, world.key().ended + 1, 1)
        world.say(3, open_)
        world.run_for(1_000)
    assert world.key().attempt is None
    assert world.key().epoch == 1


def test_refreshes_come_by_schedule() -> None:
    world = World(2, 3, timing=replace(playbook.QUICK, refresh_interval_ms=20_000))
    world.start()
    world.run(lambda: world.agrees(4))
    playbook.every_subset_signs(world.keys_at())
    assert world.now - 1_000_000 > 3 * 18_000


def test_votes_close_a_phase_only_for_q_seats() -> None:
    world = with_key(3, 5)
    world.stop(4)
    world.stop(5)
    # q of 3-of-5 is 4: three seats can sign, and cannot commit.
    world.ask_refresh(1)
    world.run_for(60_000)
    attempt = world.key().attempt
    assert world.key().epoch == 1
    assert attempt is None or attempt.phase is Phase.ANNOUNCE
    for each in combinations((1, 2, 3), 3):
        assert ed25519.verify(
            world.keys_at()[1].public.group_key, b"on", playbook.sign_with(world.keys_at(), each, b"on")
        )
    world.start(4)
    world.run(lambda: world.agrees(2, (1, 2, 3, 4)))


def test_a_void_seat_gets_no_share() -> None:
    # Somebody has seat 3's identity and its share: two Announces with proof. Neither counts.
    world = with_key(2, 3)
    other: list[Announce] = []

    def double(record: CeremonyRecord, world: World) -> Iterable[CeremonyRecord]:
        attempt, state = world.key().attempt, world.seats[3].state
        if not isinstance(record, Announce) or attempt is None or state is None:
            return [record]
        held = state.of_key(playbook.KEY).held[0]
        other.append(playbook.announce(attempt.open_id, Index(3), world.entropy, held))
        return [record, other[-1]]

    world.seats[3].tamper = double
    # The others are slow, so that both stand before the phase is over.
    for index in (1, 2):
        world.seats[index].tamper = slow_until_void
    world.ask_refresh(1)
    world.run(lambda: world.agrees(2, (1, 2)))
    current = world.key().current
    assert current is not None
    assert set(current.shares) == {1, 2}


def slow_until_void(record: CeremonyRecord, world: World) -> Iterable[CeremonyRecord]:
    attempt = world.key().attempt
    if isinstance(record, Announce) and attempt is not None and not attempt.void:
        return []
    return [record]
