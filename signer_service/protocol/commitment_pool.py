"""A coordinator's stock of other replicas' nonce commitments, asked for ahead of need.

One pool per (scope, participant), for one boot of that participant. It starts small and grows with what is used, up to
the number that a participant keeps secret nonces for. Every commitment is looked at when its batch arrives, and the
signed batch that it came in stays with it: evidence, if the share for it should be bad.
"""

from collections import deque
from typing import Final, NamedTuple

from common.ids import BootId, Index, Instant
from common.wire.messages import NonceGrant, NonceScope
from signer_service.frost.nonces import Commitment
from signer_service.protocol.machine import Sender
from signer_service.protocol.nonce_pool import POOL_SIZE

FIRST_TARGET: Final = 16
FIRST_PATIENCE_MS: Final = 250
MAX_PATIENCE_MS: Final = 4_000
MAX_COUNTER: Final = 2**53 - 1
"""The largest counter that a package can name."""
GROW_WITHIN_MS: Final = 1_000
"""A pool that is refilled again this soon is too small."""
MAX_CREDIT: Final = 4
"""Requests of full size whose answers may all come late, and are all taken."""
MAX_BATCH_BYTES: Final = 128 * 1024
"""An honest batch has less than 20 KiB; one that would not fit into an audit record as evidence is not taken."""


class Stocked(NamedTuple):
    """One commitment of another seat, not used yet: where it stands there, and the signed batch it came in."""

    counter: int
    raw: bytes
    commitment: Commitment
    envelope: bytes


class CommitmentPool:
    """Commitments of one boot of one seat for one scope."""

    __slots__ = (
        "asked",
        "asked_at",
        "asked_before",
        "boot_id",
        "credit",
        "limit",
        "look_at",
        "patience_ms",
        "ready",
        "refilled_at",
        "scope",
        "seat",
        "target",
    )

    def __init__(self, scope: NonceScope, seat: Index, boot_id: BootId, limit: int = POOL_SIZE) -> None:
        self.scope = scope
        self.seat = seat
        self.boot_id = boot_id
        self.limit = limit
        self.target = min(FIRST_TARGET, limit)
        self.ready: deque[Stocked] = deque()
        self.asked = 0
        self.credit = 0
        self.asked_at = Instant(0)
        self.asked_before = 0
        """The next session's id when it was asked."""
        self.look_at = Instant(0)
        self.patience_ms = FIRST_PATIENCE_MS
        self.refilled_at = Instant(-GROW_WITHIN_MS)

    def __len__(self) -> int:
        return len(self.ready)

    def to_ask(self, now: Instant, demand: int, heard_at: Instant = Instant(0), most: int = POOL_SIZE) -> int:
        """How many commitments to ask for now, given ``demand`` sessions that wait for some; the caller then asks.

        Nothing while an earlier request may still be answered; a seat that does not answer is asked ever more seldom.
        What is asked for twice is made twice, and pushes out what it was made for the first time.

        Args:
            now: This process's clock.
            demand: How many sessions wait.
            heard_at: When the seat last answered something that it was sent before the request.
            most: How large a stock is of use.
        """
        if self.asked:
            if now < self.asks_again_at(heard_at):
                return 0
            self.patience_ms = min(2 * self.patience_ms, MAX_PATIENCE_MS)
        elif len(self.ready) >= max(1, self.target // 2) and len(self.ready) >= min(demand, self.target):
            return 0
        elif now - self.refilled_at < GROW_WITHIN_MS:
            self.target = 2 * self.target
        self.target = min(self.limit, most, max(self.target, demand))
        self.asked = max(0, self.target - len(self.ready))
        self.credit = min(self.credit + self.asked, MAX_CREDIT * self.limit)
        self.asked_at = now
        return self.asked

    def asks_again_at(self, heard_at: Instant) -> Instant:
        """When a request counts as lost."""
        return Instant(max(self.asked_at, heard_at) + self.patience_ms)

    @property
    def coming(self) -> bool:
        """Whether commitments were asked for and the seat is not known to be slow with them."""
        return self.asked > 0 and self.patience_ms == FIRST_PATIENCE_MS

    def stock(self, grant: NonceGrant, envelope: bytes, now: Instant) -> None:
        """Take a batch of commitments. 35 us each.

        Raises:
            BadInput: one of them is no pair of elements, as far as ``Commitment.to_multiply`` looks. The envelope
                around it proves who sent it.
        """
        self.credit -= len(grant.commitments)
        # The participant keeps only so many secrets and drops the oldest, so that the oldest of ours may be gone too.
        for k, raw in enumerate(grant.commitments[-self.limit :], start=max(0, len(grant.commitments) - self.limit)):
            self.ready.append(Stocked(grant.first_counter + k, raw, Commitment.to_multiply(raw), envelope))
        while len(self.ready) > self.limit:
            self.ready.popleft()
        self.asked = 0
        self.patience_ms = FIRST_PATIENCE_MS
        self.refilled_at = now

    def discard_through(self, counter: int) -> None:
        """Forget what is not newer than ``counter``: the seat lost that one, and it loses the oldest first."""
        while self.ready and self.ready[0].counter <= counter:
            self.ready.popleft()

    def clear(self) -> None:
        """Forget everything, and what was asked for: the seat says that it holds none of these."""
        self.ready.clear()
        self.asked = 0


class Stocks:
    """All pools, and the rule that a batch is taken once: counters of one boot of a seat only go up."""

    __slots__ = ("_next_counter", "limit", "pools")

    def __init__(self, limit: int = POOL_SIZE) -> None:
        self.limit = limit
        self._next_counter: dict[Index, tuple[BootId, int]] = {}
        self.pools: dict[NonceScope, dict[Index, CommitmentPool]] = {}

    def pool(self, scope: NonceScope, seat: Index, boot_id: BootId) -> CommitmentPool:
        """The pool for this boot of the seat; a pool of another boot is void and goes."""
        pools = self.pools.setdefault(scope, {})
        pool = pools.get(seat)
        if pool is None or pool.boot_id != boot_id:
            pool = pools[seat] = CommitmentPool(scope, seat, boot_id, self.limit)
        return pool

    def find(self, scope: NonceScope, seat: Index, boot_id: BootId) -> CommitmentPool | None:
        """As ``pool``, but only if there is one already."""
        pools = self.pools.get(scope)
        pool = None if pools is None else pools.get(seat)
        return pool if pool is not None and pool.boot_id == boot_id else None

    def is_new(self, sender: Sender, grant: NonceGrant) -> bool:
        """Whether ``grant`` comes after all that this boot of the sender gave; then it will not be new again.

        A repeated batch would stock commitments that have been used: the participant refuses them, time is lost.
        """
        boot_id, expected = self._next_counter.get(sender.index, (sender.boot_id, 0))
        if boot_id == sender.boot_id and grant.first_counter < expected:
            return False
        self._next_counter[sender.index] = (sender.boot_id, grant.first_counter + len(grant.commitments))
        return True

    def keep_only(self, scopes: set[NonceScope]) -> None:
        """Forget the pools of every other scope."""
        self.pools = {scope: pools for scope, pools in self.pools.items() if scope in scopes}

    @property
    def left(self) -> int:
        """Commitments in stock, of all seats and scopes."""
        return sum(len(pool) for pools in self.pools.values() for pool in pools.values())

    def left_by_seat(self) -> dict[Index, int]:
        """Commitments in stock, of all scopes."""
        left: dict[Index, int] = {}
        for pools in self.pools.values():
            for seat, pool in pools.items():
                left[seat] = left.get(seat, 0) + len(pool)
        return left


def malformed(grant: NonceGrant, envelope: bytes) -> bool:
    """Whether a batch is of no use and of no value as evidence.

    A counter that no package can name is as bad as none: with it in a session, our own record could not be written.
    """
    last = grant.first_counter + len(grant.commitments) - 1
    return (
        not grant.commitments or not 0 <= grant.first_counter <= last <= MAX_COUNTER or len(envelope) > MAX_BATCH_BYTES
    )
