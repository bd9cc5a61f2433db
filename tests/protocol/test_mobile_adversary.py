"""P3: owning t-1 replicas in each of ten epochs gives no more than in one, with every identity key of the past.

The same adversary steals the key as soon as it owns t in one epoch, or one check is switched off.
"""

from collections.abc import Callable, Iterator

import pytest

from common import ed25519
from common.ids import OpenId
from signer_service.frost.group import ORDER, Scalar, base_mul
from signer_service.protocol import ceremony_part, fold_phases
from signer_service.protocol.ceremony_state import CeremonyState, KeySecrets, OwnPart
from tests import playbook
from tests.protocol.adversary import Adversary
from tests.protocol.crash_world import remembered
from tests.world import World

EPOCHS = 10


@pytest.fixture(autouse=True)
def what_one_seat_has_found_out_the_others_need_not() -> Iterator[None]:
    """All seats read one log: each record is folded once."""
    with remembered():
        yield


def with_key(threshold: int, size: int) -> World:
    world = World(threshold, size, seed=11)
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(2_000)
    return world


def to_next_epoch(world: World) -> None:
    """A refresh, however many attempts it takes, and its erasures."""
    epoch = world.key().epoch
    world.run_for(600)
    for index in world.seats:
        world.ask_refresh(index)

    def over() -> bool:
        past = world.key().past
        erased = bool(past) and past[-1].epoch == epoch and len(past[-1].erased) == len(past[-1].holders)
        # A seat that was robbed of its share asks to be healed: then the next ceremony comes by itself.
        return erased or world.key().epoch > epoch + 1

    world.run(over)


def route(epoch: int, count: int, size: int) -> tuple[int, ...]:
    """Whom it owns in an epoch: ``count`` seats, others than in the one before as far as there are any."""
    return tuple((epoch * count + k) % size + 1 for k in range(count))


def march(world: World, adversary: Adversary, epochs: int, *, stays: bool = False) -> None:
    """Through ``epochs`` epochs, t-1 seats in each, by the strictest count: a seat that it owns while a ceremony runs
    is owned in both epochs. With ``stays`` it owns the same seats through every other ceremony."""
    count, size = world.keys_at()[1].threshold - 1, len(world.seats)
    for step in range(1, epochs + 1):
        moves = not stays or step % 2 == 1
        here = route(step, count, size) if moves else tuple(adversary.owned)
        adversary.take(*here)
        remains = stays and step % 2 == 1
        next_there = here if remains else route(step + 1, count, size)
        if not remains:
            adversary.leave()
        free = adversary.identities - set(here) - set(next_there)
        adversary.victim = min(free, default=0)
        adversary.deals = step % 2 == 0
        adversary.votes = step % 3 == 0
        to_next_epoch(world)


def check_public_key(world: World, key: int | None) -> None:
    assert key is not None, "the adversary did not get the key"
    assert base_mul(Scalar(key % ORDER)) == world.keys_at()[1].public.group_key


@pytest.mark.parametrize(("threshold", "size", "stays"), [(2, 3, False), (2, 3, True), (3, 5, False)])
def test_p3_t_minus_1_seats_of_each_of_ten_epochs_give_nothing(threshold: int, size: int, stays: bool) -> None:
    world = with_key(threshold, size)
    adversary = Adversary(world)
    march(world, adversary, EPOCHS, stays=stays)
    assert world.key().epoch == EPOCHS + 1
    assert adversary.identities == set(world.seats), "it has every identity key by now"
    loot = adversary.loot
    assert len(loot.polynomials) > EPOCHS + 2, "attempts failed, with their deals in the log"
    assert world.noted("announce-refused") >= 1
    assert world.noted("deal-twice") >= 1
    assert loot.work() is None
    assert len(loot.shares) >= EPOCHS, "a share or two of every epoch it went through"
    assert loot.most_of_one_epoch() == threshold - 1
    # What was sealed to a seat that it owned at that moment, and nothing else.
    assert bool(loot.opened) == stays
    for open_id in {attempt for attempt, _, _ in loot.opened}:
        assert len({recipient for attempt, _, recipient in loot.opened if attempt == open_id}) == threshold - 1
    playbook.every_subset_signs(world.keys_at())


@pytest.mark.parametrize(("threshold", "size"), [(2, 3), (3, 5)])
def test_t_seats_in_one_epoch_give_the_key(threshold: int, size: int) -> None:
    world = with_key(threshold, size)
    adversary = Adversary(world)
    adversary.take(*route(1, threshold - 1, size))
    adversary.leave()
    to_next_epoch(world)
    adversary.take(*route(2, threshold, size))
    key = adversary.loot.work()
    check_public_key(world, key)


def test_without_the_proof_in_announce_the_same_adversary_gets_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_phases, "_check_announce", lambda *_: True)
    world = with_key(2, 3)
    adversary = Adversary(world, proof_works=False)
    march(world, adversary, 2)
    adversary.take(*route(3, 1, 3))
    check_public_key(world, adversary.loot.work())


@pytest.mark.parametrize("what", ["transport keys", "staged shares"])
def test_without_the_erasure_of_failed_attempts_the_same_adversary_gets_the_key(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[int, dict[OpenId, list[int]]] = {}

    def keep(seat: int, part: OwnPart) -> None:
        secret = part.transport if what == "transport keys" else part.staged and part.staged.share
        if secret:
            kept.setdefault(seat, {}).setdefault(part.open_id, []).append(secret.expose())

    settle: Callable[..., KeySecrets] = ceremony_part._take_part

    def keeping(state: CeremonyState, key: object, attempt: object, mine: KeySecrets, *rest: object) -> KeySecrets:
        after = settle(state, key, attempt, mine, *rest)
        for part in (mine.part, after.part):
            if part is not None:
                keep(state.seat, part)
        return after

    monkeypatch.setattr(ceremony_part, "_take_part", keeping)
    world = with_key(2, 3)
    adversary = Adversary(world)
    adversary.not_erased = kept
    march(world, adversary, 6)
    check_public_key(world, adversary.loot.work())
    assert adversary.loot.most_of_one_epoch() >= 2


def test_the_key_that_it_looks_for_is_the_one_that_signs() -> None:
    world = with_key(2, 3)
    adversary = Adversary(world)
    adversary.take(1, 2)
    key = adversary.loot.work()
    check_public_key(world, key)
    signature = playbook.sign_with(world.keys_at(), (1, 3), b"m")
    assert ed25519.verify(bytes(base_mul(Scalar(key or 0))), b"m", signature)
