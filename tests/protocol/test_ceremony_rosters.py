"""Rosters that change while a ceremony runs, and what each says about seats, keys, identities and the log itself."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from common.ids import Epoch, Index, Instant, KeyId
from common.secret import Secret
from common.wire import codec
from common.wire.messages import (
    AuditKind,
    CeremonyRecord,
    Deal,
    Erased,
    HealRequest,
    KeyRecord,
    Phase,
    PhaseVote,
    Ready,
    Verdict,
)
from signer_service.frost.group import Scalar, base_mul
from signer_service.protocol.ceremony_state import HeldShare
from signer_service.protocol.ceremony_view import signing_view
from signer_service.protocol.fold_sender import keys_of
from tests import playbook
from tests.protocol.crash_world import again, beginning
from tests.world import World

PHASES = tuple(Phase)


def until_phase(world: World, phase: Phase) -> None:
    """Stop the moment that the first seat's fold is in that phase. Key records are held back until then."""
    for seat in world.seats.values():
        seat.tamper = lambda record, _: [] if isinstance(record, KeyRecord) else [record]
    world.run(lambda: (attempt := world.key().attempt) is not None and attempt.phase is phase)


def until(world: World, holds: Callable[[], bool]) -> None:
    """As ``World.run``, but look only now and then: with several keys to look costs more than to go on."""
    for _ in range(1_000):
        if holds():
            return
        world.run_for(250)
    raise AssertionError(world.describe())


def nothing_is_left_of_it(world: World) -> None:
    """No seat keeps a transport key or a staged share of an attempt that is not the open one."""
    attempt = world.key().attempt
    for seat in world.seats.values():
        assert seat.state is not None
        part = seat.state.of_key(playbook.KEY).part
        assert part is None or (attempt is not None and part.open_id == attempt.open_id)


@pytest.mark.parametrize("phase", PHASES)
def test_a_roster_in_the_middle_of_a_reshare_ends_it_and_the_next_one_is_for_the_new_committee(phase: Phase) -> None:
    world, _ = again(beginning(2, 3))
    for index in world.seats:
        world.ask_refresh(index)
    until_phase(world, phase)
    attempt = world.key().attempt
    assert attempt is not None
    world.give_roster(world.house.roster(2, range(1, 5), version=2))
    world.start(4)
    world.run(lambda: (ended := world.key().ended) >= 1 and ended < 10)
    world.run_for(100)
    nothing_is_left_of_it(world)
    ends = [entry for entry in world.entries(AuditKind.CEREMONY) if entry.code == "ceremony-ended"]
    assert {entry.detail for entry in ends} == {"roster"}
    for seat in world.seats.values():
        seat.tamper = None
    world.run(lambda: world.agrees(2))
    world.run_for(3_000)
    current = world.key().current
    assert current is not None
    assert current.record.open_id != attempt.open_id
    assert bytes(current.record.public_key) == beginning(2, 3).record.public_key
    assert set(current.shares) == {1, 2, 3, 4}
    playbook.every_subset_signs(world.keys_at())
    assert not world.blamed()


@pytest.mark.parametrize("phase", PHASES)
def test_a_roster_in_the_middle_of_a_key_generation_ends_it_and_another_key_is_made(phase: Phase) -> None:
    world = World(2, 3)
    world.start()
    until_phase(world, phase)
    made = world.key().attempt
    world.give_roster(world.house.roster(2, (1, 2), version=2))
    for seat in world.seats.values():
        seat.tamper = None
    world.run(lambda: world.agrees(1, (1, 2)))
    world.run_for(2_000)
    current = world.key().current
    assert current is not None
    assert made is not None
    assert current.record.open_id != made.open_id
    assert set(current.shares) == {1, 2}
    playbook.every_subset_signs(world.keys_at(seats=(1, 2)))
    assert not world.blamed()


def test_a_key_record_that_comes_after_the_roster_which_ended_its_attempt_is_no_commit() -> None:
    world, _ = again(beginning(2, 3))
    held_back: list[KeyRecord] = []

    def hold(record: CeremonyRecord, _: World) -> Iterable[CeremonyRecord]:
        if isinstance(record, KeyRecord):
            held_back.append(record)
            return []
        return [record]

    for index, seat in world.seats.items():
        world.ask_refresh(index)
        seat.tamper = hold
    world.run(lambda: bool(held_back))
    world.give_roster(world.house.roster(2, (1, 2, 3), version=2))
    world.run(lambda: world.key().ended == 1)
    world.say(1, held_back[0])
    world.run_for(200)
    assert world.key().epoch == 1
    for seat in world.seats.values():
        seat.tamper = None
    world.run(lambda: world.agrees(2))
    playbook.every_subset_signs(world.keys_at())


def test_several_keys_are_refreshed_healed_and_resized_one_after_another_and_stay_the_same_keys() -> None:
    keys = ("default", "other", "third")
    world = World(2, 3, keys=keys)
    world.start()
    ids = [KeyId(key) for key in keys]
    until(world, lambda: all(world.agrees(1, key=key) for key in ids))
    world.run_for(2_000)
    public = {key: world.keys_at(key)[1].public.group_key for key in ids}
    assert len(set(public.values())) == 3
    for key in ids:
        for index in world.seats:
            world.ask_refresh(index, key)
        until(world, lambda key=key: world.agrees(2, key=key))  # type: ignore[misc]
    world.run_for(2_000)
    world.lose_disk(2)
    world.start(2)
    until(world, lambda: all(world.agrees(3, key=key) for key in ids))
    world.run_for(2_000)
    for version, seats in ((2, (1, 2, 3, 4)), (3, (2, 3, 4))):
        world.give_roster(world.house.roster(2, seats, version=version, keys=keys))
        if world.seats[4].state is None:
            world.start(4)
        until(world, lambda seats=seats, at=version + 2: all(world.agrees(at, seats, key=key) for key in ids))  # type: ignore[misc]
        world.run_for(3_000)
    for key in ids:
        held = world.keys_at(key, (2, 3, 4))
        assert {bytes(each.public.group_key) for each in held.values()} == {public[key]}
        playbook.every_subset_signs(held)
    left = world.seats[1].state
    assert left is not None
    assert not any(left.of_key(key).held for key in ids)
    assert not world.blamed()


def test_two_seats_may_join_at_once_the_second_waits_its_turn_and_nobody_is_blamed() -> None:
    # 2-of-3 to 3-of-5: three holders and one newcomer are the four that a commit needs; the fifth is healed after it.
    world, _ = again(beginning(2, 3))
    world.give_roster(world.house.roster(3, range(1, 6), version=2))
    world.start(4, 5)
    world.run(lambda: world.agrees(2))
    world.run_for(3_000)
    held = world.keys_at()
    assert held.keys() == {1, 2, 3, 4, 5}
    assert {(each.threshold, bytes(each.public.group_key)) for each in held.values()} == {
        (3, beginning(2, 3).record.public_key)
    }
    playbook.every_subset_signs(held)
    assert not world.blamed()
    world.give_roster(world.house.roster(2, (1, 2, 3), version=3))
    epoch = world.key().epoch
    world.run(lambda: world.agrees(epoch + 1, (1, 2, 3)))
    world.run_for(3_000)
    held = world.keys_at(seats=(1, 2, 3))
    assert held[1].public.group_key == beginning(2, 3).record.public_key
    assert held[1].threshold == 2
    playbook.every_subset_signs(held)


def test_a_leaver_whose_ready_was_never_seen_deals_in_the_next_ceremony() -> None:
    # Its Ready can never count any more, for the newest roster does not know it: it must not hold its Deal up.
    world, _ = again(beginning(3, 5))
    world.seats[1].tamper = lambda record, _: [] if isinstance(record, Ready) else [record]
    for index in world.seats:
        world.ask_refresh(index)
    world.run(lambda: world.agrees(2))
    world.run_for(1_000)
    world.lose_disk(4)
    world.lose_disk(5)
    world.give_roster(world.house.roster(2, (2, 3, 6), version=2))
    world.start(6)
    world.run(lambda: world.agrees(3, (2, 3, 6)), 60_000)
    held = world.keys_at(seats=(2, 3, 6))
    assert held[2].public.group_key == beginning(3, 5).record.public_key
    playbook.every_subset_signs(held)


def test_seats_that_leave_sign_until_the_new_committee_has_the_key() -> None:
    # Two of the five stay, and three sign: without those that leave nobody could, from the roster file on.
    world, _ = again(beginning(3, 5))

    def peers() -> set[Index]:
        state = world.seats[1].state
        assert state is not None
        return set(signing_view(state, Instant(world.now)).identity_keys)

    world.give_roster(world.house.roster(2, (1, 2, 6), version=2, names={2: "new seat 2"}))
    assert peers() == {1, 2, 3, 4, 5, 6}
    state = world.seats[1].state
    assert state is not None
    assert signing_view(state, Instant(world.now)).identity_keys[Index(2)] == playbook.public("new seat 2")
    world.lose_disk(2)
    world.seats[2].name = "new seat 2"
    world.start(2, 6)
    world.run(lambda: world.agrees(2, (1, 6)) or world.agrees(2, (1, 2)), 60_000)
    assert peers() == {1, 2, 6}


def test_the_identity_key_of_a_seat_that_left_is_worth_nothing_but_to_say_that_it_erased() -> None:
    world, _ = again(beginning(3, 5))
    world.give_roster(world.house.roster(2, (1, 2, 3), version=2))
    world.run(lambda: world.agrees(2, (1, 2, 3)))
    world.run_for(2_500)
    for index in (1, 2, 3):
        world.ask_refresh(index)
    world.run(lambda: (attempt := world.key().attempt) is not None and attempt.phase is Phase.DEAL)
    attempt, state = world.key().attempt, world.seats[1].state
    assert attempt is not None
    assert state is not None
    left, name = Index(5), attempt.open_id
    said: tuple[CeremonyRecord, ...] = (
        playbook.reshare_open(2, 1, 2),
        playbook.announce(name, left, world.entropy),
        Deal(name, (bytes(32),), b"", bytes(32), bytes(64), ()),
        Verdict(name, ()),
        PhaseVote(name, attempt.phase),
        HealRequest(playbook.KEY, Epoch(2)),
    )
    assert [keys_of(state.log, left, each) for each in said] == [()] * len(said)
    assert keys_of(state.log, left, Erased(playbook.KEY, Epoch(1))) == (playbook.public("seat 5"),)
    assert left not in signing_view(state, Instant(world.now)).identity_keys


def test_a_share_of_another_history_of_the_log_is_not_shown_and_its_seat_is_healed() -> None:
    # The log was forked, both sides made an epoch, and the operator chose the other one, while seat 3 went on running.
    world, _ = again(beginning(2, 3))
    state = world.seats[3].state
    assert state is not None
    mine = state.of_key(playbook.KEY)
    share = Scalar(7)
    other = HeldShare(mine.held[0].epoch, Secret(share), bytes(base_mul(share)))
    world.seats[3].state = replace(state, secrets={playbook.KEY: replace(mine, held=(other,))})
    for index in world.seats:
        world.ask_refresh(index)
    world.run(lambda: world.agrees(2, (1, 2)))
    world.run(lambda: world.agrees(3))
    assert not world.blamed()
    playbook.every_subset_signs(world.keys_at())


def test_an_identity_that_the_roster_revoked_says_nothing_any_more() -> None:
    world, _ = again(beginning(2, 3))
    world.stop(3)
    thief = world.seats[3].name
    raw = world.house.roster(2, (1, 2, 3), version=2, names={3: "new seat 3"})
    world.seats[3].name = "new seat 3"
    world.seats[3].disk = None
    world.give_roster(raw)
    world.start(3)
    world.run(lambda: world.agrees(2))
    world.run_for(2_000)
    before = len(world.log)
    epoch = world.key().epoch
    for record in (HealRequest(playbook.KEY, epoch), playbook.reshare_open(epoch, 1, 2)):
        world.say(3, record, name=thief)
    world.run_for(10_000)
    assert world.noted("unknown-sender") == 3
    assert len(world.log) == before + 2
    assert not world.key().heals
    assert not world.key().opens


def test_an_edge_key_that_the_roster_revoked_asks_for_no_refresh() -> None:
    world, _ = again(beginning(2, 3))
    world.give_roster(world.house.roster(2, (1, 2, 3), version=2, edge_keys=(playbook.public("another edge"),)))
    world.run_for(2_000)
    assert world.key().epoch == 1
    for index in world.seats:
        world.feed_refresh(index, playbook.refresh_request(playbook.KEY, world.now))
    world.run_for(5_000)
    assert world.key().epoch == 1
    world.feed_refresh(1, playbook.refresh_request(playbook.KEY, world.now, edge="another edge"))
    world.run(lambda: world.agrees(2))


def test_a_new_log_generation_in_the_middle_of_a_refresh_goes_on_from_what_it_names() -> None:
    world, _ = again(beginning(2, 3))
    for index in world.seats:
        world.ask_refresh(index)
    until_phase(world, Phase.READY)
    record = beginning(2, 3).record
    raw = world.house.roster(2, (1, 2, 3), version=2, log_generation=2, checkpoints=(codec.encode(record),))
    world.give_roster(raw)
    for seat in world.seats.values():
        seat.tamper = None
    world.run(lambda: world.key().attempt is None and not world.key().ended)
    current = world.key().current
    assert current is not None
    assert (current.record, current.epoch) == (record, Epoch(1))
    world.run_for(100)
    nothing_is_left_of_it(world)
    world.run_for(2_000)
    for index in world.seats:
        world.ask_refresh(index)
    world.run(lambda: world.agrees(2))
    assert world.keys_at()[1].public.group_key == record.public_key
    playbook.every_subset_signs(world.keys_at())


def test_a_machine_that_asked_to_be_healed_and_died_brings_one_ceremony_and_not_one_after_another() -> None:
    world, _ = again(beginning(2, 4))
    world.lose_disk(4)
    world.start(4)
    world.run(lambda: bool(world.key().heals))
    world.stop(4)
    world.run_for(10 * playbook.QUICK.heal_delay_ms)
    assert world.key().epoch <= 2
    world.start(4)
    world.run(lambda: world.agrees(2))
    playbook.every_subset_signs(world.keys_at())
