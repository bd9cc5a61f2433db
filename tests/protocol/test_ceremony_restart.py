"""Durable before sent: a seat that dies at any write or send finishes all the same; a bad file is refused by name."""

from dataclasses import replace

import pytest

from common.errors import BadInput
from common.ids import Epoch, Index, Instant
from common.secret import Secret
from common.wire import codec
from common.wire.messages import Announce, CeremonyRecord, Deal, KeyRecord, Open
from signer_service.frost.group import Scalar
from signer_service.protocol import ceremony
from signer_service.protocol.ceremony_disk import Durable, durable, restore
from signer_service.protocol.ceremony_state import CeremonyState, HeldShare, KeyCopySeen, KeySecrets, LogRecord
from signer_service.protocol.ceremony_view import alarms, signing_view
from signer_service.protocol.machine import Tick, ToKeys
from signer_service.protocol.snapshot import pack
from tests import playbook
from tests.world import World

Sent = list[CeremonyRecord]


def state_of(world: World, index: int) -> CeremonyState:
    state = world.seats[index].state
    assert state is not None
    return state


@pytest.fixture(scope="module")
def done() -> World:
    world = World(2, 3, seed=5)
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(3_000)
    return world


@pytest.mark.parametrize("where", ["write", "send", "sent"])
def test_a_seat_that_dies_at_any_step_finishes_with_the_others(where: str) -> None:
    calm = World(2, 3, seed=5)
    calm.start()
    calm.run(lambda: calm.holds(1))
    assert calm.seats[2].steps >= 7
    for step in range(1, calm.seats[2].steps + 1):
        world = World(2, 3, seed=5)
        world.seats[2].crash_at = (step, where)
        world.start()
        world.run(lambda world=world: world.holds(1), 120_000)  # type: ignore[misc]
        assert world.seats[2].life == 2, "the plan was to die once"
        assert world.key().ended == 0, "the attempt went on"
        playbook.every_subset_signs(world.keys_at())


def test_a_restart_sends_the_very_same_announce_and_deal() -> None:
    for kind in (Announce, Deal):
        world = World(2, 3, seed=6)
        sent: list[CeremonyRecord] = []

        def note(
            record: CeremonyRecord, world: World, sent: list[CeremonyRecord] = sent, kind: type = kind
        ) -> list[CeremonyRecord]:
            del world
            if isinstance(record, kind):
                sent.append(record)
                return [record] if len(sent) > 1 else []
            return [record]

        world.seats[2].tamper = note
        world.start()
        world.run(lambda sent=sent: len(sent) == 1)  # type: ignore[misc]
        world.stop(2)
        world.start(2)
        world.run(lambda world=world: world.holds(1))  # type: ignore[misc]
        assert len(sent) >= 2
        assert len(set(sent)) == 1
        assert world.key().ended == 0


def test_a_seat_that_was_down_at_the_commit_of_a_reshare_finishes_from_the_log(done: World) -> None:
    world = World(2, 3, seed=8)
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(1_500)
    world.ask_refresh(1)
    world.run(lambda: (attempt := world.key().attempt) is not None and Index(3) in attempt.announced)
    world.stop(3)
    world.run(lambda: world.agrees(2, (1, 2)))
    world.run_for(2_000)
    # r is 3 here: until the third has its share on disk, nobody erases the old one.
    assert [each.epoch for each in state_of(world, 1).of_key(playbook.KEY).held] == [1, 2]
    world.start(3)
    world.run(lambda: world.holds(2))
    world.run_for(2_000)
    assert world.key().ended == 0
    for index in world.seats:
        assert [each.epoch for each in state_of(world, index).of_key(playbook.KEY).held] == [2]
    playbook.every_subset_signs(world.keys_at())


def test_nothing_is_sent_before_all_was_read(done: World) -> None:
    state = ceremony.start(Index(1), done.trust, done.timing)
    for offset, raw in enumerate(done.log[:-1]):
        transition = ceremony.step(state, LogRecord(offset, raw), Instant(10**9), done.entropy)  # type: ignore[arg-type]
        assert not transition.send
        state = ceremony.step(transition.state, Tick(), Instant(10**9 + offset), done.entropy).state


def test_signing_goes_on_with_the_epoch_held_when_the_log_is_lost(done: World) -> None:
    state = state_of(done, 1)
    after = ceremony.step(state, LogRecord(len(done.log) + 5, b"x"), Instant(done.now), done.entropy).state  # type: ignore[arg-type]
    assert "ceremony-log-lost" in alarms(after)
    view = signing_view(after, Instant(done.now))
    assert view.current[playbook.KEY].share is not None
    later = ceremony.step(after, Tick(), Instant(done.now + 10**12), done.entropy)
    current = done.key().current
    assert current is not None
    assert later.send == (ToKeys(current.record),), "the public copy for pods, and nothing else"


def test_a_fork_stops_ceremonies_and_signing_goes_on(done: World) -> None:
    state = state_of(done, 1)
    state = replace(state, log=replace(state.log, forked=True))
    later = ceremony.step(state, Tick(), Instant(done.now + 10**12), done.entropy)
    current = done.key().current
    assert current is not None
    assert later.send == (ToKeys(current.record),), "the public copy for pods, and nothing else"
    assert signing_view(later.state, Instant(done.now)).current[playbook.KEY].share is not None


def test_what_is_written_comes_back_the_same(done: World) -> None:
    state = state_of(done, 2)
    saved = durable(state)
    again = restore(saved, Index(2), done.trust, done.timing)
    assert again.log == state.log
    assert durable(again).public == saved.public
    assert pack(KeySecrets, again.of_key(playbook.KEY)) == pack(KeySecrets, state.of_key(playbook.KEY))


def test_a_cut_or_flipped_file_is_refused(done: World) -> None:
    saved = durable(state_of(done, 2))
    share = saved.secrets[playbook.KEY].expose()
    for whole, broken in ((saved.public, "journal"), (share, "share file of key default")):
        for cut in (0, 1, len(whole) // 2, len(whole) - 1):
            refuse(done, saved, broken, whole[:cut])
        for at in range(0, len(whole), max(1, len(whole) // 40)):
            refuse(done, saved, broken, whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        refuse(done, saved, broken, whole + b"\0")


def refuse(done: World, saved: Durable, broken: str, raw: bytes) -> None:
    bad = replace(saved, public=raw) if broken == "journal" else replace(saved, secrets={playbook.KEY: Secret(raw)})
    with pytest.raises(
        BadInput, match=f"{broken} cannot be used.*run the version .* t other replicas .* one replica at"
    ):
        restore(bad, Index(2), done.trust, done.timing)


def test_the_files_of_another_seat_or_system_are_refused(done: World) -> None:
    saved = durable(state_of(done, 2))
    with pytest.raises(BadInput, match=r"that of seat 2, and this is seat 3: .* put that right") as caught:
        restore(saved, Index(3), done.trust, done.timing)
    assert not loses_the_key(caught.value)


def loses_the_key(refusal: BadInput) -> bool:
    """Whether who does at each seat what it says has no shares left."""
    return (
        "heal" in refusal.detail or "state directory away" in refusal.detail or "delete and move" not in refusal.detail
    )


def test_another_topic_prefix_says_to_set_it_back_and_to_delete_nothing(done: World) -> None:
    for index in done.seats:
        with pytest.raises(BadInput, match=r"demo\.signer\.v1\.ceremony: the topic prefix .* set it back") as caught:
            restore(
                durable(state_of(done, index)),
                Index(index),
                replace(done.trust, topic="demo.signer.v1.ceremony"),
                done.timing,
            )
        assert not loses_the_key(caught.value)


def test_a_share_that_is_not_the_one_in_the_key_record_is_refused(done: World) -> None:
    state = state_of(done, 2)
    mine = state.of_key(playbook.KEY)
    held = mine.held[0]
    wrong = HeldShare(held.epoch, Secret(Scalar(held.share.expose() + 1)), held.verification_share)
    saved = durable(replace(state, secrets={playbook.KEY: replace(mine, held=(wrong,))}))
    with pytest.raises(BadInput, match="seat 2, key default, epoch 1 is not the one"):
        restore(saved, Index(2), done.trust, done.timing)


def test_no_restart_makes_a_seat_open_more_often() -> None:
    world = World(2, 3, timing=replace(playbook.QUICK, min_interval_ms=60_000))
    opened: list[CeremonyRecord] = []

    def lose(record: CeremonyRecord, _: World) -> Sent:
        if not isinstance(record, Open):
            return [record]
        opened.append(record)
        return []

    world.seats[1].tamper = lose
    world.start(1)
    world.run(lambda: bool(opened))
    for _ in range(4):
        world.stop(1)
        world.start(1)
        world.run_for(5_000)
    assert len(set(opened)) == 1


def test_a_lost_log_goes_on_from_the_key_records_that_the_operator_names(done: World) -> None:
    current = done.key().current
    assert current is not None
    group_key = done.keys_at()[1].public.group_key
    fresh = World(2, 3, seed=9)
    fresh.generation = 2
    checkpoint = codec.encode(current.record)
    raw = fresh.house.roster(2, (1, 2, 3), version=2, log_generation=2, checkpoints=(checkpoint,))
    for index, seat in fresh.seats.items():
        seat.roster, seat.disk = raw, done.seats[index].disk
    fresh.start()
    fresh.run(lambda: fresh.holds(1))
    playbook.every_subset_signs(fresh.keys_at())
    fresh.run_for(1_000)
    fresh.ask_refresh(1)
    fresh.run(lambda: fresh.agrees(2))
    assert fresh.keys_at()[1].public.group_key == group_key
    playbook.every_subset_signs(fresh.keys_at())


def test_a_wrong_public_copy_is_written_anew_and_one_of_a_later_epoch_is_left_alone(done: World) -> None:
    state = state_of(done, 1)
    current = done.key().current
    assert current is not None
    later = Instant(done.now + 60_000)

    def copies(seen: KeyRecord | None) -> list[KeyRecord]:
        transition = ceremony.step(state, KeyCopySeen(playbook.KEY, seen), later, done.entropy)
        return [each.record for each in transition.send if isinstance(each, ToKeys)]

    assert copies(current.record) == []
    assert copies(None) == [current.record]
    assert copies(replace(current.record, epoch=Epoch(9))) == []
