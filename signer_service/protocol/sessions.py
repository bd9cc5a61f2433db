"""What a coordinator keeps in memory of its work: records, items, rounds and sessions.

``Work`` is one item, from its arrival until its one final outcome. A ``Round`` is what was sent out together: the
sessions over one record with one set of signers. A ``Session`` is one attempt at one item, with nonces of its own. An
attempt that is late is not given up: another is begun beside it, and whichever is complete first wins.

::

    Work      queued -> running -> done, and then Settled
                 ^---------'  (its sessions failed, or are all late)
    Session   awaiting -> complete | failed
                 '-> late -> complete | failed
"""

import hashlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from common.ids import BootId, Index, Instant, KeyId
from common.wire.messages import Mode, MsgToSign, Outcome, SignGroup, SignItem
from signer_service.frost.nonces import Commitment, SigningNonces
from signer_service.frost.signing import SignatureShare
from signer_service.protocol.machine import Origin
from signer_service.protocol.package import group_hash
from signer_service.protocol.view import EpochKeys, InternalSession


@dataclass(slots=True, eq=False)
class Record:
    """One MsgToSign at one place of the request topic."""

    origin: Origin
    request: MsgToSign
    raw: bytes
    unanswered: int
    works: "list[Work]" = field(default_factory=list)
    dropped: bool = False

    def let_go(self) -> None:
        """All is answered: keep none of what it brought. A timer may hold the record until its deadline."""
        self.works = []
        self.raw = b""
        self.request = replace(self.request, items=())


@dataclass(slots=True, eq=False)
class Work:
    """One item. ``waiting`` are the records to answer: the first, and any in which the same request id came again."""

    key_id: KeyId
    message: bytes
    arrived: Instant
    deadline: Instant
    item: SignItem | None
    position: int
    waiting: list[Record]
    internal: InternalSession | None = None
    queued: bool = False
    attempts: int = 0
    not_before: Instant = Instant(0)
    failed: dict[Index, int] = field(default_factory=dict)
    """Failed attempts by seat: late, declined or bad."""
    asked: dict[Index, int] = field(default_factory=dict)
    """Sessions by seat that may have brought a share: a participant gives n-t+1 for one request id."""
    sessions: "list[Session]" = field(default_factory=list)
    forgotten: bool = False
    """Dropped without an answer."""
    outcome: Outcome | None = None
    signature: bytes = b""

    @property
    def record(self) -> Record | None:
        """The record whose bytes participants are shown; None for an internal session."""
        return self.waiting[0] if self.waiting else None

    @property
    def active(self) -> bool:
        """Whether an attempt is running that is not late yet."""
        return any(not session.late for session in self.sessions)

    @property
    def abandoned(self) -> bool:
        """Whether everybody who waits for it has been taken away with its partition."""
        return self.internal is None and all(record.dropped for record in self.waiting)


@dataclass(frozen=True, slots=True)
class Settled:
    """What is kept of an item that has its outcome, until nobody can ask for it again: not the message, which may be 64
    KiB, and of which there would be as many as are signed in half a minute."""

    outcome: Outcome
    key_id: KeyId
    mode: Mode
    message_sha256: bytes

    def is_of(self, item: SignItem) -> bool:
        """Whether ``item`` asks for the same again."""
        same = (self.key_id, self.mode) == (item.key_id, item.mode)
        return same and self.message_sha256 == hashlib.sha256(item.message).digest()


@dataclass(slots=True, eq=False)
class Round:
    """Sessions that went out together: one group, the same for each of its signers."""

    keys: EpochKeys
    group: SignGroup
    boots: Mapping[Index, BootId]
    sent_at: Instant
    patience_ms: int
    """How long a seat may be silent."""
    latest: Instant
    """No seat is waited for any longer, whatever else it answers."""
    sessions: "list[Session]"
    due: Instant = Instant(0)
    """When it is next looked at."""
    queued: Mapping[Index, int] = field(default_factory=dict)
    """By seat, what it owed when the round was sent, this round included."""
    heard: set[Index] = field(default_factory=set)
    running: int = 0
    """Sessions that have not ended."""
    _hash: bytes = b""

    def ended(self) -> None:
        """One of its sessions has ended. After the last one it lets them go: round and session name each other, and in
        such a circle the share of an epoch would wait for the collector, for hours on an idle replica."""
        self.running -= 1
        if not self.running:
            self.sessions = []

    @property
    def hash(self) -> bytes:
        """What an honest share names as its package."""
        if not self._hash:
            internal = self.sessions[0].work.internal
            self._hash = group_hash(self.group, b"" if internal is None else internal.message)
        return self._hash


@dataclass(slots=True, eq=False)
class Session:
    """One attempt at one item. ``own`` is this seat's pair of nonces until the moment before it is used."""

    id: int
    work: Work
    commitments: Mapping[Index, Commitment]
    batches: Mapping[Index, bytes]
    """By seat, the signed batch that its commitment came in."""
    own: SigningNonces | None
    missing: set[Index]
    round: Round
    late: bool = False
    shares: dict[Index, SignatureShare] = field(default_factory=dict)
    answers: dict[Index, bytes] = field(default_factory=dict)
    """By seat, the signed record that its share came in."""


_FRESH: Final = 1
"""The lane of works that came here first and have not been begun."""


class Queue:
    """Works of one key that wait for a session: those begun before, then fresh, then redelivered ones."""

    __slots__ = ("_lanes", "_parked")

    def __init__(self) -> None:
        self._lanes: tuple[deque[Work], deque[Work], deque[Work]] = (deque(), deque(), deque())
        self._parked: list[tuple[Instant, Work]] = []

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes)

    def oldest(self, now: Instant) -> Instant:
        """When the work arrived that has waited longest for its first session; ``now`` if none waits."""
        return min((lane[0].arrived for lane in self._lanes[1:] if lane), default=now)

    def add(self, work: Work) -> None:
        """Put ``work`` at the end of its lane."""
        record = work.record
        lane = 0 if work.attempts else 2 if record is not None and record.origin.redelivered else 1
        work.queued = True
        self._lanes[lane].append(work)

    def put_back(self, works: list[Work], newest_first: bool = False) -> None:
        """Put works that came out together back to where they came from."""
        for work in reversed(works):
            work.queued = True
            record = work.record
            lane = 0 if work.attempts else 2 if record is not None and record.origin.redelivered else 1
            if newest_first and lane == _FRESH:
                self._lanes[lane].append(work)
            else:
                self._lanes[lane].appendleft(work)

    def overdue(self, now: Instant) -> bool:
        """Whether half of the time of what came first is over: more comes than can be signed."""
        fresh = self._lanes[_FRESH]
        return bool(fresh) and 2 * (now - fresh[0].arrived) > fresh[0].deadline - fresh[0].arrived

    def park(self, work: Work, until: Instant) -> None:
        """Keep ``work``, for which every set was tried. At ``until`` all are tried again."""
        self._parked.append((until, work))

    def unpark(self, now: Instant | None = None) -> None:
        """Take back those whose time has come; all of them, if ``now`` is None: somebody new is there."""
        if not self._parked:
            return
        parked, self._parked = self._parked, []
        for until, work in parked:
            if now is not None and now < until:
                self._parked.append((until, work))
            elif work.outcome is None and not work.queued and not work.forgotten:
                if now is not None:
                    # What was sent may be lost: who had it counts only what came, and knows what it gave.
                    work.asked.clear()
                    work.failed.clear()
                self.add(work)

    def next_run(self, most: int, newest_first: bool = False) -> list[Work]:
        """Take out works that can share a round: of one record, with the same history. Empty if there is none.

        With ``newest_first`` those that came last go first. Where not all can be signed in time, whoever has waited for
        long may be gone before an answer gets there; by turns everybody would wait for as long as that.
        """
        run: list[Work] = []
        for number, lane in enumerate(self._lanes):
            at, pop = (-1, lane.pop) if newest_first and number == _FRESH else (0, lane.popleft)
            while lane and len(run) < most:
                work = lane[at]
                if work.outcome is not None or work.forgotten or work.abandoned:
                    pop().queued = False
                    continue
                if run and (work.record is not run[0].record or work.failed != run[0].failed):
                    return run
                pop().queued = False
                run.append(work)
            if run:
                return run
        return run

    def remove_abandoned(self) -> list[Work]:
        """Take out and return the works that nobody waits for any more."""
        gone: list[Work] = []
        for lane in self._lanes:
            keep = [work for work in lane if not work.abandoned]
            gone += [work for work in lane if work.abandoned]
            lane.clear()
            lane.extend(keep)
        gone += [work for _, work in self._parked if work.abandoned]
        self._parked = [(until, work) for until, work in self._parked if not work.abandoned]
        return gone
