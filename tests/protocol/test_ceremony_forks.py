"""A broker that shows another log: forked, cut, made anew. Signing goes on, ceremonies stop, the operator decides."""

from dataclasses import replace

from common.ids import Instant
from common.wire import codec
from common.wire.messages import RESERVED_PREFIX, AuditKind
from common.wire.transcript import key_record_message
from signer_service.protocol.ceremony_state import KeyCopySeen, LogLost
from signer_service.protocol.ceremony_view import alarms, signing_view
from signer_service.protocol.log_state import WINDOW
from tests import playbook
from tests.protocol.crash_world import again, beginning
from tests.world import World


def signs(world: World, epoch: int) -> None:
    """Every t of the seats sign with that epoch, whatever they think of the log."""
    held = world.keys_at()
    assert {keys.epoch for keys in held.values()} == {epoch}
    assert held.keys() == set(world.seats)
    playbook.every_subset_signs(held)
    for index, seat in world.seats.items():
        assert seat.state is not None
        assert signing_view(seat.state, Instant(world.now)).current[playbook.KEY].share is not None, index


def test_a_fork_in_the_middle_of_a_refresh_is_seen_by_everybody_and_ends_in_nothing() -> None:
    world, _ = again(beginning(2, 3))
    for index in world.seats:
        world.ask_refresh(index)
    world.run(lambda: world.key().attempt is not None)
    # From here on the broker shows seat 3 something else in one place.
    world.shown[3] = list(world.log)
    at = len(world.log)
    world.log.append(b"what seats 1 and 2 are shown")
    world.shown[3].append(b"what seat 3 is shown")
    world.run_for(60_000)
    told = {index: set(alarms(seat.state)) for index, seat in world.seats.items() if seat.state is not None}
    assert all("ceremony-log-forked" in names for names in told.values()), told
    assert world.key().epoch == 1
    signs(world, 1)
    # It is told with the record that shows it, and nobody is blamed: the broker did it.
    shown = [entry for entry in world.entries(AuditKind.CEREMONY) if entry.code == "log-forked"]
    assert shown
    assert all(entry.evidence and entry.evidence[0] in (*world.log[at:], *world.shown[3][at:]) for entry in shown)
    assert not world.blamed()
    quiet = len(world.log)
    world.run_for(60_000)
    assert len(world.log) == quiet, "ceremonies stop"
    # The broker is mended; the operator says from which key record the log goes on.
    del world.shown[3]
    checkpoint = codec.encode(beginning(2, 3).record)
    raw = world.house.roster(2, (1, 2, 3), version=2, log_generation=2, checkpoints=(checkpoint,))
    world.log.clear()
    world.generation = 2
    for index, seat in world.seats.items():
        world.stop(index)
        seat.roster = raw
    world.start()
    world.run_for(2_000)
    world.ask_refresh(1)
    world.run(lambda: world.agrees(2))
    assert world.keys_at()[1].public.group_key == beginning(2, 3).record.public_key
    playbook.every_subset_signs(world.keys_at())


def test_a_log_that_was_cut_and_written_again_up_to_where_we_were_moves_nothing() -> None:
    # Old records are put back in another order: every replica was further, and takes what comes for news.
    world, _ = again(beginning(2, 3))
    old = list(world.log)
    for raw in reversed(old):
        world.append(raw)
    world.run_for(5_000)
    assert world.key().epoch == 1
    assert world.key().attempt is None
    assert not world.key().opens
    assert not world.blamed()
    signs(world, 1)
    world.ask_refresh(1)
    world.run(lambda: world.agrees(2))


def test_a_seat_with_an_empty_disk_that_is_shown_a_log_made_anew_stops_the_ceremonies() -> None:
    world, _ = again(beginning(2, 3))
    # Seat 3 lost its disk. The broker shows it the log without the records in the middle of the key generation.
    world.lose_disk(3)
    world.shown[3] = [raw for at, raw in enumerate(world.log) if at not in (4, 5, 6)]
    world.start(3)
    world.run_for(3 * playbook.QUICK.heal_delay_ms)
    state = world.seats[3].state
    assert state is not None
    assert state.log.forked
    assert world.key().epoch == 1
    assert not world.blamed()
    for index in (1, 2):
        assert world.keys_at()[index].epoch == 1
    playbook.every_subset_signs(world.keys_at(seats=(1, 2)))


def test_while_the_log_is_lost_no_seat_speaks_and_all_sign() -> None:
    world, _ = again(beginning(2, 3))
    for index in world.seats:
        world.feed(index, LogLost())
    for index in world.seats:
        world.ask_refresh(index)
    before = len(world.log)
    world.run_for(120_000)
    assert len(world.log) == before
    signs(world, 1)
    for seat in world.seats.values():
        assert seat.state is not None
        assert "ceremony-log-lost" in alarms(seat.state)


def test_while_the_log_is_lost_the_copies_of_key_records_are_written_on_for_pods_need_them() -> None:
    world, _ = again(beginning(2, 3))
    record = beginning(2, 3).record
    for seat in world.seats.values():
        seat.published.clear()
    for index in world.seats:
        world.feed(index, LogLost())
    world.run_for(playbook.QUICK.republish_doubt_ms + 10_000)
    assert [seat.published for seat in world.seats.values()] != [[], [], []]
    assert all(each == record for seat in world.seats.values() for each in seat.published)
    # Nothing that it had or has on disk is needed for that but the journal: another process of it does the same.
    world.stop(2)
    world.seats[2].published.clear()
    world.start(2)
    world.feed(2, LogLost())
    world.run_for(10_000)
    assert world.seats[2].published[0] == record


def test_a_seat_that_is_behind_on_a_lost_log_does_not_write_over_the_copy_of_those_ahead() -> None:
    world, _ = again(beginning(2, 3))
    ahead, _ = again(beginning(2, 3))
    for index in ahead.seats:
        ahead.ask_refresh(index)
    ahead.run(lambda: ahead.agrees(2))
    newer = ahead.key().current
    assert newer is not None
    world.feed(1, LogLost())
    world.feed(1, KeyCopySeen(playbook.KEY, newer.record))
    world.seats[1].published.clear()
    world.run_for(2 * playbook.QUICK.republish_doubt_ms)
    assert world.seats[1].published == []
    # Nor is it drawn into writing by whoever puts rubbish, or the copy of its own epoch, over it.
    world.feed(1, KeyCopySeen(playbook.KEY, None))
    world.run_for(2 * playbook.QUICK.republish_doubt_ms)
    assert world.seats[1].published == []


def test_who_was_left_on_a_lost_log_does_not_write_over_what_the_next_log_made_of_the_same_epoch() -> None:
    """Two went on in another log, and came to an epoch of the same number. The one that is left has an older life."""
    world, _ = again(beginning(2, 3))
    other, _ = again(beginning(2, 3), seed=5)
    for each in (world, other):
        for index in each.seats:
            each.ask_refresh(index)
        each.run(lambda each=each: each.agrees(2))  # type: ignore[misc]
        each.run_for(2_000)
    left, on = world.seats[1], other.seats[1]
    world.feed(1, LogLost())
    written = {1: 0, 2: 0}
    for seat in (left, on):
        seat.published.clear()
    for _ in range(600):
        for name, (seat, its) in {1: (left, world), 2: (on, other)}.items():
            its.run_for(1_000)
            written[name] += len(seat.published)
            for record in seat.published:
                world.feed(1, KeyCopySeen(playbook.KEY, record))
                other.feed(1, KeyCopySeen(playbook.KEY, record))
            seat.published.clear()
    assert written[1] <= 1
    assert written[2] <= 2
    # Who loses the copies together with the log writes them again soon all the same, where nobody else has.
    world.feed(2, LogLost())
    own = world.key().current
    assert own is not None
    world.feed(2, KeyCopySeen(playbook.KEY, own.record))
    world.seats[2].published.clear()
    world.run_for(playbook.QUICK.republish_doubt_ms + 2_000)
    assert len(world.seats[2].published) == 1


def test_true_records_of_another_log_show_the_fork_and_commit_nothing() -> None:
    # The same seats and keys; in another log they began a refresh. The broker moves what they said there to this one.
    world, _ = again(beginning(2, 3))
    other, _ = again(beginning(2, 3), seed=5)
    other.append(b"only there")
    for index in other.seats:
        other.ask_refresh(index)
    other.run(lambda: other.key().epoch == 2)
    for raw in other.log[len(world.log) + 1 :]:
        world.append(raw)
    world.run_for(5_000)
    assert world.noted("log-forked") == 3
    assert world.key().epoch == 1
    assert not world.blamed()
    signs(world, 1)


def test_an_open_storm_of_one_seat_opens_nothing_and_costs_a_line_each() -> None:
    world, _ = again(beginning(2, 3))
    state = world.seats[2].state
    assert state is not None
    before = state.log
    for number in range(60):
        key = world.key()
        said = playbook.reshare_open(key.epoch, key.ended + 1, 1)
        world.say(3, replace(said, nonce=playbook.seed(f"storm {number}")))
        world.run_for(20)
    assert world.key().attempt is None
    assert len(world.key().opens) == 1, "a seat's first Open stands, whatever it adds"
    assert world.key().epoch == 1
    after = world.seats[2].state
    assert after is not None
    assert after.log.offset <= before.offset + 61 + 1
    assert len(after.log.window) <= WINDOW * 32
    # What it began others may finish: an honest reason counts together with it, and the storm is over.
    world.ask_refresh(1)
    world.run(lambda: world.agrees(2))
    world.run_for(5_000)
    assert world.key().epoch == 2


def test_what_the_group_signs_for_itself_begins_with_what_no_user_may_ask_for() -> None:
    assert key_record_message(beginning(2, 3).record).startswith(RESERVED_PREFIX)
