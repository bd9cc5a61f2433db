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
"""P: commitments that a coordinator stocks, and sessions that may be outstanding between it and one participant."""

KEPT_SIZE: Final = 2 * POOL_SIZE
"""Secret pairs kept per coordinator: a full stock, and another that it asked for because the first seemed lost."""

UNKNOWN_BOOT_SIZE: Final = 16
"""Secret pairs kept for a boot of a coordinator that presence does not name (yet)."""

_PAIR_ENTROPY: Final = 2 * RANDOMNESS_BYTES


class _Reserved:
    """Pairs of one boot of one coordinator, oldest first, by counter."""

    __slots__ = ("pairs",)

    def __init__(self) -> None:
        self.pairs: dict[int, tuple[NonceScope, SigningNonces]] = {}


class SecretNonces:
    """Secret nonces by (coordinator, its boot, scope, counter). Counters never repeat within one boot of ours."""

    __slots__ = ("_limit", "_next_counter", "_reserved")

    def __init__(self, limit: int = KEPT_SIZE) -> None:
        self._limit = limit
        self._next_counter = 0
        self._reserved: dict[Index, dict[BootId, _Reserved]] = {}

    def __len__(self) -> int:
        return sum(len(reserved.pairs) for boots in self._reserved.values() for reserved in boots.values())

    def reserve(
        self,
        coordinator: Sender,
        scope: NonceScope,
        share: Secret[Scalar],
        count: int,
        entropy: Entropy,
        live_boot: BootId | None = None,
    ) -> NonceGrant:
        """Make ``count`` fresh pairs for ``coordinator`` and return their commitments. 35 us a pair.

        Beyond the limit the coordinator's oldest pairs go: they are what a coordinator lost the commitments of.

        Args:
            coordinator: Who asks, and which start of it.
            scope: The key and epoch.
            share: This seat's share of it.
            count: At least 1.
            entropy: 64 bytes are drawn per pair.
            live_boot: The coordinator's boot by presence, if known. Another boot has just started, or its request is a
                replay: it gets few pairs, and they take nothing away from the live one.
        """
        boots = self._reserved.setdefault(coordinator.index, {})
        limit = self._limit
        if live_boot is not None and live_boot != coordinator.boot_id:
            limit = min(limit, UNKNOWN_BOOT_SIZE)
            count = min(count, limit)
        reserved = boots.get(coordinator.boot_id)
        if reserved is None:
            for boot_id in [boot_id for boot_id in boots if boot_id != live_boot]:
                del boots[boot_id]  # the memory that held those commitments is gone: nobody honest can use them
            reserved = boots[coordinator.boot_id] = _Reserved()
        pairs = reserved.pairs
        first = self._next_counter
        self._next_counter = first + count
        random = entropy(_PAIR_ENTROPY * count)
        commitments = []
        for k in range(count):
            nonces, commitment = commit(share, random[_PAIR_ENTROPY * k : _PAIR_ENTROPY * (k + 1)])
            pairs[first + k] = (scope, nonces)
            commitments.append(commitment.to_bytes())
        while len(pairs) > limit:
            del pairs[next(iter(pairs))]
        return NonceGrant(scope, coordinator.index, coordinator.boot_id, first, tuple(commitments))

    def take(self, coordinator: Sender, scope: NonceScope, counter: int) -> SigningNonces | None:
        """Remove the pair and return it, or None: never made, made for somebody else, used, dropped or void."""
        reserved = self._reserved.get(coordinator.index, {}).get(coordinator.boot_id)
        if reserved is None:
            return None
        pair = reserved.pairs.pop(counter, None)
        if pair is None or pair[0] != scope:
            return None
        return pair[1]

    def keep_only(self, scopes: Container[NonceScope]) -> None:
        """Destroy every pair of a scope that is not in ``scopes``: a nonce of an epoch ends with it."""
        for reserved in (reserved for boots in self._reserved.values() for reserved in boots.values()):
            reserved.pairs = {c: pair for c, pair in reserved.pairs.items() if pair[0] in scopes}
