"""A refresh that an API pod asks for: what a seat decides, and that asking never makes an Open storm."""

from collections import Counter
from dataclasses import replace

import pytest

from common.ids import Epoch, Index, Instant, KeyId
from common.wire import codec
from common.wire.messages import Accepted, Envelope, Open, OpenReason, Phase, RefusalCode, Refused
from signer_service.protocol.ceremony_state import CeremonyState
from signer_service.protocol.coordinator_state import refused
from signer_service.protocol.machine import Peer
from signer_service.protocol.refresh_decision import decide_refresh
from tests import playbook
from tests.playbook import KEY
from tests.world import World, same_fold

OTHER = KeyId("other")


def with_key(threshold: int = 2, size: int = 3, keys: tuple[str, ...] = (KEY,)) -> World:
    world = World(threshold, size, keys=keys)
    world.start()
    world.run(lambda: all(world.holds(1, key=KeyId(key)) for key in keys))
    world.run_for(2_500)
    return world


def state_of(world: World, index: int) -> CeremonyState:
    state = world.seats[index].state
    assert state is not None
    return state


def decide(world: World, index: int, key: KeyId = KEY, raw: bytes | None = None) -> Accepted | Refused:
    raw = playbook.refresh_request(key, world.now) if raw is None else raw
    return decide_refresh(state_of(world, index), key, raw, Instant(world.now))


def code(world: World, index: int, key: KeyId = KEY, raw: bytes | None = None) -> RefusalCode | None:
    decided = decide(world, index, key, raw)
    return decided.code if isinstance(decided, Refused) else None


def opens(world: World) -> list[tuple[int, Open]]:
    """Every Open in the log, and whose it is."""
    found = []
    for raw in world.log:
        envelope = codec.decode(raw, Envelope)
        record = codec.decode_ceremony(envelope.payload)
        if isinstance(record, Open):
            found.append((envelope.index, record))
    return found


def test_an_accepted_request_names_the_epoch_that_it_leaves_and_one_seat_is_enough() -> None:
    world = with_key()
    assert decide(world, 2) == Accepted(KEY, Epoch(1))
    assert state_of(world, 2).soft.asked == {}, "to decide changes nothing"
    world.ask_refresh(2)
    world.run(lambda: world.agrees(2))
    asked = [(seat, record) for seat, record in opens(world) if record.from_epoch == 1]
    assert {record.reason for _, record in asked} == {OpenReason.REQUEST}
    # The others saw the request in the Open of the seat that was asked, and checked it themselves.
    assert len({record.evidence for _, record in asked}) == 1


@pytest.mark.parametrize("everywhere", [False, True])
def test_who_asks_again_gets_no_second_refresh(everywhere: bool) -> None:
    world = with_key()
    seats = (1, 2, 3) if everywhere else (1, 1, 1)
    for seat in seats:
        world.ask_refresh(seat)
    assert code(world, 1) is RefusalCode.CEREMONY_RUNNING
    world.run(lambda: world.key().attempt is not None)
    world.run_for(100)
    for seat in (1, 2, 3):
        if state_of(world, seat).log.keys[KEY].attempt is not None:
            assert code(world, seat) is RefusalCode.CEREMONY_RUNNING
    world.run(lambda: world.agrees(2))
    # Once all have read it, and heard of each other that they hold the share.
    world.run(lambda: {code(world, seat) for seat in (1, 2, 3)} == {RefusalCode.REFRESH_TOO_SOON}, 1_000)
    world.run_for(60_000)
    assert world.key().epoch == 2
    # Time over, it can be asked for again.
    assert decide(world, 1) == Accepted(KEY, Epoch(2))


def test_a_key_that_is_unknown_or_not_made_yet_is_refused_as_that() -> None:
    world = with_key()
    assert code(world, 1, OTHER) is RefusalCode.UNKNOWN_KEY
    young = World(2, 3)
    young.start(1)
    young.run_for(1_000)
    assert code(young, 1) is RefusalCode.NO_KEY_YET


def test_with_fewer_than_q_live_holders_nothing_is_opened_and_the_missing_are_named() -> None:
    world = with_key(3, 5)
    state = state_of(world, 1)
    raw, now = playbook.refresh_request(KEY, world.now), Instant(world.now)

    def with_live(live: dict[Index, Peer]) -> CeremonyState:
        return replace(state, soft=replace(state.soft, live=live))

    everybody = dict(state.soft.live)
    # q of 3-of-5 is 4. One is gone, one holds no share of this epoch: three can sign, and a refresh could not end.
    some = {seat: peer for seat, peer in everybody.items() if seat != 2}
    some[Index(4)] = replace(some[Index(4)], epochs={})
    decided = decide_refresh(with_live(some), KEY, raw, now)
    assert isinstance(decided, Refused)
    assert (decided.code, decided.retryable) == (RefusalCode.QUORUM_LOST, True)
    assert decided.detail == "a refresh takes 4 seats with a share; missing: 2, 4"
    leaving = {**everybody, Index(5): replace(everybody[Index(5)], draining=True)}
    assert isinstance(decide_refresh(with_live(leaving), KEY, raw, now), Accepted), "four are enough"
    leaving[Index(4)] = replace(leaving[Index(4)], draining=True)
    assert isinstance(decide_refresh(with_live(leaving), KEY, raw, now), Refused)


def test_a_seat_that_may_not_speak_takes_no_requests() -> None:
    world = with_key()
    state = state_of(world, 1)
    raw = playbook.refresh_request(KEY, world.now)
    lost = replace(state, soft=replace(state.soft, lost=True))
    forked = replace(state, log=replace(state.log, forked=True))
    early = replace(state, soft=replace(state.soft, caught_up=False))
    for doubtful in (lost, forked, early):
        decided = decide_refresh(doubtful, KEY, raw, Instant(world.now))
        assert decided == refused(RefusalCode.REFRESH_UNAVAILABLE)


def test_only_an_api_pods_word_for_this_key_and_this_epoch_counts() -> None:
    world = with_key(keys=(KEY, OTHER))
    forged = playbook.refresh_request(KEY, world.now, edge="another edge key")
    assert code(world, 1, raw=forged) is RefusalCode.BAD_REQUEST
    assert code(world, 1, raw=playbook.refresh_request(OTHER, world.now)) is RefusalCode.BAD_REQUEST
    assert code(world, 1, raw=b"no request at all") is RefusalCode.BAD_REQUEST
    used = playbook.refresh_request(KEY, world.now)
    world.feed_refresh(1, used)
    world.run(lambda: world.agrees(2))
    world.run_for(5_000)
    assert code(world, 1, raw=used) is RefusalCode.EXPIRED, "it has had its refresh"
    # A bad seat shows it again, as evidence: nobody joins.
    for _ in range(5):
        again = replace(playbook.reshare_open(2, 1, 1), reason=OpenReason.REQUEST, evidence=used)
        world.say(3, again)
        world.run_for(2_000)
    assert (world.key().epoch, world.key().attempt) == (2, None)


def test_whoever_asks_without_end_gets_one_ceremony_per_interval_and_no_more() -> None:
    world = with_key()
    begun = world.now
    accepted = Counter[bool]()
    while world.now < begun + 4_000:
        for seat in world.seats:
            accepted[isinstance(decide(world, seat), Accepted)] += 1
            world.ask_refresh(seat)
        world.run_for(100)
    world.run_for(5_000)
    epochs = world.key().epoch - 1
    intervals = (world.now - begun) // playbook.QUICK.min_interval_ms
    assert 2 <= epochs <= intervals
    assert accepted[False] > 3 * accepted[True]
    per_epoch = Counter((seat, record.from_epoch) for seat, record in opens(world))
    assert set(per_epoch.values()) == {1}, "one Open of a seat for an epoch"
    same_fold(world)
    playbook.every_subset_signs(world.keys_at())


def test_a_request_while_one_runs_does_not_disturb_it() -> None:
    world = with_key()
    world.ask_refresh(1)
    for phase in (Phase.ANNOUNCE, Phase.DEAL, Phase.VERDICT, Phase.READY):
        world.run(lambda phase=phase: (a := world.key().attempt) is not None and a.phase is phase)  # type: ignore[misc]
        for seat in world.seats:
            world.ask_refresh(seat)
    world.run(lambda: world.agrees(2))
    world.run_for(10_000)
    assert (world.key().epoch, world.key().ended) == (2, 0)
