"""A broker that shows seats different logs can stop ceremonies. It must not be able to destroy a key by that."""

from collections.abc import Iterable

import pytest

from common.wire.messages import CeremonyRecord, KeyRecord, Phase, PhaseVote
from signer_service.protocol.ceremony_state import HeldShare
from tests import playbook
from tests.protocol.crash_world import again, beginning
from tests.world import World


def held(world: World, index: int) -> tuple[HeldShare, ...]:
    state = world.seats[index].state
    assert state is not None
    return state.of_key(playbook.KEY).held


@pytest.mark.parametrize(("threshold", "size"), [(3, 4), (5, 7)])
def test_a_commit_that_is_shown_to_some_and_its_end_to_others_costs_no_key(threshold: int, size: int) -> None:
    world, _ = again(beginning(threshold, size))
    kept: list[bytes] = []
    votes: list[bytes] = []

    def hold_back(record: CeremonyRecord, world: World, index: int) -> Iterable[CeremonyRecord]:
        state = world.seats[index].state
        late = isinstance(record, PhaseVote) and record.phase is Phase.COMMIT
        if state is not None and (late or isinstance(record, KeyRecord)):
            (votes if late else kept).append(playbook.say(index, record, state.log))
            return []
        return [record]

    for index, seat in world.seats.items():
        seat.tamper = lambda record, world, index=index: hold_back(record, world, index)
        world.ask_refresh(index)
    world.run(lambda: len(kept) > 0 and len(votes) == size)
    others = range(size // 2 + 1, size + 1)
    for index in others:
        world.shown[index] = list(world.log)
    world.log.append(kept[0])
    for index in others:
        world.shown[index] += votes
    for seat in world.seats.values():
        seat.tamper = lambda *_: []
        world.at(1, world._pump, seat.index, seat.life)
    world.run_for(10_000)
    epochs = {index: {each.epoch for each in held(world, index)} for index in world.seats}
    assert any(sum(epoch in mine for mine in epochs.values()) >= threshold for epoch in (1, 2)), epochs
