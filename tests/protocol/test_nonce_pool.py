"""Secret nonces: once, for one coordinator's one start, in memory only (RFC 9591, section 7)."""

import pickle
from itertools import pairwise

import pytest

from common.ids import BootId, Index, Instant, KeyId, Offset
from common.secret import Secret
from common.wire.messages import NonceGrant, NonceScope
from signer_service.frost.errors import InvalidElement
from signer_service.frost.group import Scalar
from signer_service.protocol.commitment_pool import FIRST_TARGET, CommitmentPool, Stocks
from signer_service.protocol.machine import Sender
from signer_service.protocol.nonce_pool import UNKNOWN_BOOT_SIZE, SecretNonces
from tests.protocol.signing_world import Dice

SHARE = Secret(Scalar(7))
SCOPE = NonceScope(KeyId("default"), Offset(10))
OTHER_SCOPE = NonceScope(KeyId("default"), Offset(20))
DICE = Dice(1)
FIRST, SECOND, THIRD = (BootId(DICE.uuid()) for _ in range(3))
COORDINATOR = Sender(Index(1), FIRST)


def reserve(pool: SecretNonces, count: int, who: Sender = COORDINATOR, scope: NonceScope = SCOPE) -> NonceGrant:
    return pool.reserve(who, scope, SHARE, count, DICE.entropy)


def test_a_pair_of_nonces_is_taken_once() -> None:
    pool = SecretNonces()
    grant = reserve(pool, 3)
    taken = pool.take(COORDINATOR, SCOPE, grant.first_counter + 1)
    assert taken is not None
    assert taken.commitment.to_bytes() == grant.commitments[1]
    assert pool.take(COORDINATOR, SCOPE, grant.first_counter + 1) is None
    assert len(pool) == 2


@pytest.mark.parametrize("who", [Sender(Index(3), FIRST), Sender(Index(1), SECOND)])
def test_nobody_but_the_boot_that_it_was_reserved_for_takes_a_pair(who: Sender) -> None:
    pool = SecretNonces()
    grant = reserve(pool, 1)
    assert pool.take(who, SCOPE, grant.first_counter) is None
    assert pool.take(COORDINATOR, SCOPE, grant.first_counter) is not None


def test_a_pair_of_one_epoch_is_not_used_in_another_and_is_gone_after_the_attempt() -> None:
    pool = SecretNonces()
    grant = reserve(pool, 1)
    assert pool.take(COORDINATOR, OTHER_SCOPE, grant.first_counter) is None
    assert pool.take(COORDINATOR, SCOPE, grant.first_counter) is None


def test_a_new_epoch_voids_the_pairs_of_the_old_one() -> None:
    pool = SecretNonces()
    old, new = reserve(pool, 2), reserve(pool, 2, scope=OTHER_SCOPE)
    pool.keep_only({OTHER_SCOPE})
    assert len(pool) == 2
    assert pool.take(COORDINATOR, SCOPE, old.first_counter) is None
    assert pool.take(COORDINATOR, OTHER_SCOPE, new.first_counter) is not None


def test_a_participant_holds_at_most_p_pairs_per_coordinator_and_drops_the_oldest() -> None:
    pool = SecretNonces(limit=8)
    first, second = reserve(pool, 6), reserve(pool, 6)
    assert len(pool) == 8
    assert pool.take(COORDINATOR, SCOPE, first.first_counter + 3) is None
    assert pool.take(COORDINATOR, SCOPE, first.first_counter + 4) is not None
    assert pool.take(COORDINATOR, SCOPE, second.first_counter + 5) is not None
    reserve(pool, 8, Sender(Index(2), SECOND))
    assert len(pool) == 14, "one coordinator's pairs take nothing away from another's"


def test_counters_and_commitments_never_repeat_within_a_boot() -> None:
    pool = SecretNonces(limit=4)
    grants = [reserve(pool, 4, Sender(Index(1 + k % 3), FIRST)) for k in range(10)]
    counters = [grant.first_counter + k for grant in grants for k in range(4)]
    assert len(set(counters)) == 40
    assert len({raw for grant in grants for raw in grant.commitments}) == 40


def test_a_replayed_request_of_an_earlier_boot_takes_nothing_away_from_the_live_one() -> None:
    pool = SecretNonces()
    live = pool.reserve(COORDINATOR, SCOPE, SHARE, 100, DICE.entropy, FIRST)
    for boot in (SECOND, THIRD, SECOND):
        grant = pool.reserve(Sender(Index(1), boot), SCOPE, SHARE, 256, DICE.entropy, FIRST)
        assert len(grant.commitments) == UNKNOWN_BOOT_SIZE
    assert len(pool) == 100 + UNKNOWN_BOOT_SIZE
    assert all(pool.take(COORDINATOR, SCOPE, live.first_counter + k) for k in range(100))


def test_a_new_boot_of_the_coordinator_voids_the_pairs_of_the_old_one() -> None:
    pool = SecretNonces()
    old = reserve(pool, 4)
    pool.reserve(Sender(Index(1), SECOND), SCOPE, SHARE, 4, DICE.entropy, SECOND)
    assert pool.take(COORDINATOR, SCOPE, old.first_counter) is None
    assert len(pool) == 4


def test_secret_nonces_are_neither_printed_nor_written() -> None:
    pool = SecretNonces()
    grant = reserve(pool, 1)
    taken = pool.take(COORDINATOR, SCOPE, grant.first_counter)
    assert taken is not None
    assert str(taken.hiding.expose()) not in repr(taken)
    with pytest.raises(TypeError):
        pickle.dumps(taken)


# --- the coordinator's side ------------------------------------------------------------------------------------------


def grant_of(count: int, first: int = 0) -> NonceGrant:
    pool = SecretNonces()
    grant = reserve(pool, count)
    return NonceGrant(SCOPE, Index(1), FIRST, first, grant.commitments)


def test_a_stock_is_refilled_below_half_and_grows_with_what_is_used() -> None:
    pool = CommitmentPool(SCOPE, Index(2), SECOND)
    now = Instant(1_000)
    assert pool.to_ask(now, 0) == FIRST_TARGET
    assert pool.to_ask(now, 0) == 0, "one request at a time"
    pool.stock(grant_of(FIRST_TARGET), b"", now)
    for _ in range(FIRST_TARGET // 2):
        assert pool.to_ask(now, 0) == 0
        pool.ready.popleft()
    pool.ready.popleft()
    assert pool.to_ask(Instant(now + 10), 0) == 2 * FIRST_TARGET - (FIRST_TARGET // 2 - 1)


def test_demand_is_asked_for_at_once_up_to_p() -> None:
    pool = CommitmentPool(SCOPE, Index(2), SECOND)
    assert pool.to_ask(Instant(0), 1_000) == 256


def test_a_seat_that_does_not_answer_is_asked_ever_more_seldom() -> None:
    pool = CommitmentPool(SCOPE, Index(2), SECOND)
    asked = [now for now in range(0, 20_000, 50) if pool.to_ask(Instant(now), 0)]
    gaps = [b - a for a, b in pairwise(asked)]
    assert gaps[:7] == [250, 500, 1_000, 2_000, 4_000, 4_000, 4_000]


def test_a_repeated_batch_is_stocked_once() -> None:
    stocks = Stocks()
    sender = Sender(Index(2), SECOND)
    assert stocks.is_new(sender, grant_of(4))
    assert not stocks.is_new(sender, grant_of(4))
    assert stocks.is_new(sender, grant_of(4, first=4))
    assert stocks.is_new(Sender(Index(2), THIRD), grant_of(4)), "counters begin again with a boot"


def test_commitments_are_checked_when_the_batch_arrives() -> None:
    pool = CommitmentPool(SCOPE, Index(2), SECOND)
    identity = b"\x01" + bytes(31)
    with pytest.raises(InvalidElement):
        pool.stock(NonceGrant(SCOPE, Index(1), FIRST, 0, (2 * identity,)), b"", Instant(0))


def test_a_lost_nonce_discards_what_is_older_too() -> None:
    pool = CommitmentPool(SCOPE, Index(2), SECOND)
    pool.stock(grant_of(6), b"", Instant(0))
    pool.discard_through(3)
    assert [stocked.counter for stocked in pool.ready] == [4, 5]
