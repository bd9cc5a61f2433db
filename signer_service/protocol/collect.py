"""How a coordinator ends sessions: shares in, signature out; what is late, declined or bad, and who is to blame."""

from typing import Final

from common.errors import BadInput, PeerFault
from common.ids import Epoch, Index, Instant
from common.wire.messages import (
    Declined,
    DeclineReason,
    NonceBatch,
    RefusalCode,
    Share,
    SignatureShares,
    Signed,
    SignPackage,
)
from signer_service.frost.errors import InvalidElement, InvalidScalar, InvalidShare
from signer_service.frost.group import decode_element, decode_scalar
from signer_service.frost.signing import SignatureShare, aggregate, prepare, sign_share
from signer_service.protocol.blame import BAD_COMMITMENT, BAD_SHARE, blame_entry
from signer_service.protocol.commitment_pool import malformed
from signer_service.protocol.coordinator_state import Context, Timer
from signer_service.protocol.machine import Sender
from signer_service.protocol.peers import FORGET_MS, SET_ASIDE_MS
from signer_service.protocol.sessions import Round, Session

OVERSLEPT_MS: Final = 25
"""A timer that rings so much later than it was set for was rung by a process that has no time."""


def take_commitments(ctx: Context, sender: Sender, batch: NonceBatch, envelope: bytes) -> None:
    """Stock what a participant reserved for us. A batch for another boot, or one that came before, is dropped."""
    state = ctx.state
    for grant in batch.grants:
        pool = state.stocks.find(grant.scope, sender.index, sender.boot_id)
        if (
            pool is None
            or grant.coordinator != state.seat
            or grant.coordinator_boot != state.boot_id
            or malformed(grant, envelope)
            # A look at a commitment costs 35 us: a liar must not choose how many we look at.
            or len(grant.commitments) > pool.credit
            or not state.stocks.is_new(sender, grant)
        ):
            ctx.out.note("nonce_batch_stray", seat=sender.index)
            continue
        ctx.scopes.add(grant.scope)
        try:
            pool.stock(grant, envelope, ctx.now)
        except BadInput:
            pool.clear()
            epoch = state.open_scopes[grant.scope].epoch if grant.scope in state.open_scopes else Epoch(0)
            _blame(ctx, BAD_COMMITMENT, sender.index, grant.scope.key_id, epoch, 0, (envelope,))


def take_shares(ctx: Context, sender: Sender, message: SignatureShares, envelope: bytes) -> None:
    """Take one participant's answers to a package."""
    sessions = ctx.state.sessions
    seat, boot_id = sender.index, sender.boot_id
    stats = ctx.state.peers[seat]
    if boot_id == stats.boot_id:
        ids = [answer.session_id for answer in message.answers if answer.session_id < ctx.state.next_session]
        stats.heard(max(ids, default=-1), ctx.now)
    stray = 0
    for answer in message.answers:
        session = sessions.get(answer.session_id)
        # Repeated, forged, for a session that is over, or of another boot than the commitments.
        if session is None or seat not in session.missing or session.round.boots[seat] != boot_id:
            stray += 1
        elif isinstance(answer, Declined):
            _declined(ctx, session, seat, answer.reason)
        else:
            _share(ctx, session, seat, answer, envelope)
    if stray:
        ctx.out.note("share_stray", seat=seat, count=stray)


def expire(ctx: Context, round_: Round) -> None:
    """It is time to look whether the round is late: its sessions then stay, and others are begun beside them.

    Slow is not late: another attempt would give those who are busy already more to do, and throw away what they do now.
    """
    first, now = round_.group.sessions[0].session_id, ctx.now
    overslept = now - round_.due
    if overslept > OVERSLEPT_MS and now < round_.latest:
        # We were busy ourselves: their answers may lie here unread.
        look_again(ctx, round_, min(now + min(overslept, round_.patience_ms), round_.latest))
        return
    running = [session for session in round_.sessions if not session.late and session.id in ctx.state.sessions]
    missing = {seat for session in running for seat in session.missing}
    late: set[Index] = set()
    owed = False
    next_look: int = round_.latest
    for seat in round_.queued:
        stats = ctx.state.peers[seat]
        stats.prune(now)
        owes = stats.boot_id == round_.boots[seat] and stats.owes(first)
        owed = owed or (owes and now < round_.sent_at + FORGET_MS)
        due = max(round_.sent_at, stats.heard_at) + round_.patience_ms
        if seat in missing and owes and now < min(due, round_.latest):
            next_look = min(next_look, due)
        elif seat in missing:
            late.add(seat)
    for session in running:
        if session.missing & late:
            session.late = True
            for seat in session.missing & late:
                session.work.failed[seat] = session.work.failed.get(seat, 0) + 1
            ctx.again(session.work)
    for seat in sorted(late):
        ctx.state.peers[seat].silent(round_.sent_at, now)
        ctx.out.note("share_late", seat=seat)
    if missing - late:
        look_again(ctx, round_, next_look)
    elif owed:
        look_again(ctx, round_, round_.sent_at + FORGET_MS)


def look_again(ctx: Context, round_: Round, at: int) -> None:
    """Look at the round at ``at``."""
    round_.due = Instant(at)
    ctx.set_timer(round_.due, Timer.ROUND, round_)


def complete(ctx: Context, session: Session) -> None:
    """All other shares are there: add our own, aggregate, and answer. The signature has been verified then."""
    state, work, keys = ctx.state, session.work, session.round.keys
    own, session.own = session.own, None  # gone from the session before anything is computed with it
    if work.item is not None and ctx.now >= work.deadline:
        ctx.refuse(work, RefusalCode.EXPIRED)
        return
    context = None
    shares = session.shares
    try:
        if own is not None and keys.share is not None:
            context = prepare(keys.public.group_key, session.commitments, work.message, (state.seat, own))
            shares[state.seat] = sign_share(keys.share, own, session.commitments, work.message, context)
        signature = aggregate(keys.public, session.commitments, work.message, shares, context)
    except InvalidShare as fault:
        _bad_shares(ctx, session, fault)
        return
    except RuntimeError:
        # libsodium refused to multiply a binding commitment.
        if not _bad_commitments(ctx, session):
            raise
        return
    if work.internal is not None:
        work.signature = signature
        ctx.out.internal(work.internal.open_id, signature)
        for other in tuple(work.sessions):
            ctx.release(other)
    else:
        ctx.finish(work, Signed(signature, keys.key_id, keys.epoch, session.round.group.signers))


def _share(ctx: Context, session: Session, seat: Index, answer: Share, envelope: bytes) -> None:
    round_ = session.round
    stats = ctx.state.peers[seat]
    session.missing.discard(seat)
    if answer.package_hash != round_.hash:
        # It proves nothing: who can say what we sent? But a seat that does so is no use.
        ctx.out.note("share_of_another_package", seat=seat)
        stats.late(ctx.now)
        ctx.fail(session, (seat,))
        return
    if seat not in round_.heard:
        round_.heard.add(seat)
        stats.answered(ctx.now - round_.sent_at, round_.queued.get(seat, 0))
    session.answers[seat] = envelope
    try:
        session.shares[seat] = SignatureShare(decode_scalar(answer.share))
    except InvalidScalar:
        _accuse(ctx, session, seat)
        ctx.fail(session, (seat,))
        return
    if not session.missing:
        complete(ctx, session)


def _declined(ctx: Context, session: Session, seat: Index, reason: DeclineReason) -> None:
    state, work, round_ = ctx.state, session.work, session.round
    scope, stats = round_.keys.scope, state.peers[seat]
    pool = state.stocks.find(scope, seat, round_.boots[seat])
    if pool is not None:
        if reason is DeclineReason.NO_NONCE:
            position = round_.group.signers.index(seat)
            spec = round_.group.sessions[session.id - round_.group.sessions[0].session_id]
            pool.discard_through(spec.counters[position])
        elif reason in {DeclineReason.STALE_BOOT, DeclineReason.STALE_EPOCH}:
            pool.clear()
        ctx.scopes.add(scope)
    if reason is not DeclineReason.BAD_REQUEST:
        work.asked[seat] = max(0, work.asked.get(seat, 0) - 1)
    if reason is DeclineReason.BAD_REQUEST and _bad_commitments(ctx, session):
        ctx.out.note("share_declined", seat=seat, reason=reason.value)
        return
    stats.declines += 1
    # One may come of a restart, a commit or a crossed message. A seat that goes on like this costs everybody's time.
    if reason is DeclineReason.BAD_REQUEST or stats.declines > len(round_.sessions) + 1:
        stats.late(ctx.now)
    ctx.out.note("share_declined", seat=seat, reason=reason.value)
    ctx.fail(session, (seat,))


def _bad_commitments(ctx: Context, session: Session) -> bool:
    """Blame and avoid each seat whose binding commitment is no element; False if there is none.

    That half was not looked at when it came, and who is shown it declines: the one who made it is at fault, not they.
    """
    keys = session.round.keys
    bad: list[Index] = []
    for seat, batch in session.batches.items():
        try:
            decode_element(session.commitments[seat].binding)
        except InvalidElement:
            bad.append(seat)
            pool = ctx.state.stocks.find(keys.scope, seat, session.round.boots[seat])
            if pool is not None:
                pool.clear()
            _blame(ctx, BAD_COMMITMENT, seat, keys.key_id, keys.epoch, 0, (batch,))
    if bad:
        ctx.fail(session, tuple(bad))
    return bool(bad)


def _bad_shares(ctx: Context, session: Session, fault: PeerFault) -> None:
    culprits = tuple(Index(culprit) for culprit in fault.culprits)
    for culprit in culprits:
        if culprit == ctx.state.seat:
            ctx.out.note("own_share_bad", seat=culprit)
        else:
            _accuse(ctx, session, culprit)
    ctx.fail(session, culprits)


def _accuse(ctx: Context, session: Session, culprit: Index) -> None:
    """Publish the three signed records that prove a bad share."""
    keys = session.round.keys
    package = ctx.state.wire.encode_package(SignPackage((session.round.group,)))
    evidence = (session.batches[culprit], package, session.answers[culprit])
    _blame(ctx, BAD_SHARE, culprit, keys.key_id, keys.epoch, session.id, evidence)


def _blame(
    ctx: Context, code: str, culprit: Index, key_id: str, epoch: Epoch, session_id: int, evidence: tuple[bytes, ...]
) -> None:
    stats = ctx.state.peers[culprit]
    ctx.out.note("peer_bad", seat=culprit, code=code)
    # One proof is enough; a liar must not make us fill the audit topic with megabytes of them.
    if ctx.now >= stats.aside_until:
        ctx.out.blame(blame_entry(code, culprit, key_id, epoch, ctx.now, session_id, evidence))
    stats.aside_until = Instant(ctx.now + SET_ASIDE_MS)
