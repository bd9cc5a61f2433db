"""One seat's part in key generation and resharing: the ceremony machine.

The log decides (``fold``); this machine says what this seat adds to it, from its own secrets and its own clock.

Rules:

1. Nothing is sent before all that the log held at start was read, nor while the log is forked or lost, but the copy of
   the key record that it has shown. Signing goes on. Where the operator's file declares a newer log than what was read
   belongs to, nothing is sent but that roster, and no secret is made, moved or erased, until it stands on the log.
2. What is sent follows from (fold, secrets, clock) alone: nothing is remembered that a restart would forget and miss.
3. Secrets are durable before what depends on them leaves: write ``durable(state)`` whenever it changed, before
   ``Transition.send``.
4. A Deal is stored sealed; its polynomial and ephemeral scalar never leave the function that made them.
5. What belongs to a failed attempt is erased when it ends. A share of an older epoch is erased when r seats have said
   that they saw the commit, or everybody who has one of that epoch has.

=========  ========================================  ==================================================================
phase      this seat makes                           then keeps
=========  ========================================  ==================================================================
(none)     Open, when it sees a reason itself        nothing
announce   x_j, Announce                             x_j and the Announce
deal       polynomial, e_i, Deal                     the sealed Deal only
verdict    Verdict with provable complaints          the Verdict
ready      s'_j, Ready                               s'_j, staged, and the Ready; x_j goes
commit     the KeyRecord's signature, with others    s'_j, now the share
(after)    Ready, with the proof of the committed    older shares, until r have said this
=========  ========================================  ==================================================================
"""

from collections.abc import Iterable
from dataclasses import replace

from common.errors import BadInput
from common.ids import NO_OFFSET, Index, Instant, KeyId
from common.wire.messages import CeremonyRecord, KeyRecord
from signer_service.protocol import ceremony_agenda, ceremony_audit, ceremony_opening, ceremony_roster
from signer_service.protocol.ceremony_clock import listens, not_ahead, noted, tell_deaf
from signer_service.protocol.ceremony_part import replaced, settle
from signer_service.protocol.ceremony_place import follow, start_over
from signer_service.protocol.ceremony_state import (
    CaughtUp,
    CeremonyState,
    CeremonyTiming,
    Draining,
    Event,
    Hears,
    KeyCopySeen,
    LogLost,
    LogRecord,
    RosterFile,
    SendFailed,
)
from signer_service.protocol.ceremony_view import epoch_keys, takeover_at
from signer_service.protocol.findings import Finding
from signer_service.protocol.fold import fold
from signer_service.protocol.log_state import KeyLog
from signer_service.protocol.log_wire import LogTrust
from signer_service.protocol.machine import (
    Entropy,
    InternalSigned,
    Note,
    Outgoing,
    PeersChanged,
    RefreshAsked,
    Tick,
    ToKeys,
    Transition,
)


def start(seat: Index, trust: LogTrust, timing: CeremonyTiming) -> CeremonyState:
    """A seat with an empty disk, before the log's first record. (``ceremony_disk.restore`` goes on from a disk.)"""
    return CeremonyState(seat, trust, timing)


def step(state: CeremonyState, event: Event, now: Instant, entropy: Entropy) -> Transition[CeremonyState, None]:
    """Take one event. Total: nothing that stands in the log, and no file, makes it raise.

    Args:
        state: Immutable.
        event: A record of the log, in order; or what else happened.
        now: This process's clock.
        entropy: Fresh random bytes.

    Returns:
        The next state, durable (``ceremony_disk.durable``) before ``send`` leaves; when to tick; what to tell.
    """
    state, findings, notes = _take(not_ahead(state, now), event, now)
    if state.soft.anchoring is not None:
        return Transition(state, notes=notes)
    state = noted(state, now)
    todo = ceremony_agenda.Agenda(now)
    if not state.awaits_new_log:
        state, settled = settle(state, entropy)
        notes += settled
        state = ceremony_opening.settle_opens(state, todo, entropy)
    owed = ceremony_agenda.agenda(state, now)
    owed.wake += todo.wake
    state, told = tell_deaf(state, owed.wake, now)
    notes += told
    state, send = ceremony_agenda.send(state, owed)
    state = _remember_published(state, send, now)
    turns = (takeover_at(state, key.attempt) for key in state.log.keys.values() if key.attempt is not None)
    owed.wake += [at for at in turns if at is not None]
    owed.wake += [drain.until for drain in state.soft.draining.values()]
    live = state.soft.caught_up
    findings = ceremony_audit.worth_telling(findings, live=live)
    return Transition(
        state=state,
        send=(*send, *ceremony_audit.events(findings, now)) if live else send,
        wake_at=min((at for at in owed.wake if at > now), default=None),
        notes=(*(finding.note for finding in findings), *notes),
    )


# --- events ----------------------------------------------------------------------------------------------------------


def _take(
    state: CeremonyState, event: Event, now: Instant
) -> tuple[CeremonyState, tuple[Finding, ...], tuple[Note, ...]]:
    """What the event says by itself. What this seat does about it follows from the state, in ``step``."""
    findings: tuple[Finding, ...] = ()
    notes: tuple[Note, ...] = ()
    match event:
        case LogRecord():
            state, findings, notes = _read(state, event, now)
        case CaughtUp() if state.soft.anchoring is not None:
            state, notes = start_over(state), (Note("place-not-proven"),)
        case CaughtUp():
            state, notes = state.with_soft(caught_up=True), _missing(state)
        case LogLost():
            state, notes = state.with_soft(lost=True), (Note("ceremony-log-lost"),)
        case RosterFile(raw=raw):
            state, notes = ceremony_roster.take_file(state, raw)
        case PeersChanged(live=live):
            state = state.with_soft(live=live)
        case InternalSigned(open_id=open_id, signature=signature):
            state = state.with_soft(signatures={**state.soft.signatures, open_id: signature})
        case RefreshAsked(key_id=key_id, raw=raw):
            state, notes = _refresh_asked(state, key_id, raw, now)
        case KeyCopySeen(key_id=key_id, record=copy):
            state = _key_copy(state, key_id, copy, now)
        case SendFailed(record=record):
            state = _not_sent(state, record, now)
        case Hears(hears=hears):
            state = listens(state, hears, now)
        case Tick():
            pass
    return state, findings, notes


def _read(
    state: CeremonyState, event: LogRecord, now: Instant
) -> tuple[CeremonyState, tuple[Finding, ...], tuple[Note, ...]]:
    before = state.log
    if before.halted_by or state.soft.lost:
        # What comes after a loss is of another log, even where its offsets go on from ours.
        return state, (), ()
    if event.offset > before.offset + 1:
        # Records are missing: what they said cannot be known, so nothing may be built on it.
        return state.with_soft(lost=True), (), ()
    folded = fold(before, event.offset, event.raw, state.trust)
    after = follow(replace(state, log=folded.state), event.raw)
    findings = folded.findings
    notes: list[Note] = []
    if folded.state.roster is not before.roster:
        after, alarm = ceremony_roster.against_file(after, event.offset)
        findings += alarm
    for key_id, key in folded.state.keys.items():
        previous = before.keys.get(key_id, KeyLog(key_id))
        if key.current is not None and key.current is not previous.current and key.epoch != previous.epoch:
            # What was seen to happen happened now. Of what is replayed the broker says when, but never later than now:
            # it could put the next refresh off for ever, or with an early time bring one after another.
            written = event.written_ms
            written = now if state.soft.caught_up or written is None else min(written, now)
            after = _committed(state, after, previous, written, now)
            trusted = after.soft.anchoring is None and not after.awaits_new_log
            if previous.current is not None and key.epoch > previous.epoch and trusted:
                mine = after.of_key(key_id)
                left = replaced(mine, previous.current, notes)
                after = after if left is mine else replace(after, secrets={**after.secrets, key_id: left})
    return after, findings, tuple(notes)


def _missing(state: CeremonyState) -> tuple[Note, ...]:
    """All is read: say of which keys this seat should hold a share and has none."""
    keys = (key for key in state.log.keys.values() if ceremony_agenda.needs_heal(state, key))
    return tuple(Note("share-missing", {"key_id": key.key_id, "epoch": key.epoch}) for key in keys)


def _committed(
    before: CeremonyState, after: CeremonyState, previous: KeyLog, written: Instant, now: Instant
) -> CeremonyState:
    soft = after.soft
    stood, attempt, commit = soft.heals.get(previous.key_id), previous.attempt, after.log.keys[previous.key_id].current
    if stood is not None and attempt is not None and commit is not None:
        # They ask anew, but a refresh must not put them off each time. One that was to be healed now does wait again.
        waited = {
            seat: (NO_OFFSET, since)
            for seat, (_, since) in stood.items()
            if seat != attempt.heal_seat and seat not in commit.shares
        }
        soft = replace(soft, heals={**soft.heals, previous.key_id: waited})
    if soft.caught_up and previous.current is not None:
        drain = Draining(epoch_keys(before, previous.current), Instant(now + before.timing.drain_window_ms))
        soft = replace(soft, draining={**soft.draining, previous.key_id: drain})
    return replace(after, committed={**after.committed, previous.key_id: written}, soft=soft)


def _refresh_asked(
    state: CeremonyState, key_id: KeyId, raw: bytes, now: Instant
) -> tuple[CeremonyState, tuple[Note, ...]]:
    key = state.log.keys.get(key_id)
    refused = ceremony_opening.refusal(state, key_id, now)
    if key is None or refused is not None:
        code = refused.value if refused is not None else "unknown-key"
        return state, (Note("refresh-refused", {"key_id": key_id, "code": code}),)
    try:
        ceremony_opening.check_refresh(state, key_id, raw, now)
    except BadInput as bad:
        return state, (Note("refresh-refused", {"key_id": key_id, "code": bad.code}),)
    return state.with_soft(asked={**state.soft.asked, key_id: (key.epoch, raw)}), ()


def _key_copy(state: CeremonyState, key_id: KeyId, seen: KeyRecord | None, now: Instant) -> CeremonyState:
    key = state.log.keys.get(key_id)
    if key is None or key.current is None:
        return state
    published, rivals = dict(state.soft.published), dict(state.soft.rivals)
    if seen is not None and seen.epoch == key.epoch and seen != key.current.record:
        rivals[key_id] = (seen.epoch, now)
    if seen is not None and (seen == key.current.record or seen.epoch > key.epoch):
        published[key_id] = (seen.epoch, now)
    elif seen is not None and seen.epoch == key.epoch and state.in_doubt:
        # Of the other side of a fork, or of the log that took the place of a lost one: two who write over each other
        # decide nothing, and without a log of our own there is nothing that would.
        published[key_id] = (key.epoch, now)
    elif (
        key_id in published
        and published[key_id][0] <= key.epoch
        and now >= published[key_id][1] + state.timing.resend_ms
    ):
        del published[key_id]
    return state.with_soft(published=published, rivals=rivals)


def _remember_published(state: CeremonyState, send: Iterable[Outgoing], now: Instant) -> CeremonyState:
    published = {each.record.key_id: (each.record.epoch, now) for each in send if isinstance(each, ToKeys)}
    return state.with_soft(published={**state.soft.published, **published}) if published else state


def _not_sent(state: CeremonyState, record: CeremonyRecord, now: Instant) -> CeremonyState:
    """The broker refused it: again soon, but not at once, or a broker that is down would be asked without end."""
    again = Instant(now - state.timing.resend_ms + state.timing.retry_ms)
    name = type(record).__name__
    sent = {tag: min(at, again) if tag[0] == name else at for tag, at in state.soft.sent.items()}
    published = dict(state.soft.published)
    if isinstance(record, KeyRecord) and published.get(record.key_id, (0, 0))[0] == record.epoch:
        # It may have been the public copy. Written once more, that does no harm.
        del published[record.key_id]
        sent[ceremony_agenda.copy_tag(record.key_id, record.epoch)] = again
    return state.with_soft(sent=sent, published=published)
