"""How wrong our own clock is, as far as our own beats prove it. No IO.

Deadlines are absolute times, so a clock that differs makes requests expire early or late; whoever runs the system has
to see it before that.
"""

from typing import Final

from common.ids import Instant

_MOST_MS: Final = 2**31 - 1


class SkewMeter:
    """Our clock less the broker's, as far as it is certain.

    A beat that we sent at s, that the broker appended at b (its clock) and that we read at r says that our clock is
    ahead by at least s - b, or behind by at least b - r; between them nothing is proven, and delay on the way is never
    taken for skew.
    """

    def __init__(self) -> None:
        self._samples: list[int] = []

    def sample(self, sent_ms: Instant, appended_ms: int, read_ms: Instant) -> None:
        """Take one of our own beats. Times in Unix milliseconds."""
        if sent_ms > appended_ms:
            skew = sent_ms - appended_ms
        elif appended_ms > read_ms:
            skew = read_ms - appended_ms
        else:
            skew = 0
        self._samples = [*self._samples[-4:], max(-_MOST_MS, min(_MOST_MS, skew))]

    @property
    def skew_ms(self) -> int:
        """Signed; the middle one of the last five, so that a single odd beat says nothing. 0 before any."""
        return sorted(self._samples)[len(self._samples) // 2] if self._samples else 0
