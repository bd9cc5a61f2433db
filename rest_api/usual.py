"""How long answers take now, so that a request that is late can be told from a system that is slow. No clock, no IO.

Asking a second seat for what the first may have swallowed is right for a request that stands out. Where everything
takes long it would only add work to what there is too much of already, for most requests at once.
"""

from collections import deque
from typing import Final

REMEMBERED: Final = 128
ENOUGH: Final = 16
"""Fewer answers in ``WINDOW_S`` than this are no sign of load."""
WINDOW_S: Final = 10.0
STANDS_OUT: Final = 3.0
"""So many times as long as half of the answers take. A seat that swallows what it likes has a third of the requests,
so it cannot make the others' answers look slow."""
_GAIN: Final = 1 / 16


class Usual:
    """The times that the latest signatures took. Times in seconds on one clock."""

    def __init__(self) -> None:
        self._latest: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)
        self.mean_s = 0.0
        """A moving mean: the newest sixteen or so make most of it."""

    def answered(self, took_s: float, now: float) -> None:
        """A signature came after ``took_s``."""
        self._latest.append((now, took_s))
        self.mean_s += (took_s - self.mean_s) * _GAIN

    def stands_out_after(self, now: float) -> float:
        """From which age on a request is late as others are not; 0 while little is known."""
        while self._latest and now - self._latest[0][0] > WINDOW_S:
            self._latest.popleft()
        if len(self._latest) < ENOUGH:
            return 0.0
        return STANDS_OUT * sorted(took for _, took in self._latest)[len(self._latest) // 2]
