"""A participant's secret nonces: in RAM, reserved for one start of one coordinator, each used at most once.

Two signature shares made with one pair of nonces reveal the key share (RFC 9591, section 7). So there is one way to a
pair, ``take``, and it removes the pair before anybody computes anything with it; nothing here can be written to disk or
printed; a pool belongs to one boot of this process, and a pair to one key at one epoch.
"""

from collections.abc import Container
from typing import Final

from common.ids import BootId, Index
from common.secret import Secret
from common.wire.messages import NonceGrant, NonceScope
from signer_service.frost.group import Scalar
from signer_service.frost.nonces import RANDOMNESS_BYTES, SigningNonces, commit
from signer_service.protocol.machine import Entropy, Sender

POOL_SIZE: Final = 256
"""P: secret pairs kept per coordinator, and sessions that may be outstanding between it and one participant."""

_PAIR_ENTROPY: Final = 2 * RANDOMNESS_BYTES


class _Reserved:
    """Pairs of one coordinator, oldest first, by counter."""

    __slots__ = ("boot_id", "pairs")

    def __init__(self, boot_id: BootId) -> None:
        self.boot_id = boot_id
        self.pairs: dict[int, tuple[NonceScope, SigningNonces]] = {}


class SecretNonces:
    """Secret nonces by (coordinator, its boot, scope, counter). Counters never repeat within one boot of ours."""

    __slots__ = ("_limit", "_next_counter", "_reserved")

    def __init__(self, limit: int = POOL_SIZE) -> None:
        self._limit = limit
        self._next_counter = 0
        self._reserved: dict[Index, _Reserved] = {}

    def __len__(self) -> int:
        return sum(len(reserved.pairs) for reserved in self._reserved.values())

    def reserve(
        self, coordinator: Sender, scope: NonceScope, share: Secret[Scalar], count: int, entropy: Entropy
    ) -> NonceGrant:
        """Make ``count`` fresh pairs for ``coordinator`` and return their commitments. 35 us a pair.

        Beyond the limit the coordinator's oldest pairs go: they are what a coordinator lost the commitments of.
        """
        reserved = self._reserved.get(coordinator.index)
        if reserved is None or reserved.boot_id != coordinator.boot_id:
            # The memory that held the old commitments is gone, so nobody honest can use them.
            reserved = self._reserved[coordinator.index] = _Reserved(coordinator.boot_id)
        pairs = reserved.pairs
        first = self._next_counter
        self._next_counter = first + count
        random = entropy(_PAIR_ENTROPY * count)
        commitments = []
        for k in range(count):
            nonces, commitment = commit(share, random[_PAIR_ENTROPY * k : _PAIR_ENTROPY * (k + 1)])
            pairs[first + k] = (scope, nonces)
            commitments.append(commitment.to_bytes())
        while len(pairs) > self._limit:
            del pairs[next(iter(pairs))]
        return NonceGrant(scope, coordinator.index, coordinator.boot_id, first, tuple(commitments))

    def take(self, coordinator: Sender, scope: NonceScope, counter: int) -> SigningNonces | None:
        """Remove the pair and return it, or None: never made, made for somebody else, used, dropped or void."""
        reserved = self._reserved.get(coordinator.index)
        if reserved is None or reserved.boot_id != coordinator.boot_id:
            return None
        pair = reserved.pairs.pop(counter, None)
        if pair is None or pair[0] != scope:
            return None
        return pair[1]

    def keep_only(self, scopes: Container[NonceScope]) -> None:
        """Destroy every pair of a scope that is not in ``scopes``: a nonce of an epoch ends with it."""
        for reserved in self._reserved.values():
            reserved.pairs = {c: pair for c, pair in reserved.pairs.items() if pair[0] in scopes}
