"""Whether a process that is heard hears anything itself. No IO.

A Consumer that sticks inside the client library says nothing: no error, no end, only silence, for as long as the
process lives. A process that beats on a topic which it also reads knows better: what the broker has confirmed has to
come back. If it does not, every reader of whole topics goes on with a new Consumer, for what stuck one has met all. The
member of the consumer group sees by itself that it is not let in (``group``), or reads no more (``standstill``).
"""

from collections.abc import Callable
from typing import Final

from common.kafka.port import Delivery

DEAF_S: Final = 15.0
"""Far beyond what a broker that changes its leader, or a machine under full load, makes a record late."""
GAP_S: Final = 2.0
"""No more than this counts between two confirmations: in a longer gap the broker was away, or we stood still."""


class Hearing:
    """Counts the time in which beats are confirmed and nothing is heard. On one thread.

    Args:
        clock: Monotonic seconds.
        renew: Called after each ``DEAF_S`` of that time.
    """

    def __init__(self, clock: Callable[[], float], renew: Callable[[], None]) -> None:
        self._clock = clock
        self._renew = renew
        self._confirmed_at: float | None = None
        self._deaf_s = 0.0

    def delivered(self, delivery: Delivery) -> None:
        """The outcome of one of our beats. One that failed says nothing of what we hear."""
        if delivery.error is not None:
            return
        now = self._clock()
        if self._confirmed_at is not None:
            self._deaf_s += min(now - self._confirmed_at, GAP_S)
        self._confirmed_at = now
        if self._deaf_s >= DEAF_S:
            self._deaf_s = 0.0
            self._renew()

    def heard(self) -> None:
        """Something came on the topic of the beats: anybody's, believed or not. The way from the broker is open."""
        self._deaf_s = 0.0
