"""How a coordinator begins sessions: from its queue to one package per participant; stocks refilled ahead of need."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common.ids import NO_OFFSET, Epoch, Index, Instant, KeyId
from common.wire.messages import MAX_ITEMS, NonceScope, RefusalCode, SignGroup, SignSession
from signer_service.frost.nonces import RANDOMNESS_BYTES, Commitment, SigningNonces, commit
from signer_service.protocol.collect import complete, look_again
from signer_service.protocol.commitment_pool import CommitmentPool
from signer_service.protocol.coordinator_state import (
    DEADLINE_MARGIN_MS,
    QUORUM_GRACE_MS,
    Context,
    CoordinatorState,
    Timer,
)
from signer_service.protocol.package import most_sessions
from signer_service.protocol.peers import ROUND_MAX_MS, SHARE_TIMEOUT_MIN_MS, Candidate
from signer_service.protocol.sessions import Queue, Round, Session, Work
from signer_service.protocol.view import EpochKeys

MAX_FAILED: Final = 3
"""A seat that failed an item this often is not asked about it again."""
MAX_WAITING: Final = 4
"""Runs of works that are looked at in one step although an earlier one has to wait."""
PARK_MS: Final = 1_000
"""How long after every set was tried all are tried again, if the deadline leaves time."""
FRESH_SCOPE_MS: Final = 2_000
"""After a commit, presence still names the epoch before: a live seat of the committee counts as holding the new one."""
FOR_ONE_SESSION: Final = 2
"""How many commitments of a seat are stocked for the session that signs a KeyRecord: one, and one to try again."""

_PAIR_ENTROPY: Final = 2 * RANDOMNESS_BYTES


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Who signs: other seats, and this one if ``own``."""

    others: tuple[Index, ...]
    own: bool


class _Wait:
    """Nothing can be begun now; something will change: commitments, credit, presence or time."""


class _Exhausted:
    """Every live seat has been asked about this as often as makes sense."""


class _Short:
    """Fewer than t seats that hold a share are live."""


_WAIT, _EXHAUSTED, _SHORT = _Wait(), _Exhausted(), _Short()


def dispatch(ctx: Context) -> None:
    """Begin every session that can be begun now."""
    state = ctx.state
    for work in state.internal.values():
        if not work.signature and not work.active and ctx.now >= work.not_before:
            _begin_internal(ctx, work)
    for key_id, queue in state.queues.items():
        queue.unpark(ctx.now)
        if len(queue):
            _drain(ctx, key_id, queue)


def refill(ctx: Context) -> None:
    """Ask for commitments wherever a stock that was touched in this step runs low."""
    state = ctx.state
    for scope in ctx.scopes:
        keys = state.open_scopes.get(scope)
        if keys is None:
            continue
        queue = state.queues.get(keys.key_id)
        demand = 0 if queue is None or scope.open_id else len(queue)
        for seat in state.holders[scope]:
            peer = state.live.get(seat)
            if peer is None or seat == state.seat:
                continue
            pool = state.stocks.pool(scope, seat, peer.boot_id)
            stats = state.peers[seat]
            # What it answers to what came before our request shows that it is busy and has the request before it.
            heard_at = stats.heard_at if stats.heard_id < pool.asked_before else pool.asked_at
            # No more of the queue than the seat may owe: nonces that nobody can use yet cost a seat that is busy more.
            most = FOR_ONE_SESSION if scope.open_id else 2 * stats.window
            count = pool.to_ask(ctx.now, min(demand, stats.window), heard_at, most)
            if count:
                pool.asked_before = state.next_session
                ctx.out.want(seat, scope, count)
            if pool.asked and pool.look_at <= ctx.now:
                pool.look_at = pool.asks_again_at(heard_at)
                ctx.set_timer(pool.look_at, Timer.POOL, pool)


def _drain(ctx: Context, key_id: KeyId, queue: Queue) -> None:
    keys = ctx.state.view.current.get(key_id)
    # What would only be signed for nobody is refused before anybody works for it, and early enough to go elsewhere.
    usual = 0.0 if keys is None else ctx.state.peers.typical_ms(keys.holders)
    margin = DEADLINE_MARGIN_MS + max(0, int(2 * usual) - DEADLINE_MARGIN_MS // 2)
    newest_first = queue.overdue(ctx.now)
    waiting: list[list[Work]] = []
    while run := queue.next_run(MAX_ITEMS, newest_first):
        if keys is None:
            code = RefusalCode.NO_KEY_YET if key_id in ctx.state.view.key_ids else RefusalCode.UNKNOWN_KEY
            for work in run:
                ctx.refuse(work, code)
            continue
        timely = [work for work in run if _in_time(ctx, work, margin)]
        if not timely:
            continue
        chosen = _choose(ctx, keys, timely)
        if isinstance(chosen, _Chosen):
            ctx.state.short_since.pop(key_id, None)
            begun = _begin(ctx, keys, timely, chosen)
            queue.put_back(timely[begun:], newest_first)
        elif isinstance(chosen, _Exhausted):
            _park(ctx, queue, timely)
        elif isinstance(chosen, _Short) and _short_for_long(ctx, key_id):
            for work in timely:
                ctx.refuse(work, RefusalCode.QUORUM_LOST)
        else:
            # What waits for one seat's commitments must not hold up what others can do.
            waiting.append(timely)
            if len(waiting) == MAX_WAITING:
                break
    for run in reversed(waiting):
        queue.put_back(run, newest_first)
        ctx.scopes.update(() if keys is None else (keys.scope,))


def _in_time(ctx: Context, work: Work, margin: int) -> bool:
    left = work.deadline - ctx.now
    if left >= margin:
        return True
    if left <= 0:
        ctx.refuse(work, RefusalCode.EXPIRED)
    else:
        ctx.refuse(work, RefusalCode.QUORUM_LOST if work.attempts else RefusalCode.OVERLOADED)
    return False


def _park(ctx: Context, queue: Queue, run: list[Work]) -> None:
    """Every set was tried. Shares that are late may still come, and what was sent may be lost: all again in a while."""
    until = Instant(ctx.now + PARK_MS)
    for work in run:
        queue.park(work, until)
    ctx.set_timer(until, Timer.WAKE, None)


def _short_for_long(ctx: Context, key_id: KeyId) -> bool:
    since = ctx.state.short_since.get(key_id)
    if since is None:
        ctx.state.short_since[key_id] = ctx.now
        ctx.set_timer(ctx.now + QUORUM_GRACE_MS, Timer.WAKE, None)
        return False
    return ctx.now - since >= QUORUM_GRACE_MS


def _choose(ctx: Context, keys: EpochKeys, run: list[Work]) -> _Chosen | _Wait | _Exhausted | _Short:
    """Who signs ``run``, whose works all have failed with the same seats."""
    state, now = ctx.state, ctx.now
    scope, holders = keys.scope, state.holders[keys.scope]
    failed = run[0].failed
    retried = [work.asked for work in run if work.asked]
    internal = bool(scope.open_id)
    max_shares = len(holders) - keys.threshold + 1
    fresh = internal or now - state.scope_since[scope] < FRESH_SCOPE_MS
    own = keys.share is not None and not failed.get(state.seat)
    need = keys.threshold - 1 if own else keys.threshold
    live = 0
    possible = 0
    candidates: list[Candidate] = []
    for seat in holders:
        peer = state.live.get(seat)
        if peer is None or seat == state.seat:
            continue
        pool = state.stocks.find(scope, seat, peer.boot_id)
        ready = 0 if pool is None else len(pool)
        if not ready and not fresh and peer.epochs.get(keys.key_id) != keys.epoch:
            continue
        live += 1
        failures = failed.get(seat, 0)
        if not internal and (failures >= MAX_FAILED or any(a.get(seat, 0) >= max_shares for a in retried)):
            continue
        possible += 1
        if ready and state.peers[seat].outstanding >= min(state.peers[seat].window, state.pool_size):
            ready = 0
        elif not ready and pool is not None and pool.asked and not pool.coming:
            continue
        candidates.append(Candidate(seat, ready, failures, peer.draining))
    if live < need:
        return _SHORT
    if possible < need:
        return _EXHAUSTED
    others = state.peers.choose(candidates, need, now)
    return _WAIT if others is None else _Chosen(others, own)


def _begin_internal(ctx: Context, work: Work) -> None:
    internal = work.internal
    if internal is None:
        return
    chosen = _choose(ctx, internal.keys, [work])
    if isinstance(chosen, _Chosen):
        _begin(ctx, internal.keys, [work], chosen)
    ctx.scopes.add(internal.keys.scope)


def _begin(ctx: Context, keys: EpochKeys, run: list[Work], chosen: _Chosen) -> int:
    """Begin sessions for as many works of ``run``, from its start, as there are commitments for; return how many."""
    state, now = ctx.state, ctx.now
    scope, others = keys.scope, chosen.others
    pools = {other: state.stocks.pool(scope, other, state.live[other].boot_id) for other in others}
    record = run[0].record
    raw_request = b"" if record is None else record.raw
    count = min(len(run), most_sessions(len(raw_request), len(others) + chosen.own))
    for other, pool in pools.items():
        stats = state.peers[other]
        count = min(count, len(pool), min(stats.window, state.pool_size) - stats.outstanding)
    signers = tuple(sorted((*others, state.seat) if chosen.own else others))
    boots = {other: state.boot_id if other == state.seat else pools[other].boot_id for other in signers}
    round_ = Round(keys, _NO_GROUP, boots, now, 0, now, [])
    random = ctx.entropy(_PAIR_ENTROPY * count) if chosen.own else b""
    specs = tuple(
        _begin_session(state, round_, pools, work, random[_PAIR_ENTROPY * k : _PAIR_ENTROPY * (k + 1)])
        for k, work in enumerate(run[:count])
    )
    round_.running = count
    round_.group = SignGroup(scope, keys.epoch, raw_request, signers, tuple(boots.values()), specs)
    state.peers.used({other: boots[other] for other in others}, specs[0].session_id, count, now)
    round_.queued = {other: state.peers[other].outstanding for other in others}
    _set_patience(ctx, round_, others)
    for other in others:
        ctx.out.package(other, round_.group)
    ctx.scopes.add(scope)
    if others:
        look_again(ctx, round_, now + round_.patience_ms)
    else:
        for session in tuple(round_.sessions):
            complete(ctx, session)
    return count


def _begin_session(
    state: CoordinatorState, round_: Round, pools: Mapping[Index, CommitmentPool], work: Work, random: bytes
) -> SignSession:
    """One work of a round: take a commitment of each signer for it, our own made of ``random``."""
    session_id = state.next_session
    state.next_session += 1
    share = round_.keys.share
    commitments: dict[Index, Commitment] = {}
    batches: dict[Index, bytes] = {}
    counters: list[int] = []
    raws: list[bytes] = []
    own: SigningNonces | None = None
    for signer in round_.boots:
        if signer == state.seat and share is not None:
            own, commitments[signer] = commit(share.share, random)
            counters.append(session_id)
            raws.append(own.commitment.to_bytes())
        else:
            counter, raw, commitments[signer], batches[signer] = pools[signer].ready.popleft()
            counters.append(counter)
            raws.append(raw)
            work.asked[signer] = work.asked.get(signer, 0) + 1
    session = Session(session_id, work, commitments, batches, own, set(pools), round_)
    round_.sessions.append(session)
    state.sessions[session_id] = session
    work.sessions.append(session)
    work.attempts += 1
    return SignSession(session_id, work.position, tuple(counters), tuple(raws))


def _set_patience(ctx: Context, round_: Round, others: tuple[Index, ...]) -> None:
    """How long the others may take before sessions are begun beside these."""
    deadlines = [session.work.deadline for session in round_.sessions if session.work.item is not None]
    left = min(deadlines) - ctx.now if deadlines else 0
    # Time is left for others only if it suffices for two: otherwise the first attempt gets it all.
    at_most = max(SHARE_TIMEOUT_MIN_MS, left // 3, int(3 * ctx.state.peers.typical_ms(others)))
    round_.patience_ms = min(ctx.state.peers.timeout_ms(others), at_most if left else ROUND_MAX_MS)
    round_.latest = Instant(ctx.now + max(round_.patience_ms, min(ROUND_MAX_MS, at_most)))


_NO_GROUP: Final = SignGroup(NonceScope(KeyId(""), NO_OFFSET), Epoch(0), b"", (), (), ())
"""Stands in a round for the moment in which its sessions are made."""
