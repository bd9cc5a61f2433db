"""The one place where time and randomness come from. Everything else takes them as arguments."""

import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from common.ids import BootId, Instant
from signer_service.protocol.machine import Entropy


@dataclass(frozen=True, slots=True)
class Sources:
    """Two clocks and the operating system's randomness."""

    now: Callable[[], Instant]
    """Unix milliseconds. It may jump: what must not, uses ``monotonic``."""
    monotonic: Callable[[], float]
    """Seconds since some moment; never goes back."""
    entropy: Entropy
    """Fresh random bytes of the operating system."""


def system() -> Sources:
    """The real ones."""
    return Sources(
        now=lambda: Instant(time.time_ns() // 1_000_000),
        monotonic=time.monotonic,
        entropy=os.urandom,
    )


def new_boot_id(entropy: Entropy) -> BootId:
    """Name one start of a process: a random UUID (RFC 9562, version 4)."""
    return BootId(str(uuid.UUID(bytes=entropy(16), version=4)))
