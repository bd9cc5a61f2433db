"""What a coordinator remembers of the other seats: how fast they answer, how busy they are, whom to ask first.

A seat answers in the order in which it was asked. So what it is still to answer is known exactly, a seat that goes on
answering what it was sent earlier is busy and not late, and one that answered something later has lost this. How much
a seat may owe at one time (its window) follows how long it takes: what it could not answer soon waits here, where it
can still go to another seat or expire, and is computed by nobody in vain.

Late is not bad: a late seat is asked less readily, for 1 s and doubling to 30 s, and never blamed. Set aside, for 60 s,
is only a seat that was proven to have sent something bad. When nobody better is left, the least bad are asked anyway.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from common.ids import BootId, Index, Instant
from signer_service.protocol.nonce_pool import POOL_SIZE

SHARE_TIMEOUT_MIN_MS: Final = 100
SHARE_TIMEOUT_UNKNOWN_MS: Final = 400
"""For a seat that we know little of."""
SHARE_TIMEOUT_MAX_MS: Final = 1_000
"""Where all processes have too little CPU, a seat that does its best is silent for longer than half a second."""
ROUND_MAX_MS: Final = 1_500
"""A seat that makes progress is waited for, but no longer than it takes presence to suspect a silent one."""
GOOD_ANSWER_MS: Final = 150
"""A seat that takes longer owes too much: its window shrinks."""
FORGET_MS: Final = 3_000
"""What was not answered by then is lost. Until then the seat may still have it before it: it counts as owed."""
FIRST_WINDOW: Final = 32
MIN_WINDOW: Final = 8
LATE_FIRST_MS: Final = 1_000
LATE_MAX_MS: Final = 30_000
SET_ASIDE_MS: Final = 60_000
_SAMPLES: Final = 64
_BATCH: Final = 16
_FEW_SAMPLES: Final = 8


@dataclass(frozen=True, slots=True)
class _Owed:
    """Sessions that one package asked for: ids from ``first`` to ``last``."""

    first: int
    last: int
    at: Instant


@dataclass(slots=True)
class PeerStats:
    """One seat, as seen from here. Times in ms on our own clock."""

    outstanding: int = 0
    """Sessions that it was sent and has neither answered nor lost, whatever became of them here."""
    window: int = FIRST_WINDOW
    """How many may be outstanding."""
    boot_id: BootId | None = None
    heard_at: Instant = Instant(0)
    """When it last answered something that was outstanding."""
    heard_id: int = -1
    """The last session that it answered."""
    last_used: int = 0
    late_until: Instant = Instant(0)
    late_penalty_ms: int = 0
    aside_until: Instant = Instant(0)
    declines: int = 0
    """In a row, without a share in between."""
    mean_ms: float = 0.0
    _owed: deque[_Owed] = field(default_factory=deque)
    _shrunk_at: Instant = Instant(0)
    _samples: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_SAMPLES))
    """How long it took, and how long that is for each ``_BATCH`` sessions that were before it."""
    _slowest: tuple[int, float] = (0, 0.0)

    def sent(self, boot_id: BootId, first: int, count: int, now: Instant) -> None:
        """It was asked about the sessions ``first`` and up."""
        if boot_id != self.boot_id:
            self.forget()
            self.boot_id = boot_id
        self._owed.append(_Owed(first, first + count - 1, now))
        self.outstanding += count

    def heard(self, session_id: int, now: Instant) -> None:
        """It answered up to this session: what was sent before is answered or lost."""
        owed, before, sent_at = self._owed, self.outstanding, now
        while owed and owed[0].first <= session_id:
            done = owed.popleft()
            self.outstanding -= done.last - done.first + 1
            sent_at, self.heard_id = done.at, done.last
        if self.outstanding == before:
            return
        self.heard_at = now
        took = now - sent_at
        if took > GOOD_ANSWER_MS:
            self._shrink(sent_at, max(0.5, GOOD_ANSWER_MS / took), now)
        elif 2 * before >= self.window:
            self.window = min(POOL_SIZE, self.window + before - self.outstanding)

    def owes(self, session_id: int) -> bool:
        """Whether an answer about that session may still come: neither it nor a later one was answered."""
        return session_id > self.heard_id

    def prune(self, now: Instant) -> None:
        """What it was sent long ago is lost, or the seat is: it is tried again with a little."""
        while self._owed and self._owed[0].at + FORGET_MS <= now:
            lost = self._owed.popleft()
            self.outstanding -= lost.last - lost.first + 1
            self.window = MIN_WINDOW

    def _shrink(self, sent_at: Instant, factor: float, now: Instant) -> None:
        # Once per round trip: what was sent before the window shrank says nothing about the smaller one.
        if sent_at >= self._shrunk_at:
            self._shrunk_at = now
            self.window = max(MIN_WINDOW, int(self.window * factor))

    def forget(self) -> None:
        """It was started anew: it owes nothing."""
        self._owed.clear()
        self.outstanding = 0

    def answered(self, took_ms: int, queued: int = 0) -> None:
        """A package was answered with shares ``took_ms`` after it was sent, in time or not.

        Args:
            took_ms: In all.
            queued: Sessions that the seat was to answer then, those of the package included.
        """
        self._samples.append((took_ms, took_ms * _BATCH / (_BATCH + queued)))
        # Of 64 samples the 99th percentile is the largest.
        self._slowest = (
            max(took for took, _ in self._samples),
            max(each for _, each in self._samples),
        )
        self.mean_ms = took_ms if self.mean_ms == 0 else self.mean_ms + (took_ms - self.mean_ms) / 8
        self.declines = 0
        if took_ms <= SHARE_TIMEOUT_MAX_MS:
            self.late_penalty_ms = 0

    def silent(self, sent_at: Instant, now: Instant) -> None:
        """What it was sent then is late."""
        self._shrink(sent_at, 0.5, now)
        self.late(now)

    def late(self, now: Instant) -> None:
        """A share did not come in time, or instead of one came a refusal that nobody needed to give."""
        if now >= self.late_until:
            self.late_penalty_ms = min(LATE_MAX_MS, max(LATE_FIRST_MS, 2 * self.late_penalty_ms))
            self.late_until = Instant(now + self.late_penalty_ms)

    def timeout_ms(self, queued: int = 0) -> int:
        """How long the seat may be silent with ``queued`` sessions to answer: max(100 ms, 4 x p99), at most 1 s.

        A long queue takes longer than the short ones of before did; 400 ms for a seat that we know little of.
        """
        if len(self._samples) < _FEW_SAMPLES:
            return SHARE_TIMEOUT_UNKNOWN_MS
        took, each = self._slowest
        scaled = each * (_BATCH + queued) / _BATCH
        return max(SHARE_TIMEOUT_MIN_MS, min(SHARE_TIMEOUT_MAX_MS, int(4 * max(took, scaled))))


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

    def used(self, seats: Mapping[Index, BootId], first: int, sessions: int, now: Instant) -> None:
        """New sessions, with ids from ``first``, wait for each of ``seats``."""
        self._uses += 1
        for seat, boot_id in seats.items():
            stats = self[seat]
            stats.sent(boot_id, first, sessions, now)
            stats.last_used = self._uses

    def timeout_ms(self, seats: Iterable[Index]) -> int:
        """How long any of ``seats`` may be silent, with what they owe now."""
        found = [self[seat] for seat in seats]
        return max((stats.timeout_ms(stats.outstanding) for stats in found), default=SHARE_TIMEOUT_MIN_MS)

    def typical_ms(self, seats: Iterable[Index]) -> float:
        """How long the slowest of ``seats`` usually takes."""
        return max((self[seat].mean_ms for seat in seats), default=0.0)

    def _rank(self, candidate: Candidate, fastest_ms: float) -> tuple[int, bool, int, int]:
        stats = self[candidate.seat]
        # Only a clear difference counts: otherwise noise would send everything to one seat.
        slow = stats.mean_ms > 2 * fastest_ms + 5
        return candidate.failed, slow, stats.outstanding, stats.last_used
