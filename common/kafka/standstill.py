"""Whether a partition that a member of the group holds is read no more although there is something to read. No IO.

A Consumer can stick inside the client library while it keeps its partitions: it beats for the group, fetches nothing
and says nothing, and whoever writes there waits. So each partition of which nothing came is looked at now and then: one
that stands in the same place at two looks in a row, with records behind it, is stuck. A pause, a rebalance or a broker
that is away in between says nothing of the client, and begins the looking anew.
"""

from collections.abc import Set as AbstractSet
from typing import Final

LOOK_S: Final = 20.0
"""Between two looks. Far beyond what a broker that is slow, or changes its leader, makes a record late."""
LOOK_MOST_S: Final = 640.0
"""It doubles up to this with each client that is given up, until the partition is read: there may be what no client can
read, and each new one costs the work that is under way."""


class Standstill:
    """Says which partition to look at, one at a time, and what two looks show. On one thread."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._every_s: dict[int, float] = {}
        self._looks: dict[int, tuple[float, int | None]] = {}

    def due(self, passed_s: float, reading: AbstractSet[int]) -> int | None:
        """Time went by.

        Args:
            passed_s: How much, since this was asked last.
            reading: The partitions that should be read: held, not paused, with a broker that answers.

        Returns:
            The one to be looked at now, if there is one.
        """
        self._now_s += passed_s
        for number in self._looks.keys() - reading:
            del self._looks[number]
        for number in reading:
            self._looks.setdefault(number, (self._now_s, None))
        longest_first = sorted(reading, key=lambda number: self._looks[number][0])
        return next((number for number in longest_first if self._is_due(number)), None)

    def _is_due(self, number: int) -> bool:
        return self._now_s - self._looks[number][0] >= self._every_s.get(number, LOOK_S)

    def looked(self, number: int, stands_at: int | None) -> bool:
        """A look was taken. Returns whether the partition is stuck.

        Args:
            number: What was ``due``.
            stands_at: The offset that would be read next, if there are records; None: all was read, or nobody knows.
        """
        stuck = stands_at is not None and stands_at == self._looks[number][1]
        self._looks[number] = self._now_s, stands_at
        if stuck:
            self._every_s[number] = min(2 * self._every_s.get(number, LOOK_S), LOOK_MOST_S)
        return stuck

    def read(self, number: int) -> None:
        """Records of it came."""
        self._every_s.pop(number, None)
        self._looks[number] = self._now_s, None

    def disturbed(self) -> None:
        """Something else kept us from reading: what was seen before counts no more."""
        self._looks.clear()
