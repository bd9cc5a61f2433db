"""The floor: CPU time of the group operations that one threshold signature cannot do without, summed over everybody.

2t base multiplications + t (t multiplications + 2t additions) + 2 verifications, through PyNaCl itself, so that it
does not move with our code: commitments (2 for each of t participants), each participant's R over all commitments,
and a verification by the coordinator and by the gateway.

A process of its own, because the load's own caches and threads would be in the figure otherwise. It is told
``{"threshold": t, "samples": n, "within_s": s}`` line by line and answers each with ``{"samples_ms": […]}``; to
``{"operations": true}`` with ``{"cost_us": {…}}``, what each operation of ``refresh_floor`` costs now.
"""

import json
import sys
import time
from statistics import median
from typing import Any

from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_scalarmult_ed25519_noclamp,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)

from tests.bench.refresh_floor import Operations
from tests.bench.talk import say

_MS_PER_SAMPLE = 20.0


class Floor:
    """The operations of one signature by ``threshold`` participants, ready to be repeated."""

    def __init__(self, threshold: int) -> None:
        self.threshold = threshold
        # Any full-size scalar costs the same: libsodium's multiplications are constant time.
        self._scalar = bytes(range(1, 32)) + b"\x01"
        self._points = [
            crypto_scalarmult_ed25519_base_noclamp(bytes([i + 1]) + bytes(30) + b"\x01") for i in range(2 * threshold)
        ]
        self._public, private = crypto_sign_seed_keypair(bytes(32))
        self._signed = crypto_sign(b"what the floor verifies, about as long as a message", private)

    def once(self) -> None:
        """Do it all, one time."""
        t, scalar, points = self.threshold, self._scalar, self._points
        for _ in range(2 * t):
            crypto_scalarmult_ed25519_base_noclamp(scalar)
        for _ in range(t):
            total = points[0]
            for i in range(t):
                # D_i + rho_i * E_i, added to what was there.
                bound = crypto_scalarmult_ed25519_noclamp(scalar, points[2 * i])
                total = crypto_core_ed25519_add(total, crypto_core_ed25519_add(points[2 * i + 1], bound))
        for _ in range(2):
            crypto_sign_open(self._signed, self._public)

    def sample_ms(self) -> float:
        """CPU ms of one time: the median of as many as fit about 20 ms, so that one interrupt does not decide."""
        taken: list[float] = []
        while sum(taken) < _MS_PER_SAMPLE or len(taken) < 5:
            before = time.thread_time_ns()
            self.once()
            taken.append((time.thread_time_ns() - before) / 1e6)
        return median(taken)


def main() -> None:
    """Answer commands until the input ends."""
    operations = Operations()
    for line in sys.stdin:
        command = json.loads(line)
        if "operations" in command:
            answer: dict[str, Any] = {"cost_us": operations.cost_us()}
        else:
            answer = {"samples_ms": _samples(command["threshold"], command["samples"], command["within_s"])}
        say(answer)


def _samples(threshold: int, count: int, within_s: float) -> list[float]:
    floor = Floor(threshold)
    floor.once()
    samples = []
    for _ in range(count):
        time.sleep(within_s / count / 2)
        samples.append(floor.sample_ms())
        time.sleep(within_s / count / 2)
    return samples


if __name__ == "__main__":
    main()
