"""What a coordinator remembers of the other seats: how fast they answer, how busy they are, whom to ask first.

Late is not bad: a late seat is asked less readily, for 1 s and doubling to 30 s, and never blamed. Set aside, for 60 s,
is only a seat that was proven to have sent something bad. When nobody better is left, the least bad are asked anyway.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from common.ids import Index, Instant

SHARE_TIMEOUT_MIN_MS: Final = 100
SHARE_TIMEOUT_MAX_MS: Final = 400
LATE_FIRST_MS: Final = 1_000
LATE_MAX_MS: Final = 30_000
SET_ASIDE_MS: Final = 60_000
_SAMPLES: Final = 64
_FEW_SAMPLES: Final = 8


@dataclass(slots=True)
class PeerStats:
    """One seat, as seen from here. Times in ms on our own clock."""

    outstanding: int = 0
    """Sessions that wait for its share and are not late yet."""
    last_used: int = 0
    late_until: Instant = Instant(0)
    late_penalty_ms: int = 0
    aside_until: Instant = Instant(0)
    declines: int = 0
    """In a row, without a share in between."""
    mean_ms: float = 0.0
    _samples: deque[int] = field(default_factory=lambda: deque(maxlen=_SAMPLES))

    def answered(self, took_ms: int) -> None:
        """A package was answered with shares ``took_ms`` after it was sent, in time or not."""
        self._samples.append(took_ms)
        self.mean_ms = took_ms if self.mean_ms == 0 else self.mean_ms + (took_ms - self.mean_ms) / 8
        self.declines = 0
        if took_ms <= SHARE_TIMEOUT_MAX_MS:
            self.late_penalty_ms = 0

    def late(self, now: Instant) -> None:
        """A share did not come in time, or instead of one came a refusal that nobody needed to give."""
        if now >= self.late_until:
            self.late_penalty_ms = min(LATE_MAX_MS, max(LATE_FIRST_MS, 2 * self.late_penalty_ms))
            self.late_until = Instant(now + self.late_penalty_ms)

    @property
    def timeout_ms(self) -> int:
        """max(100 ms, 4 x p99), at most 400 ms; 400 for a seat that we know little of."""
        if len(self._samples) < _FEW_SAMPLES:
            return SHARE_TIMEOUT_MAX_MS
        # Of 64 samples the 99th percentile is the largest.
        return max(SHARE_TIMEOUT_MIN_MS, min(SHARE_TIMEOUT_MAX_MS, 4 * max(self._samples)))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A seat that could take part in a session now, or soon: ``ready`` commitments may be 0 while some are coming."""

    seat: Index
    ready: int
    failed: int
    draining: bool


class PeerBook:
    """All seats that we have had to do with."""

    __slots__ = ("_stats", "_uses")

    def __init__(self) -> None:
        self._stats: dict[Index, PeerStats] = {}
        self._uses = 0

    def __getitem__(self, seat: Index) -> PeerStats:
        stats = self._stats.get(seat)
        if stats is None:
            stats = self._stats[seat] = PeerStats()
        return stats

    def choose(self, candidates: list[Candidate], need: int, now: Instant) -> tuple[Index, ...] | None:
        """The ``need`` best of ``candidates`` that have commitments ready, or None: wait.

        Best by tier (never failed here, not late, not draining; then any not set aside; then all), then fast, least
        busy, least recently used. A worse tier is not asked while better seats are merely waiting for commitments.
        """
        tiers: tuple[list[Candidate], list[Candidate], list[Candidate]] = ([], [], [])
        for candidate in candidates:
            stats = self[candidate.seat]
            if now < stats.aside_until:
                tiers[2].append(candidate)
            elif candidate.failed or candidate.draining or now < stats.late_until:
                tiers[1].append(candidate)
            else:
                tiers[0].append(candidate)
        chosen: list[Index] = []
        for tier in tiers:
            ready = [candidate for candidate in tier if candidate.ready > 0]
            missing = need - len(chosen)
            if len(tier) >= missing and len(ready) < missing:
                return None
            if len(ready) > missing:
                fastest = min(self[candidate.seat].mean_ms for candidate in ready)
                ready.sort(key=lambda candidate: self._rank(candidate, fastest))
                ready = ready[:missing]
            chosen += [candidate.seat for candidate in ready]
            if len(chosen) == need:
                return tuple(chosen)
        return None

    def used(self, seats: tuple[Index, ...], sessions: int) -> None:
        """``sessions`` new sessions wait for each of ``seats``."""
        self._uses += 1
        for seat in seats:
            stats = self[seat]
            stats.outstanding += sessions
            stats.last_used = self._uses

    def timeout_ms(self, seats: tuple[Index, ...]) -> int:
        """How long a round with ``seats`` may take."""
        return max((self[seat].timeout_ms for seat in seats), default=SHARE_TIMEOUT_MIN_MS)

    def _rank(self, candidate: Candidate, fastest_ms: float) -> tuple[int, bool, int, int]:
        stats = self[candidate.seat]
        # Only a clear difference counts: otherwise noise would send everything to one seat.
        slow = stats.mean_ms > 2 * fastest_ms + 5
        return candidate.failed, slow, stats.outstanding, stats.last_used
