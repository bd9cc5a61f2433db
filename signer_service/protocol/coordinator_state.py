"""The coordinator's memory, and the few moves that every part of it makes: finish, give up an attempt, set a timer."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from heapq import heapify, heappop, heappush
from typing import Final, TypeAlias

from common.ids import BootId, Index, Instant, KeyId, OpenId, RequestId
from common.wire.messages import MAX_DEADLINE_MS, Accepted, NonceScope, Outcome, RefusalCode, Refused, SignItem
from signer_service.protocol.commitment_pool import CommitmentPool, Stocks
from signer_service.protocol.machine import Entropy, Peer
from signer_service.protocol.outbox import Outbox, Result
from signer_service.protocol.peers import PeerBook
from signer_service.protocol.request_check import DETAILS, SKEW_MS
from signer_service.protocol.sessions import Queue, Record, Round, Session, Settled, Work
from signer_service.protocol.view import EpochKeys, SigningView
from signer_service.protocol.wire import Wire

DEADLINE_MARGIN_MS: Final = 200
"""What is not signed this long before its deadline is refused, so that the pod can still turn to another replica."""
QUORUM_GRACE_MS: Final = 500
"""How long fewer than t live seats are waited for: presence comes every 500 ms."""
INTERNAL_RETRY_MS: Final = 200

DecideRefresh: TypeAlias = Callable[[SignItem, bytes, SigningView, Instant], Accepted | Refused]
"""What to say to an item with ``Mode.REFRESH``, given the record that it came in as received. Changes nothing."""

_RETRYABLE: Final = frozenset(
    {
        RefusalCode.QUORUM_LOST,
        RefusalCode.OVERLOADED,
        RefusalCode.SHUTTING_DOWN,
        RefusalCode.NO_KEY_YET,
    }
)
_DETAILS: Final = DETAILS | {
    RefusalCode.BAD_EDGE_SIGNATURE: "the record does not carry a valid signature of a known edge key",
    RefusalCode.UNKNOWN_KEY: "there is no such key",
    RefusalCode.NO_KEY_YET: "the key has not been generated yet",
    RefusalCode.QUORUM_LOST: "too few replicas answered in time",
    RefusalCode.OVERLOADED: "the request waited too long for a place",
    RefusalCode.CEREMONY_RUNNING: "a refresh of this key is asked for already, or under way",
    RefusalCode.REFRESH_TOO_SOON: "the last ceremony of this key was a moment ago",
    RefusalCode.REFRESH_UNAVAILABLE: "this replica takes part in no ceremonies now: see its alarms",
}


def refused(code: RefusalCode, detail: str = "") -> Refused:
    """A refusal with the sentence that belongs to its code, and whether trying again makes sense."""
    return Refused(code, detail or _DETAILS.get(code, code.value), code in _RETRYABLE)


def refresh_unavailable(_item: SignItem, _raw: bytes, _view: SigningView, _now: Instant) -> Refused:
    """The ``DecideRefresh`` of a replica that takes part in no ceremonies."""
    return refused(RefusalCode.REFRESH_UNAVAILABLE)


class Timer(IntEnum):
    """What to look at when its time comes. A timer may be stale: whoever looks finds nothing to do."""

    ROUND = 0
    RECORD = 1
    POOL = 2
    WAKE = 3
    SETTLED = 4


Timed: TypeAlias = Round | Record | CommitmentPool | int | None


@dataclass(slots=True)
class CoordinatorState:
    """Belongs to ``step``; in memory only. What is asked at the end (in flight, nonces, wait) is for presence."""

    seat: Index
    boot_id: BootId
    wire: Wire
    pool_size: int
    decide_refresh: DecideRefresh
    view: SigningView
    stocks: Stocks
    peers: PeerBook = field(default_factory=PeerBook)
    live: Mapping[Index, Peer] = field(default_factory=dict)
    holders: dict[NonceScope, frozenset[Index]] = field(default_factory=dict)
    """Seats that have a share, of every scope in which a session may still end."""
    open_scopes: dict[NonceScope, EpochKeys] = field(default_factory=dict)
    """Scopes in which sessions may begin: each key's current epoch, and key records that we coordinate."""
    scope_since: dict[NonceScope, Instant] = field(default_factory=dict)
    works: dict[RequestId, Work] = field(default_factory=dict)
    """What has no outcome yet."""
    settled: dict[RequestId, Settled] = field(default_factory=dict)
    """What has one, until its time is over: the same request is answered once more, and not signed again."""
    settled_until: dict[int, list[RequestId]] = field(default_factory=dict)
    """Those whose time is over at the end of that second (Unix)."""
    records: set[Record] = field(default_factory=set)
    queues: dict[KeyId, Queue] = field(default_factory=dict)
    internal: dict[OpenId, Work] = field(default_factory=dict)
    sessions: dict[int, Session] = field(default_factory=dict)
    next_session: int = 1
    unfinished: int = 0
    short_since: dict[KeyId, Instant] = field(default_factory=dict)
    timers: list[tuple[Instant, int, Timer, Timed]] = field(default_factory=list)
    timers_set: int = 0

    @property
    def in_flight(self) -> int:
        """Items that were accepted and have no outcome yet."""
        return self.unfinished

    @property
    def nonces_left(self) -> int:
        """Commitments of other seats in stock."""
        return self.stocks.left

    def queue_wait_ms(self, now: Instant) -> int:
        """How long the item that has waited longest for its first session has waited; 0 if none waits."""
        return max((now - queue.oldest(now) for queue in self.queues.values()), default=0)


@dataclass(slots=True)
class Context:
    """One step: the state, what goes out, and the step's own time and randomness."""

    state: CoordinatorState
    out: Outbox
    now: Instant
    entropy: Entropy
    scopes: set[NonceScope] = field(default_factory=set)
    """Scopes whose stocks changed: to be looked at for a refill."""

    def set_timer(self, at: int, kind: Timer, subject: Timed) -> None:
        """Look at ``subject`` at ``at``."""
        self.state.timers_set += 1
        heappush(self.state.timers, (Instant(at), self.state.timers_set, kind, subject))

    def due(self) -> list[tuple[Timer, Timed]]:
        """Take out the timers whose time has come."""
        timers = self.state.timers
        due = []
        while timers and timers[0][0] <= self.now:
            _, _, kind, subject = heappop(timers)
            due.append((kind, subject))
        return due

    def finish(self, work: Work, result: Result) -> None:
        """Give ``work`` its one final outcome, and everybody who waits for it the answer."""
        item = work.item
        if item is None or work.outcome is not None or work.forgotten:
            return
        work.outcome = outcome = Outcome(item.request_id, result)
        self.state.unfinished -= 1
        for session in tuple(work.sessions):
            self.release(session)
        # Work and record name each other: in such a circle each message would stay until the collector looks at old
        # objects, which on a busy replica is after some ten thousand items.
        waiting, work.waiting = work.waiting, []
        digest = self.out.audit(waiting[0], item, result, self.now)
        for record in waiting:
            self.answer(record, outcome)
        del self.state.works[item.request_id]
        self._remember(work, item, Settled(outcome, item.key_id, item.mode, digest))

    def _remember(self, work: Work, item: SignItem, settled: Settled) -> None:
        # What asks for years is refused, and the refusal is not kept for years.
        until = min(work.deadline, work.arrived + MAX_DEADLINE_MS + SKEW_MS)
        if until < self.now:
            return
        self.state.settled[item.request_id] = settled
        second = until // 1000
        if second not in self.state.settled_until:
            self.state.settled_until[second] = []
            self.set_timer((second + 1) * 1000, Timer.SETTLED, second)
        self.state.settled_until[second].append(item.request_id)

    def forget_settled(self, second: int) -> None:
        """Nobody asks any more for what was to be kept until that second."""
        for request_id in self.state.settled_until.pop(second, ()):
            del self.state.settled[request_id]

    def answer(self, record: Record, outcome: Outcome) -> None:
        """Answer one item of ``record``, which is finished when that was its last."""
        self.out.answer(record, outcome)
        if record.unanswered == 0:
            self.state.records.discard(record)

    def refuse(self, work: Work, code: RefusalCode) -> None:
        """``finish`` with a refusal."""
        self.finish(work, refused(code))

    def forget(self, work: Work) -> None:
        """Drop ``work`` without an answer: its partition is another replica's now."""
        work.forgotten = True
        work.waiting = []
        for session in tuple(work.sessions):
            self.release(session)
        if work.item is not None and self.state.works.get(work.item.request_id) is work:
            del self.state.works[work.item.request_id]
            self.state.unfinished -= 1

    def release(self, session: Session) -> None:
        """End an attempt. Its own nonces go with it, used or not."""
        del self.state.sessions[session.id]
        session.work.sessions.remove(session)
        session.own = None
        session.round.ended()

    def drop_rounds(self, scopes: Container[NonceScope]) -> None:
        """Forget what is over in any other scope: a round has the share of its epoch, and must not outlive it."""
        state = self.state
        state.timers = [each for each in state.timers if not isinstance(each[3], Round) or each[3].keys.scope in scopes]
        heapify(state.timers)

    def fail(self, session: Session, seats: tuple[Index, ...]) -> None:
        """End an attempt that came to nothing because of ``seats``, and try again with others."""
        work = session.work
        self.release(session)
        for seat in seats:
            work.failed[seat] = work.failed.get(seat, 0) + 1
        self.again(work)

    def again(self, work: Work) -> None:
        """See to it that ``work`` gets another attempt, unless it is done or one is running."""
        if work.outcome is not None or work.signature or work.forgotten or work.queued or work.active:
            return
        if work.internal is not None:
            work.not_before = Instant(self.now + INTERNAL_RETRY_MS)
            self.set_timer(work.not_before, Timer.WAKE, None)
        elif work.abandoned:
            self.forget(work)
        else:
            self.queue(work.key_id).add(work)

    def queue(self, key_id: KeyId) -> Queue:
        """The queue of one key."""
        queue = self.state.queues.get(key_id)
        if queue is None:
            queue = self.state.queues[key_id] = Queue()
        return queue
