"""The coordinator: takes items to sign and sees each to one final outcome before its deadline. RFC 9591, section 5.

A machine without IO. It trusts no participant (each signature is verified, a bad share is proven) and needs no trust:
participants check the request themselves. Rules:

1. An item is accepted once. The same request id again joins it, or gets its outcome again; it is never begun twice.
2. An attempt is a session with fresh nonces and t seats, this one among them if it has a share. If a share is late,
   another attempt is begun beside it with other seats; if one is declined or bad, instead of it. The first to be
   complete wins.
3. Nonces of this seat are made when a session begins and removed from it before they are used; those of other seats
   are taken from the stock, which is void when the seat restarts or the key's epoch changes.
4. A share is late when its seat was silent for max(100 ms, 4 x p99), at most 1 s, or has answered a later package, or
   after 1.5 s. A seat that is sent too much answers slowly, so what it may owe follows how long it takes. Late or
   declined is never blame; a bad share is, with proof on the audit topic.
5. Fewer than t live seats for longer than presence needs: refused, retryable. Nothing is begun with less than 200 ms to
   the deadline, and what is not signed by then, whatever sets were tried, is refused, retryable.
6. Sessions of the epoch before may end while the view has it as draining; new ones begin in the current epoch only.

States of an item and of a session: see ``sessions``.
"""

from dataclasses import dataclass
from typing import TypeAlias

from common.errors import BadInput
from common.ids import BootId, Index, Instant
from common.wire.messages import (
    Accepted,
    Mode,
    NonceBatch,
    Outcome,
    RefusalCode,
    SignatureShares,
    SignItem,
)
from common.wire.signatures import check_request
from signer_service.protocol.collect import expire, take_commitments, take_shares
from signer_service.protocol.commitment_pool import CommitmentPool, Stocks
from signer_service.protocol.coordinator_state import (
    DEADLINE_MARGIN_MS,
    Context,
    CoordinatorState,
    DecideRefresh,
    Timer,
    refresh_unavailable,
    refused,
)
from signer_service.protocol.dispatch import dispatch, refill
from signer_service.protocol.machine import (
    Entropy,
    PeerArrived,
    PeersChanged,
    RequestArrived,
    RequestsDropped,
    Tick,
    Transition,
)
from signer_service.protocol.nonce_pool import POOL_SIZE
from signer_service.protocol.outbox import Outbox
from signer_service.protocol.request_check import check_item
from signer_service.protocol.sessions import Record, Round, Settled, Work
from signer_service.protocol.view import EpochKeys, SigningView, ViewChanged
from signer_service.protocol.wire import Wire

__all__ = ["Batch", "CoordinatorState", "Event", "Single", "refresh_unavailable", "start", "step"]

Single: TypeAlias = RequestArrived | PeerArrived | ViewChanged | PeersChanged | RequestsDropped | Tick


@dataclass(frozen=True, slots=True)
class Batch:
    """What came in one poll, as one step: then each participant is sent one package for all of it."""

    events: tuple[Single, ...]


Event: TypeAlias = Single | Batch


def start(
    seat: Index,
    boot_id: BootId,
    wire: Wire,
    pool_size: int = POOL_SIZE,
    decide_refresh: DecideRefresh = refresh_unavailable,
) -> CoordinatorState:
    """A coordinator that has just started: it knows no keys, no peers and no nonces."""
    return CoordinatorState(seat, boot_id, wire, pool_size, decide_refresh, SigningView(seat), Stocks(pool_size))


def step(state: CoordinatorState, event: Event, now: Instant, entropy: Entropy) -> Transition[CoordinatorState, None]:
    """Take one event. Total: no content of a request or of a peer's record makes it raise.

    Args:
        state: Goes over to this function; use ``Transition.state``.
        event: What happened.
        now: This process's clock.
        entropy: Fresh random bytes; 64 for each session begun.

    Returns:
        Packages and nonce requests for peers, then audit events, then answers, each ``RecordDone`` after the last
        answer of its record; ``wake_at`` is the earliest moment at which it has something to do by itself.
    """
    ctx = Context(state, Outbox(), now, entropy)
    for single in event.events if isinstance(event, Batch) else (event,):
        _take(ctx, single)
    # After what came: an answer that was here before its time-out rang is not late.
    _look_at_timers(ctx)
    dispatch(ctx)
    refill(ctx)
    wake_at = state.timers[0][0] if state.timers else None
    return Transition(state, ctx.out.sends(), wake_at, tuple(ctx.out.notes))


def _take(ctx: Context, event: Single) -> None:
    match event:
        case RequestArrived():
            _accept(ctx, event)
        case PeerArrived(sender=sender, message=message, envelope=envelope):
            if sender.index == ctx.state.seat:
                return
            if isinstance(message, SignatureShares):
                take_shares(ctx, sender, message, envelope)
            elif isinstance(message, NonceBatch):
                take_commitments(ctx, sender, message, envelope)
        case ViewChanged(view=view):
            _take_view(ctx, view)
        case PeersChanged():
            _take_peers(ctx, event)
        case RequestsDropped(partitions=partitions):
            _drop(ctx, partitions)
        case Tick():
            pass


# --- requests --------------------------------------------------------------------------------------------------------


def _accept(ctx: Context, event: RequestArrived) -> None:
    state, request = ctx.state, event.request
    record = Record(event.origin, request, event.raw, len(request.items))
    state.records.add(record)
    try:
        check_request(event.raw, request, state.view.edge_keys)
    except BadInput:
        # Not kept under the request ids: a forged record must not spoil the answer to a true one.
        for item in request.items:
            _refuse_at_once(ctx, record, item, RefusalCode.BAD_EDGE_SIGNATURE)
        return
    for position, item in enumerate(request.items):
        settled = state.settled.get(item.request_id)
        known = state.works.get(item.request_id)
        if settled is not None:
            _answer_again(ctx, settled, record, item)
        elif known is not None:
            _join(ctx, known, record, item)
        else:
            _accept_item(ctx, record, item, position)
    _set_timer(ctx, record)


def _accept_item(ctx: Context, record: Record, item: SignItem, position: int) -> None:
    state, now = ctx.state, ctx.now
    work = Work(item.key_id, item.message, now, item.deadline_ms, item, position, [record])
    state.works[item.request_id] = work
    state.unfinished += 1
    record.works.append(work)
    if item.mode is Mode.REFRESH:
        if now > item.deadline_ms:
            ctx.refuse(work, RefusalCode.EXPIRED)
        else:
            _decide_refresh(ctx, work, item, record.raw)
        return
    code = check_item(item, now)
    if code is None and item.key_id not in state.view.current:
        code = RefusalCode.NO_KEY_YET if item.key_id in state.view.key_ids else RefusalCode.UNKNOWN_KEY
    if code is None:
        ctx.queue(item.key_id).add(work)
    else:
        ctx.refuse(work, code)


def _decide_refresh(ctx: Context, work: Work, item: SignItem, raw: bytes) -> None:
    decided = ctx.state.decide_refresh(item, raw, ctx.state.view, ctx.now)
    if isinstance(decided, Accepted):
        ctx.out.refresh(item.key_id, raw)
    else:
        ctx.out.note("refresh-refused", key_id=item.key_id, code=decided.code.value, detail=decided.detail)
    ctx.finish(work, decided)


def _answer_again(ctx: Context, settled: Settled, record: Record, item: SignItem) -> None:
    if settled.is_of(item):
        ctx.answer(record, settled.outcome)
    else:
        # Otherwise the answer to one message would be given for another.
        _refuse_at_once(ctx, record, item, RefusalCode.BAD_REQUEST)


def _join(ctx: Context, work: Work, record: Record, item: SignItem) -> None:
    first = work.item
    if first is None or (first.message, first.key_id, first.mode) != (item.message, item.key_id, item.mode):
        _refuse_at_once(ctx, record, item, RefusalCode.BAD_REQUEST)
    else:
        for position, earlier in enumerate(work.waiting):
            if earlier.dropped and earlier.raw == record.raw and _place(earlier) == _place(record):
                # Our partition went and came back, and the record was read again: one place is answered once.
                work.waiting[position] = record
                return
        work.waiting.append(record)


def _place(record: Record) -> tuple[int, int]:
    return record.origin.partition, record.origin.offset


def _refuse_at_once(ctx: Context, record: Record, item: SignItem, code: RefusalCode) -> None:
    result = refused(code)
    ctx.out.audit(record, item, result, ctx.now)
    ctx.answer(record, Outcome(item.request_id, result))


def _set_timer(ctx: Context, record: Record) -> None:
    """Look at the record again when the next of its items has to be refused."""
    open_ = [work.deadline for work in record.works if work.outcome is None and not work.forgotten]
    if open_:
        ctx.set_timer(max(ctx.now + 1, min(open_) - DEADLINE_MARGIN_MS), Timer.RECORD, record)


def _look_at_record(ctx: Context, record: Record) -> None:
    for work in record.works:
        if work.outcome is None and not work.forgotten and ctx.now >= work.deadline - DEADLINE_MARGIN_MS:
            if work.abandoned:
                ctx.forget(work)
                continue
            if ctx.now >= work.deadline:
                code = RefusalCode.EXPIRED
            elif work.attempts or work.key_id in ctx.state.short_since:
                code = RefusalCode.QUORUM_LOST
            else:
                code = RefusalCode.OVERLOADED
            ctx.refuse(work, code)
    _set_timer(ctx, record)


def _drop(ctx: Context, partitions: frozenset[int]) -> None:
    """Another replica has these partitions now: it answers what has not been begun here."""
    state = ctx.state
    for record in tuple(state.records):
        if record.origin.partition in partitions:
            record.dropped = True
            state.records.discard(record)
    for queue in state.queues.values():
        for work in queue.remove_abandoned():
            ctx.forget(work)


# --- what may be used, and who is there ------------------------------------------------------------------------------


def _take_view(ctx: Context, view: SigningView) -> None:
    """Other keys, epochs or API pods: what they no longer allow ends, and what waited for them may begin."""
    state = ctx.state
    if view.edge_keys != state.view.edge_keys:
        for work in tuple(state.works.values()):
            # Our own share needs an API pod's word as much as every participant's does.
            if work.record is not None and work.record.request.edge_key_id not in view.edge_keys:
                ctx.refuse(work, RefusalCode.BAD_EDGE_SIGNATURE)
    state.view = view
    coordinated = {open_id: internal for open_id, internal in view.internal.items() if internal.coordinate}
    begin: list[EpochKeys] = [*view.current.values(), *(internal.keys for internal in coordinated.values())]
    end = [*begin, *view.draining.values()]
    state.open_scopes = {keys.scope: keys for keys in begin}
    state.holders = {keys.scope: keys.holders for keys in end}
    state.scope_since = {scope: state.scope_since.get(scope, ctx.now) for scope in state.holders}
    # The share of a participant's memory that each key may take: it keeps so many nonces for us in all.
    state.stocks.limit = max(1, state.pool_size // max(1, len(state.open_scopes)))
    state.stocks.keep_only(set(state.open_scopes))
    for open_id in [open_id for open_id in state.internal if open_id not in coordinated]:
        ctx.forget(state.internal.pop(open_id))
    for open_id, internal in coordinated.items():
        if open_id not in state.internal:
            state.internal[open_id] = Work(
                internal.keys.key_id, internal.message, ctx.now, Instant(0), None, 0, [], internal
            )
    for session in tuple(state.sessions.values()):
        if session.round.keys.scope not in state.holders:
            ctx.fail(session, ())
    ctx.drop_rounds(set(state.holders))
    _reconsider_all(ctx)


def _take_peers(ctx: Context, event: PeersChanged) -> None:
    state = ctx.state
    state.live = event.live
    for session in tuple(state.sessions.values()):
        # A boot that is gone has lost its nonces: its share will never come, so the time-out need not be waited for.
        gone = tuple(
            seat
            for seat in session.missing
            if seat in event.live and event.live[seat].boot_id != session.round.boots[seat]
        )
        if gone:
            ctx.fail(session, gone)
    _reconsider_all(ctx)


def _reconsider_all(ctx: Context) -> None:
    """Look at every stock and every queue in this step, also at what was put aside because all sets had been tried."""
    ctx.scopes.update(ctx.state.open_scopes)
    for queue in ctx.state.queues.values():
        queue.unpark()


def _look_at_timers(ctx: Context) -> None:
    for _, subject in ctx.due():
        if isinstance(subject, Round):
            expire(ctx, subject)
        elif isinstance(subject, Record):
            _look_at_record(ctx, subject)
        elif isinstance(subject, CommitmentPool):
            ctx.scopes.add(subject.scope)
        elif isinstance(subject, int):
            ctx.forget_settled(subject)
