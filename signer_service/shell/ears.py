"""Whether this replica hears what it says: for the ceremonies, where silence is held against others. No IO.

Our own beats come back on a topic that all write to. While they do not, the broker is away, or we stood still: what the
others said meanwhile we cannot have heard, and nobody is late. (``common.kafka.hearing`` is about readers that stick.)
"""

from collections.abc import Callable


class Ears:
    """Tells when hearing ended and when it began again, each once. On one thread.

    Args:
        clock: Monotonic seconds.
        within_s: So long our last beat may have been back. Before the first nothing is said.
    """

    def __init__(self, clock: Callable[[], float], within_s: float) -> None:
        self._clock = clock
        self._within_s = within_s
        self._heard_at: float | None = None
        self._came_back = False
        self._told_deaf = False

    def heard(self) -> None:
        """One of our beats came back."""
        self._came_back = self._came_back or self._told_deaf or self._is_silent()
        self._heard_at = self._clock()

    def has_news(self) -> bool:
        """Whether ``news`` would tell something."""
        return self._came_back or self._is_silent() is not self._told_deaf

    def news(self) -> tuple[bool, ...]:
        """What changed since this was asked last, oldest first: True where we began to hear, False where we ceased to.

        A silence that was over before anybody asked is told, too: what waited for it comes after it.
        """
        found: list[bool] = []
        if self._came_back:
            found += [True] if self._told_deaf else [False, True]
            self._came_back = self._told_deaf = False
        if self._is_silent() and not self._told_deaf:
            found.append(False)
            self._told_deaf = True
        return tuple(found)

    def _is_silent(self) -> bool:
        return self._heard_at is not None and self._clock() - self._heard_at > self._within_s
