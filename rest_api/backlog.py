"""How long what is pending will take, judged by what is answered while there is much of it. No clock, no IO.

A queue that is longer than its requests have time for makes everybody late: who comes last is refused at once instead.
How fast answers come says what the system can do only while it has plenty to do; otherwise it says how much it was
asked.
"""

import math
from typing import Final

PLENTY: Final = 64
"""With fewer items under way nobody is refused."""
KNOWN_AFTER_S: Final = 1.0
"""The first answers of a burst take a while: before this much time with plenty to do, nothing is known."""
MEMORY_S: Final = 2.0


class Backlog:
    """The rate of answers while plenty of items are pending. Times in seconds on one clock."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._fresh = 0
        self._busy_s = self._answered = 0.0
        self._known_s = 0.0

    def answered(self) -> None:
        """An item was signed, or refused for a reason of its own."""
        self._fresh += 1

    def look(self, pending: int, now: float) -> None:
        """``pending`` items are under way at ``now``. To be called many times a second."""
        elapsed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now
        fresh, self._fresh = self._fresh, 0
        if pending < PLENTY:
            self._busy_s = self._answered = self._known_s = 0.0
            return
        kept = math.exp(-elapsed / MEMORY_S)
        self._busy_s = self._busy_s * kept + elapsed
        self._answered = self._answered * kept + fresh
        self._known_s += elapsed

    def wait_s(self, pending: int) -> float:
        """How long the last of ``pending`` items will wait; 0 while that is not known."""
        if pending < PLENTY or self._known_s < KNOWN_AFTER_S:
            return 0.0
        # As if one more had come: where none did, the wait is long, and still a number.
        return pending * self._busy_s / (self._answered + 1)
