"""What a refresh cannot do without: group operations, seals, signatures and checks, counted from the protocol.

The counts are of all replicas together, for t-of-n with every seat there and honest, as ``signer_service.protocol``
runs it; ``test_bench`` plays a refresh and compares. What the code does twice is here once. Kafka, disk, Avro, beats
and copies are not in it: they are what the multiple of this floor is about.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from statistics import median
from typing import Final

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_core_ed25519_add,
    crypto_core_ed25519_is_valid_point,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_scalarmult_ed25519_noclamp,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)

from signer_service.protocol.commitment_pool import FIRST_TARGET

_BATCH: Final = 8
_BATCHES: Final = 5
_RECORD_BYTES: Final = 600
"""About what a record of the ceremony log has."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each operation is done."""

    base: int = 0
    """Multiplications of the base point."""
    mul: int = 0
    """Multiplications of another point."""
    add: int = 0
    valid: int = 0
    """Checks that received bytes are a point of the prime-order group."""
    seal: int = 0
    unseal: int = 0
    sign: int = 0
    verify: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Counts)))

    def named(self) -> dict[str, int]:
        """By name."""
        return {each.name: getattr(self, each.name) for each in fields(Counts)}


def steps(t: int, n: int) -> dict[str, Counts]:
    """Counts of one refresh, all n replicas together, by step. Each record of the log is checked by all n."""
    each = n * n
    proof = Counts(base=each, mul=each, add=each)
    heard = Counts(sign=n, verify=each)
    return {
        # t Opens, and in each the edge's signature under the request, which every seat looks at once.
        "open": Counts(sign=t, verify=n * t + n),
        # X_j and two proofs: of x_j and of the share that is held.
        "announce": Counts(base=3 * n, valid=each) + proof + proof + heard,
        # The first commitment is the dealer's Y, known to all; E_i and a proof of it; a shared point per recipient.
        "deal": Counts(base=n * (t + 1), mul=each, seal=each, valid=each * t) + proof + heard,
        # Each sub-share is opened, and looked at against its dealer's commitments.
        "verdict": Counts(base=each, mul=each * t, add=each * (t - 1), unseal=each) + heard,
        # Everybody combines n lists of t commitments, and evaluates the result at n seats.
        "result": Counts(mul=each * t + each * (t - 1), add=n * t * (n - 1) + each * (t - 1)),
        # The new share against its Y', and a proof of it.
        "ready": Counts(base=2 * n) + proof + heard,
        # One session of t: nonces, R at each, shares; four records between the coordinator and each other; the sum
        # verified; the record on the log, whose two signatures everybody verifies.
        "key record": Counts(
            base=3 * t,
            mul=t * (t - 1),
            add=2 * t * (t - 1),
            valid=t * (t - 1),
            sign=4 * (t - 1) + 1,
            verify=4 * (t - 1) + 1 + 2 * n,
        ),
        # Ready once more, with another proof: nobody erases before enough have seen the commit.
        "committed": Counts(base=n) + proof + heard,
        "erased": heard,
        # Each coordinator's first stock of each other seat's commitments.
        "nonces": Counts(
            base=2 * FIRST_TARGET * n * (n - 1),
            valid=FIRST_TARGET * n * (n - 1),
            sign=2 * n * (n - 1),
            verify=2 * n * (n - 1),
        ),
    }


def counts(t: int, n: int) -> Counts:
    """All steps together."""
    return sum(steps(t, n).values(), Counts())


def per_replica_ms(t: int, n: int, cost_us: Mapping[str, float]) -> float:
    """CPU ms of one replica, on average, with these costs of each operation in microseconds."""
    return sum(count * cost_us[name] for name, count in counts(t, n).named().items()) / n / 1000


class Operations:
    """Each operation by name, ready to be repeated, through PyNaCl itself."""

    def __init__(self) -> None:
        scalar = bytes(range(1, 32)) + b"\x01"  # full size: libsodium's multiplications are constant time
        point = crypto_scalarmult_ed25519_base_noclamp(scalar)
        other = crypto_scalarmult_ed25519_base_noclamp(b"\x07" + scalar[1:])
        public, private = crypto_sign_seed_keypair(bytes(32))
        record, key, nonce, plain, context = bytes(_RECORD_BYTES), bytes(32), bytes(24), bytes(32), bytes(200)
        signed = crypto_sign(record, private)
        sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(plain, context, nonce, key)
        self.by_name: dict[str, Callable[[], object]] = {
            "base": lambda: crypto_scalarmult_ed25519_base_noclamp(scalar),
            "mul": lambda: crypto_scalarmult_ed25519_noclamp(scalar, point),
            "add": lambda: crypto_core_ed25519_add(point, other),
            "valid": lambda: crypto_core_ed25519_is_valid_point(point),
            "seal": lambda: crypto_aead_xchacha20poly1305_ietf_encrypt(plain, context, nonce, key),
            "unseal": lambda: crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, context, nonce, key),
            "sign": lambda: crypto_sign(record, private),
            "verify": lambda: crypto_sign_open(signed, public),
        }

    def cost_us(self) -> dict[str, float]:
        """CPU microseconds of each: the median of a few short batches, so that one interrupt does not decide."""
        return {name: self._one_us(call) for name, call in self.by_name.items()}

    def _one_us(self, call: Callable[[], object]) -> float:
        taken = []
        for _ in range(_BATCHES):
            before = time.thread_time_ns()
            for _ in range(_BATCH):
                call()
            taken.append((time.thread_time_ns() - before) / 1000 / _BATCH)
        return median(taken)
