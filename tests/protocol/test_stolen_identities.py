"""Somebody who has every identity key there ever was, and writes what it likes into the log, gets no share by that."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from common.ids import Epoch, Index, Offset
from common.secret import Secret
from common.wire.messages import (
    Announce,
    CeremonyKind,
    CeremonyRecord,
    HealRequest,
    Open,
    OpenReason,
    Phase,
    PhaseVote,
)
from signer_service.frost import proofs
from signer_service.frost.group import Element, base_mul, mul, random_scalar
from signer_service.protocol import transcript
from signer_service.protocol.fold import fold
from signer_service.protocol.fold_phases import open_sub_share
from signer_service.protocol.log_state import Attempt, LogState
from signer_service.protocol.machine import PeersChanged
from tests import playbook
from tests.protocol.crash_world import again, beginning
from tests.world import World


class Thief:
    """It takes the name of one seat, with a transport key of its own, and never has any share to prove."""

    def __init__(self, world: World, victim: int) -> None:
        self.world, self.victim = world, Index(victim)
        self.secret = Secret(random_scalar(world.entropy(64)))

    def log(self) -> LogState:
        """What it folds: all that stands in the log at this moment."""
        state = LogState()
        for raw in self.world.log:
            state = fold(state, Offset(state.offset + 1), raw, self.world.trust).state
        return state

    def attempt(self) -> Attempt | None:
        return self.log().keys[playbook.KEY].attempt

    def say(self, seat: int, record: CeremonyRecord) -> None:
        self.world.append(playbook.say(seat, record, self.log()))

    def announce(self, attempt: Attempt) -> None:
        point, entropy = base_mul(self.secret.expose()), self.world.entropy
        proof = proofs.prove(self.secret, point, transcript.transport_proof(attempt.open_id, self.victim), entropy(64))
        self.say(self.victim, Announce(attempt.open_id, bytes(point), proof, b""))

    def opens(self, attempt: Attempt) -> bool:
        """Whether it can open what every dealer sealed for the seat whose name it took."""
        shared = {i: mul(Element(d.ephemeral_key), self.secret.expose()) for i, d in attempt.deals.items()}
        return bool(shared) and all(open_sub_share(attempt, i, self.victim, k) is not None for i, k in shared.items())


def test_all_identity_keys_of_the_past_open_no_ceremony_that_heals_a_seat_that_is_well() -> None:
    world, _ = again(beginning(2, 3))
    thief = Thief(world, 3)
    # The broker holds back what the true seat 3 says, for less than anybody's patience.
    until = world.now + 900
    world.seats[3].tamper = lambda record, at: [record] if at.now > until else []
    thief.say(3, HealRequest(playbook.KEY, Epoch(1)))
    for seat in (1, 2):
        evidence = thief.victim.to_bytes(2, "big") + world.entropy(64)
        nonce = world.entropy(32)
        thief.say(seat, Open(playbook.KEY, CeremonyKind.RESHARE, Epoch(1), 1, 1, OpenReason.HEAL, nonce, evidence))
    attempt = thief.attempt()
    if attempt is not None:
        thief.announce(attempt)
        world.run(lambda: (found := thief.attempt()) is not None and len(found.announced) == 3)
        for seat in (1, 2):
            thief.say(seat, PhaseVote(attempt.open_id, Phase.ANNOUNCE))
        world.run(lambda: (found := thief.attempt()) is not None and found.phase is Phase.VERDICT)
        found = thief.attempt()
        assert found is not None
        assert not thief.opens(found)
    world.run_for(5_000)
    assert world.holds(world.key().epoch)


def forged(world: World, victim: int, *others: int, **changes: Any) -> None:
    """With the seat's identity its beats can be forged, too. To the others it looks as if it had lost its share."""
    state = world.seats[others[0]].state
    assert state is not None
    live = {seat: replace(peer, **changes) if seat == victim else peer for seat, peer in state.soft.live.items()}
    world._presence = lambda: None  # type: ignore[method-assign]
    for index in others:
        world.feed(index, PeersChanged(live))


def test_a_seat_whose_own_beats_say_that_it_is_well_is_not_healed_whatever_others_say_in_its_name() -> None:
    world, _ = again(beginning(2, 3))
    thief = Thief(world, 3)
    forged(world, 3, 1, 2, epochs={}, disputed={playbook.KEY: 1})
    thief.say(3, HealRequest(playbook.KEY, Epoch(1)))
    world.run_for(3 * world.timing.heal_delay_ms)
    assert thief.attempt() is None
    # Nor at the first moment in which it is not heard: the request has stood unopposed for no time yet.
    world.stop(3)
    state = world.seats[1].state
    assert state is not None
    for index in (1, 2):
        world.feed(index, PeersChanged({seat: peer for seat, peer in state.soft.live.items() if seat != 3}))
    world.run_for(world.timing.heal_delay_ms - 100)
    assert thief.attempt() is None
    world.run_for(1_000)
    assert thief.attempt() is not None


def test_a_seat_that_comes_back_takes_its_place_from_whoever_announced_in_its_name() -> None:
    world, _ = again(beginning(2, 3))
    thief = Thief(world, 3)
    forged(world, 3, 1, 2, epochs={})
    thief.say(3, HealRequest(playbook.KEY, Epoch(1)))
    world.run(lambda: thief.attempt() is not None)
    # It happens to start again just then.
    world.stop(3)
    attempt = thief.attempt()
    assert attempt is not None
    thief.announce(attempt)
    world.run_for(200)
    world.start(3)
    world.run(lambda: world.key().epoch == 2 or world.key().ended > 0)
    world.run_for(1_000)
    assert world.agrees(2), world.describe()


def test_of_two_that_announce_for_a_seat_without_a_share_none_gets_one() -> None:
    # Seat 3 has lost its disk. Its identity was stolen long ago, and the thief is faster.
    world, _ = again(beginning(2, 3))
    thief = Thief(world, 3)
    world.lose_disk(3)
    world.start(3)

    def faster(record: CeremonyRecord, _: World) -> Iterable[CeremonyRecord]:
        attempt = thief.attempt()
        if isinstance(record, Announce) and attempt is not None and 3 not in attempt.announced:
            thief.announce(attempt)
        return [record]

    world.seats[3].tamper = faster
    world.run(lambda: world.key().epoch == 2)
    current = world.key().current
    assert current is not None
    assert set(current.shares) == {1, 2}
    assert world.noted("announce-void") == 3
    assert not world.blamed()
