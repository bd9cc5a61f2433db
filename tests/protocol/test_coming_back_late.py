"""A seat that was away finds its place from the newest key records, erases, says what it lacks, is healed, signs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest

from common import ed25519
from common.ids import NO_OFFSET, Index, KeyId
from common.wire import codec
from common.wire.messages import KeyRecord, Phase, PhaseVote
from signer_service.frost import group
from signer_service.protocol.ceremony_disk import restore
from signer_service.protocol.ceremony_place import begin_at, follow, start_over
from signer_service.protocol.ceremony_state import CeremonyState, Event
from signer_service.protocol.ceremony_view import status
from signer_service.protocol.log_state import KeyLog, LogState
from tests import playbook
from tests.long_log import FastCommittee
from tests.world import SimSeat, World


class LateWorld(World):
    """Seats begin to read at the copies on ``signer.v1.keys``, as the shell has them do."""

    copies: dict[KeyId, list[bytes]] | None = None
    """Newest first; None: the true ones."""

    def _boot(self, seat: SimSeat) -> None:
        super()._boot(seat)
        assert seat.state is not None
        copies = self.true_copies() if self.copies is None else self.copies
        seat.state = begin_at(seat.state, copies, self.trust.wire.read_roster(seat.roster))
        seat.next_offset = seat.state.log.offset + 1

    def true_copies(self) -> dict[KeyId, list[bytes]]:
        logs = [seat.state.log for seat in self.seats.values() if seat.state is not None]
        newest = max(logs, key=lambda log: log.offset, default=LogState())
        return {
            key_id: [codec.encode(key.current.record)] for key_id, key in newest.keys.items() if key.current is not None
        }

    def _feed(self, seat: SimSeat, event: Event) -> None:
        before = seat.stored, seat.kept
        super()._feed(seat, event)
        if seat.state is None:
            return
        if seat.state.soft.anchoring is not None:
            seat.stored, seat.kept = before  # nothing is written before it is proven
        elif not seat.state.soft.caught_up and seat.next_offset > seat.state.log.offset + 1:
            seat.next_offset, seat.catch_up = seat.state.log.offset + 1, len(self.log)


def with_key(threshold: int, size: int, keys: Sequence[str] = (playbook.KEY,)) -> LateWorld:
    world = LateWorld(threshold, size, seed=3, keys=keys)
    world.start()
    for key in world.keys:
        world.run(lambda key=key: world.holds(1, key=key))  # type: ignore[misc]
    world.run_for(2_500)
    return world


def refresh(world: World, key: KeyId = playbook.KEY) -> None:
    epoch = world.key(key).epoch
    live = [i for i, seat in world.seats.items() if seat.state is not None]
    world.run_for(600)
    world.ask_refresh(live[0], key)
    world.run(lambda: world.agrees(epoch + 1, live, key))
    world.run_for(1_000)


def state_of(world: World, index: int) -> CeremonyState:
    state = world.seats[index].state
    assert state is not None
    return state


def same_state(world: World, index: int) -> None:
    """What this seat made of the log is what seat 1 made of it, which was there all the time."""
    world.run(lambda: state_of(world, index).soft.caught_up)
    world.run(lambda: state_of(world, index).log.offset == state_of(world, 1).log.offset)
    assert comparable(state_of(world, index).log) == comparable(state_of(world, 1).log)


def comparable(log: LogState) -> LogState:
    """Without what a fold that began later cannot know, and what matters to no ceremony."""
    keys = {key_id: replace(key, past=()) for key_id, key in log.keys.items()}
    return replace(log, keys=keys, window=log.window[-32:])


@pytest.mark.parametrize("missed", [1, 2, 50])
def test_a_seat_that_missed_epochs_says_that_it_holds_no_share_is_healed_and_signs_again(missed: int) -> None:
    world = with_key(3, 5)
    group_key = world.keys_at()[1].public.group_key
    stale = state_of(world, 5).of_key(playbook.KEY).held[0].share.expose()
    world.stop(5)
    if missed < 10:
        for _ in range(missed):
            refresh(world)
    else:
        FastCommittee(world).run(missed)
    assert world.key().epoch == 1 + missed
    world.start(5)
    same_state(world, 5)
    state = state_of(world, 5)
    # r seats of the current epoch are Ready (4 of 3-of-5): what it had is of no use to anybody but a thief.
    assert not state.of_key(playbook.KEY).held
    assert world.seats[5].disk is not None
    assert stale.to_bytes(32, "little") not in world.seats[5].disk.public
    assert not restore(world.seats[5].disk, Index(5), world.trust, world.timing).of_key(playbook.KEY).held
    (fact,) = status(state)
    assert (fact.epoch, fact.holds_share) == (1 + missed, False)
    assert [dict(note.fields) for note in world.seats[5].notes if note.name == "share-missing"] == [
        {"key_id": "default", "epoch": 1 + missed}
    ]
    begun = world.now
    world.run(lambda: world.agrees(2 + missed))
    assert world.now - begun >= playbook.QUICK.heal_delay_ms
    held = world.keys_at()
    assert held[5].public.group_key == group_key
    signature = playbook.sign_with(held, (1, 4, 5), b"again")
    assert ed25519.verify(group_key, b"again", signature)


def test_where_every_holder_is_needed_the_share_of_before_stays_until_the_seat_is_healed() -> None:
    # r is 3 of 2-of-3: epoch 1 is the last one that more than two seats hold.
    world = with_key(2, 3)
    world.stop(3)
    for _ in range(3):
        refresh(world)
    assert [each.epoch for each in state_of(world, 1).of_key(playbook.KEY).held] == [1, 4]
    world.start(3)
    world.run(lambda: state_of(world, 3).soft.caught_up)
    assert [each.epoch for each in state_of(world, 3).of_key(playbook.KEY).held] == [1]
    assert not status(state_of(world, 3))[0].holds_share
    world.run(lambda: world.agrees(5))
    world.run_for(1_000)
    for index in world.seats:
        assert [each.epoch for each in state_of(world, index).of_key(playbook.KEY).held] == [5]


def test_a_seat_that_had_announced_reads_all_of_the_epoch_that_it_missed() -> None:
    world = with_key(2, 3)
    world.ask_refresh(1)
    world.run(lambda: (attempt := world.key().attempt) is not None and Index(3) in attempt.announced)
    world.stop(3)
    world.run(lambda: world.agrees(2, (1, 2)))
    world.run_for(1_000)
    world.start(3)
    world.run(lambda: world.holds(2))
    assert world.key().ended == 0


# --- the cost of a start ---------------------------------------------------------------------------------------------


@dataclass
class Cost:
    """What a start took."""

    records: int = 0
    multiplications: int = 0
    verifications: int = 0


@contextmanager
def counted() -> Iterator[Cost]:
    cost = Cost()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("crypto_scalarmult_ed25519_noclamp", "crypto_scalarmult_ed25519_base_noclamp"):
            patch.setattr(group, name, _counting(getattr(group, name), cost, "multiplications"))
        patch.setattr(ed25519, "verify", _counting(ed25519.verify, cost, "verifications"))
        yield cost


def _counting(function: Callable[..., object], cost: Cost, name: str) -> Callable[..., object]:
    def call(*args: object) -> object:
        setattr(cost, name, getattr(cost, name) + 1)
        return function(*args)

    return call


def start_of(world: LateWorld, index: int) -> Cost:
    """Start a seat and look at what it took until it had read everything."""
    seat = world.seats[index]
    with counted() as cost:
        world.start(index)
        assert seat.state is not None
        cost.records = len(world.log) - seat.next_offset
        life = seat.life
        world._pump(index, life)
    assert seat.state is not None
    assert seat.state.soft.caught_up
    assert world.key().epoch == seat.state.log.keys[playbook.KEY].epoch
    return cost


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_start_costs_the_same_after_a_thousand_epochs() -> None:
    world = with_key(2, 3)
    world.stop(3)
    late = world.seats[3].disk
    costs = []
    for epochs in (10, 990):
        FastCommittee(world).run(epochs)
        for disk in (None, late):
            world.seats[3].disk = disk
            costs.append(start_of(world, 3))
            world.stop(3)
    assert world.key().epoch == 1_001
    empty, journal, empty_later, journal_later = costs
    assert empty.records == empty_later.records
    assert journal.records == journal_later.records
    assert empty.records < 20
    for before, after in ((empty, empty_later), (journal, journal_later)):
        assert (after.multiplications, after.verifications) == (before.multiplications, before.verifications)
    assert empty_later.verifications + empty_later.multiplications < 100


# --- key records that lead nowhere -----------------------------------------------------------------------------------


def test_without_believable_copies_the_log_is_read_from_its_beginning() -> None:
    world = with_key(2, 3)
    refresh(world)
    true = world.true_copies()[playbook.KEY][0]
    foreign = codec.encode(replace(codec.decode(true, KeyRecord), signature=bytes(64)))
    for copies, found in (([], False), ([b"rubbish", foreign], False), ([b"rubbish", foreign, true], True)):
        world.copies = {playbook.KEY: copies}
        world.lose_disk(3)
        world.start(3)
        assert (state_of(world, 3).log.offset > NO_OFFSET) == found
        same_state(world, 3)


def test_a_key_record_that_was_never_committed_is_no_place_to_begin() -> None:
    """Signed, and put on the keys topic, by a seat that kept it from the log until the attempt had ended."""
    world = with_key(2, 3)
    withheld: list[KeyRecord] = []

    def withhold(record: object, _: World) -> list[object]:
        if isinstance(record, KeyRecord):
            withheld.append(record)
            return []
        return [record]

    for seat in world.seats.values():
        seat.tamper = withhold  # type: ignore[assignment]
    world.run_for(600)
    world.ask_refresh(1)
    world.run(lambda: world.key().ended == 1)
    for seat in world.seats.values():
        seat.tamper = None
    world.copies = {playbook.KEY: [codec.encode(withheld[0])]}
    world.say(1, withheld[0])
    world.run_for(200)
    assert world.key().epoch == 1, "it came too late"
    world.lose_disk(3)
    world.start(3)
    assert state_of(world, 3).soft.anchoring is not None
    same_state(world, 3)
    assert world.noted("place-not-proven") == 1
    world.copies = None
    world.run(lambda: world.agrees(2))


def test_votes_that_nobody_can_judge_send_a_seat_back_to_the_beginning() -> None:
    world = with_key(2, 3)
    record = codec.decode(world.true_copies()[playbook.KEY][0], KeyRecord)
    vote = PhaseVote(record.open_id, Phase.COMMIT)
    # After the commit they mean nothing.
    for index in (1, 2):
        world.say(index, vote)
    world.run_for(100)
    world.lose_disk(3)
    world.start(3)
    same_state(world, 3)
    assert not world.noted("place-not-proven")
    # Before it two of them might have ended the attempt, and one, or one that its seat did not sign, cannot.
    seat = world.seats[3]
    for name, doubted in (("seat 2", True), ("seat 1", False)):
        world.lose_disk(3)
        world.start(3)
        state = state_of(world, 3)
        for raw in (playbook.say(1, vote, state.log), playbook.say(2, vote, state.log, name)):
            state = follow(state, raw)
        assert state.soft.anchoring is not None
        assert state.soft.anchoring.refuted == doubted
        seat.state = start_over(state)
        assert seat.state.log == LogState()


def test_several_keys_are_found_each_at_its_own_record() -> None:
    other = KeyId("other")
    world = with_key(2, 3, (playbook.KEY, other))
    refresh(world)
    refresh(world, other)
    refresh(world)
    world.lose_disk(2)
    world.start(2)
    assert state_of(world, 2).log.offset > NO_OFFSET
    same_state(world, 2)
    assert not world.noted("place-not-proven")
    world.run(lambda: world.agrees(4))
    world.run(lambda: world.agrees(3, key=other))
    playbook.every_subset_signs(world.keys_at(other))


def test_a_copy_of_another_history_is_seen_where_the_hashes_differ() -> None:
    """Two systems of one operator: the record is genuine, but its place is in another log."""
    other = KeyId("other")
    world, stranger = with_key(2, 3, (playbook.KEY, other)), LateWorld(2, 3, seed=9, keys=(playbook.KEY, other))
    stranger.start()
    stranger.run(lambda: stranger.holds(1) and stranger.holds(1, key=other))
    stranger.run_for(2_500)
    refresh(stranger)
    world.copies = {**world.true_copies(), playbook.KEY: stranger.true_copies()[playbook.KEY]}
    while len(world.log) < len(stranger.log):
        refresh(world, other)
        world.copies[other] = world.true_copies()[other]
    world.lose_disk(2)
    world.start(2)
    same_state(world, 2)
    assert world.noted("place-not-proven") == 1


def test_a_commit_leaves_no_request_to_be_healed_and_puts_off_nobody_who_waits() -> None:
    world = with_key(3, 5)
    world.lose_disk(4)
    world.start(4)
    world.run(lambda: bool(world.key().heals))
    asked = world.now
    world.run_for(playbook.QUICK.heal_delay_ms // 2)
    world.ask_refresh(1)
    world.run(lambda: world.key().epoch == 2)
    assert world.key().heals == KeyLog(playbook.KEY).heals
    world.run(lambda: world.agrees(3))
    assert world.now - asked < playbook.QUICK.heal_delay_ms * 3 // 2
