"""Which seats are alive and yet answer nothing. No clock, no IO.

A seat that beats, claims partitions and swallows what it reads looks like one that is slow. A slow one still answers
something while it owes much, so only one that owes and says nothing at all for a long time is mute: what it has is then
asked of others, and it is asked last until it has answered something, or for a while.
"""

from typing import Final

from common.ids import Index

MUTE_AFTER_S: Final = 2.5
"""Half of the usual deadline: time is left to ask somebody else. A seat that is busy answers within it."""
AVOID_S: Final = 30.0


class Silence:
    """By seat, since when it has owed answers without giving one. Times in seconds on one clock."""

    def __init__(self) -> None:
        self._owing_since: dict[Index, float] = {}
        self._avoided_until: dict[Index, float] = {}

    def asked(self, seat: Index, now: float) -> None:
        """Something was sent to it."""
        self._owing_since.setdefault(seat, now)

    def answered(self, seat: Index, now: float) -> None:
        """It answered something that it was asked."""
        if seat in self._owing_since:
            self._owing_since[seat] = now
        self._avoided_until.pop(seat, None)

    def settled(self, seat: Index) -> None:
        """It owes nothing any more."""
        self._owing_since.pop(seat, None)

    def excuse(self, seat: Index, now: float) -> None:
        """It could not be heard until now: silence counts from here."""
        if seat in self._owing_since:
            self._owing_since[seat] = now

    def owing(self) -> tuple[Index, ...]:
        """The seats that owe something."""
        return tuple(self._owing_since)

    def mute(self, now: float) -> frozenset[Index]:
        """The seats that are mute now, with those that were lately and have not answered since."""
        for seat, since in self._owing_since.items():
            if now - since >= MUTE_AFTER_S:
                self._avoided_until[seat] = now + AVOID_S
        for seat in [seat for seat, until in self._avoided_until.items() if until <= now]:
            del self._avoided_until[seat]
        return frozenset(self._avoided_until)
