"""A broker that shows seats different logs can stop ceremonies. It must not be able to destroy a key by that."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest

from common.ids import Epoch, Index, Offset
from common.wire import codec
from common.wire.messages import CeremonyRecord, HealRequest, KeyRecord, Phase, PhaseVote, Ready
from signer_service.protocol.fold import fold
from signer_service.protocol.log_state import Commit, LogState
from tests import playbook
from tests.protocol.crash_world import again, beginning
from tests.world import World

Tamper = Callable[[CeremonyRecord, World], list[CeremonyRecord]]


def held(world: World) -> dict[int, set[int]]:
    """The epochs of the shares at each seat."""
    shares = {i: seat.state.of_key(playbook.KEY).held for i, seat in world.seats.items() if seat.state is not None}
    return {i: {int(each.epoch) for each in mine} for i, mine in shares.items()}


def is_whole(world: World, threshold: int, *lost: int) -> bool:
    """Whether t seats hold shares of one epoch, without those of the seats ``lost``."""
    epochs = [mine for seat, mine in held(world).items() if seat not in lost]
    return any(sum(epoch in mine for mine in epochs) >= threshold for epoch in set[int]().union(*epochs))


def current(world: World, index: int) -> Commit:
    state = world.seats[index].state
    assert state is not None
    commit = state.log.keys[playbook.KEY].current
    assert commit is not None
    return commit


@dataclass
class Broker:
    """Keeps back what would commit an attempt and what would end it, until it is decided who sees which."""

    world: World
    commits: list[bytes] = field(default_factory=list)
    records: list[KeyRecord] = field(default_factory=list)
    votes: list[bytes] = field(default_factory=list)
    readies: dict[int, Ready] = field(default_factory=dict)

    def raw(self, index: int, record: CeremonyRecord) -> bytes:
        """As seat ``index`` would send it now."""
        state = self.world.seats[index].state
        assert state is not None
        return playbook.say(index, record, state.log)

    def keep_back(self, index: int, record: CeremonyRecord) -> list[CeremonyRecord]:
        if isinstance(record, Ready):
            self.readies.setdefault(index, record)
        if isinstance(record, KeyRecord):
            self.commits.append(self.raw(index, record))
            self.records.append(record)
            return []
        if isinstance(record, PhaseVote) and record.phase is Phase.COMMIT:
            self.votes.append(self.raw(index, record))
            return []
        return [record]

    def refresh(self) -> None:
        """Let all seats ask for a refresh, and go on until it could be committed, and ended."""
        for index, seat in self.world.seats.items():
            seat.tamper = lambda record, world, index=index: self.keep_back(index, record)
            self.world.ask_refresh(index)
        self.world.run(lambda: len(self.commits) > 0 and len(self.votes) == len(self.world.seats))

    def split(self, others: Iterable[int], *also: bytes) -> None:
        """Show the commit to some, and to ``others`` the votes and ``also``. From now on nobody hears anybody."""
        others = list(others)
        for index in others:
            self.world.shown[index] = list(self.world.log)
        self.world.log.append(self.commits[0])
        for index in others:
            self.world.shown[index] += [*self.votes, *also]
        self.mute()

    def mute(self) -> None:
        """What anybody says from now on is lost; what stands in the logs is read."""
        for seat in self.world.seats.values():
            seat.tamper = lambda *_: []
        self.show()

    def show(self) -> None:
        for seat in self.world.seats.values():
            self.world.at(1, self.world._pump, seat.index, seat.life)


@pytest.mark.parametrize(("threshold", "size"), [(3, 4), (5, 7)])
def test_a_commit_that_is_shown_to_some_and_its_end_to_others_costs_no_key(threshold: int, size: int) -> None:
    world, _ = again(beginning(threshold, size))
    broker = Broker(world)
    broker.refresh()
    broker.split(range(size // 2 + 1, size + 1))
    world.run_for(10_000)
    assert is_whole(world, threshold), held(world)


@pytest.mark.parametrize(("threshold", "size"), [(2, 3), (3, 4), (4, 5)])
def test_who_is_shown_the_end_of_what_all_others_saw_committed_and_a_lost_disk_cost_no_key(
    threshold: int, size: int
) -> None:
    """The last seat is Ready, and then shown votes; the others go on, and one of them loses its disk."""
    world, _ = again(beginning(threshold, size))
    broker = Broker(world)
    broker.refresh()
    world.shown[size] = list(world.log)
    world.log.append(broker.commits[0])
    world.shown[size] += broker.votes
    for index, seat in world.seats.items():
        seat.tamper = (lambda *_: []) if index == size else None
    broker.show()
    world.run_for(5_000)
    assert current(world, 1).ready == tuple(range(1, size + 1))
    world.lose_disk(1)
    assert is_whole(world, threshold), held(world)


def test_an_epoch_that_few_have_seen_committed_is_not_the_only_older_one_that_is_kept() -> None:
    """Epoch 2 was not acknowledged by enough, so all keep epoch 1 beside it. Then epoch 3 is split: who keeps but one
    older share would keep that of epoch 1, where the others have erased it because epoch 2 was acknowledged to them."""
    world, _ = again(beginning(3, 4))
    broker = Broker(world)
    late: list[bytes] = []

    def but_seat_four(index: int, record: CeremonyRecord) -> list[CeremonyRecord]:
        if index == 4 and isinstance(record, Ready):
            late.append(broker.raw(index, record))
            return []
        return [record]

    for index, seat in world.seats.items():
        seat.tamper = lambda record, world, index=index: but_seat_four(index, record)
        world.ask_refresh(index)
    world.run(lambda: world.key().epoch == 2)
    world.run_for(5_000)
    assert current(world, 1).ready == (1, 2, 3)
    votes, commits = broker.votes, broker.commits
    for index, seat in world.seats.items():
        seat.tamper = lambda record, world, index=index: (
            [] if index == 4 and not isinstance(record, PhaseVote) else broker.keep_back(index, record)
        )
        world.ask_refresh(index)
    world.run(lambda: len(commits) > 0 and len(votes) >= 3)
    broker.split((3, 4), *late)
    world.run_for(20_000)
    assert held(world)[3] == held(world)[4] == {2}, "the others have erased epoch 1"
    assert is_whole(world, 3), held(world)


def test_a_checkpoint_after_a_split_lets_nobody_erase_what_the_others_need() -> None:
    world, _ = again(beginning(5, 7))
    broker = Broker(world)
    broker.refresh()
    broker.split(range(4, 8))
    world.run_for(10_000)
    # The operator goes on from the newest key record that is to be had.
    fresh = World(5, 7, seed=9)
    fresh.generation, fresh.now = 2, world.now
    checkpoints = (codec.encode(broker.records[0]),)
    roster = fresh.house.roster(5, range(1, 8), version=2, log_generation=2, checkpoints=checkpoints)
    for index, seat in fresh.seats.items():
        seat.roster, seat.disk = roster, world.seats[index].disk
    fresh.start()
    fresh.run_for(20_000)
    assert is_whole(fresh, 5), held(fresh)


def test_a_seat_that_has_lost_its_disk_does_not_vouch_for_a_commit_by_asking_to_be_healed() -> None:
    world, _ = again(beginning(3, 5))
    for index in world.seats:
        world.ask_refresh(index)

    def staged() -> bool:
        attempt = world.key().attempt
        return attempt is not None and attempt.attested and any(seat == 5 for seat, _ in attempt.ready)

    world.run(staged)
    world.lose_disk(5)
    world.run(lambda: world.key().epoch == 2)
    world.run_for(3_000)
    assert 5 in current(world, 1).ready
    world.start(5)
    world.run(lambda: 5 in world.key().heals, 5_000)
    world.run_for(300)
    assert current(world, 1).seen == (1, 2, 3, 4)


def test_a_split_and_a_disk_that_is_lost_after_it_cost_no_key() -> None:
    world, _ = again(beginning(3, 4))
    broker = Broker(world)
    broker.refresh()
    for index in (3, 4):
        world.shown[index] = list(world.log)
    world.log.append(broker.commits[0])
    for index in (3, 4):
        world.shown[index] += broker.votes
    for index, seat in world.seats.items():
        seat.tamper = (lambda *_: []) if index in {3, 4} else None
    broker.show()
    world.run_for(5_000)
    # One machine, which may be lost at any time, comes back with an empty disk, and reads what 1 and 2 read.
    world.lose_disk(4)
    del world.shown[4]
    world.seats[4].tamper = None
    world.run_for(100)
    world.start(4)
    world.run_for(10_000)
    assert is_whole(world, 3), held(world)


@pytest.mark.parametrize("forged", ["a request to be healed", "its Ready of before the commit"])
def test_identity_keys_of_the_past_vouch_for_no_commit(forged: str) -> None:
    """They and a broker could else have those who saw the commit erase what the others still need."""
    world, _ = again(beginning(5, 7))
    broker = Broker(world)
    broker.refresh()
    broker.split(range(4, 8))
    shown = list(world.log)
    state = LogState()
    for raw in shown:
        state = fold(state, Offset(state.offset + 1), raw, world.trust).state
    for index in (1, 2, 3):
        said = world.seats[index].state
        assert said is not None
        shown.append(playbook.say(index, broker.readies[index], state))
    for index in (4, 5, 6):
        request = HealRequest(playbook.KEY, Epoch(2))
        shown.append(playbook.say(index, request if "healed" in forged else broker.readies[index], state))
    for index in (1, 2, 3):
        world.shown[index] = shown
    broker.show()
    world.run_for(10_000)
    assert not {4, 5, 6} & set(current(world, 1).seen)
    assert is_whole(world, 5), held(world)


def test_who_has_seen_the_commit_is_counted_once_he_proves_his_committed_share() -> None:
    world, _ = again(beginning(3, 4))
    for index in world.seats:
        world.ask_refresh(index)
    world.run(lambda: world.key().epoch == 2 and len(current(world, 1).seen) == 4)
    world.run_for(3_000)
    assert held(world) == {Index(index): {2} for index in range(1, 5)}
