"""The ceremony log, folded: same offset, same state, at every replica. No clock, no secrets, no leader.

``fold`` is total: whatever stands in the log, it returns the next state. What does not count is hashed into the running
hash like everything else, and told of in a finding.

Rules, for each record:

1. It stands in an envelope of a seat, for this topic. Its sender had seen the log to less than ``WINDOW`` records
   before; if its running hash there is not ours, the log was forked.
2. ``Roster``: the first of a higher version that the operator signed counts, whoever brought it, and ends every open
   ceremony. Every other record is judged by the right roster: Deal, Verdict and Ready of recipients by the newest,
   what holders say (Open, PhaseVote, Deal, Erased) by that of the epoch they hold.
3. ``Open``: t equal ones of different seats open an attempt. Only what the fold itself expects next can be equal.
4. ``Announce``, ``Deal``, ``Verdict``, ``Ready``, ``PhaseVote`` of the open attempt: ``fold_phases``.
5. ``KeyRecord``, ``Erased``, ``HealRequest`` and late ``Ready``: ``fold_commit``.
"""

from dataclasses import dataclass, replace

from common.errors import BadInput
from common.ids import NO_OFFSET, Epoch, Index, KeyId, Offset
from common.wire.messages import (
    Announce,
    CeremonyKind,
    CeremonyRecord,
    Deal,
    Envelope,
    Erased,
    HealRequest,
    KeyRecord,
    Open,
    OpenReason,
    PhaseVote,
    Ready,
    Role,
    Roster,
    Verdict,
)
from common.wire.signatures import ENVELOPE_DOMAIN, is_signed_by
from common.wire.transcript import next_log_hash
from signer_service.frost.group import Element
from signer_service.frost.sharing import interpolate_group_key
from signer_service.protocol import fold_commit, fold_phases, transcript
from signer_service.protocol.findings import Finding, Said, blame, fact, late
from signer_service.protocol.log_state import (
    HASH_PREFIX,
    PROTOCOL_VERSION,
    WINDOW,
    Attempt,
    Commit,
    Committee,
    KeyLog,
    LogState,
    dealing_committee,
    identities,
    newest_committee,
)
from signer_service.protocol.log_wire import LogTrust


@dataclass(frozen=True, slots=True)
class Folded:
    """The state after one record, and what there is to tell of it."""

    state: LogState
    findings: tuple[Finding, ...] = ()


def fold(state: LogState, offset: Offset, raw: bytes, trust: LogTrust) -> Folded:
    """Fold the record ``raw`` at ``offset``, which is the one after ``state.offset``.

    A record at an offset that was folded already changes nothing. Never raises for what stands in the log.
    """
    if offset <= state.offset or state.halted_by:
        return Folded(state)
    before = state
    running = next_log_hash(state.running_hash, offset, raw)
    state = replace(
        state,
        offset=offset,
        running_hash=running,
        window=(state.window + running[:HASH_PREFIX])[-WINDOW * HASH_PREFIX :],
    )
    try:
        envelope = trust.wire.decode_envelope(raw)
        record = trust.wire.decode_record(envelope.payload)
    except BadInput as bad:
        return Folded(state, (fact("garbage-on-log", offset, code=bad.code),))
    if envelope.topic != trust.topic or envelope.role is not Role.SIGNER:
        return Folded(state, (fact("garbage-on-log", offset, code="wrong-topic"),))
    said = Said(Index(envelope.index), offset, raw)
    if isinstance(record, Roster):
        return _roster(before, state, envelope, said, record, trust)
    if not any(is_signed_by(ENVELOPE_DOMAIN, raw, key) for key in _keys_of(state, said.seat, record)):
        return Folded(state, (fact("unknown-sender", offset, seat=said.seat),))
    state, alarm = _check_history(before, state, envelope, said)
    # By offsets alone, so that a replica that began to read later comes to the same answer.
    if offset - envelope.seen_offset > WINDOW:
        return Folded(state, (fact("stale-record", offset, seat=said.seat),))
    folded = _record(state, said, record)
    return Folded(folded.state, alarm + folded.findings)


# --- envelopes -------------------------------------------------------------------------------------------------------


def _keys_of(state: LogState, seat: Index, record: CeremonyRecord) -> tuple[bytes, ...]:
    """Identity keys with which this seat may say this."""
    if state.roster is None:
        return ()
    newest = identities(state.roster)
    found: list[bytes | None] = []
    if isinstance(record, Erased):
        key = state.keys.get(record.key_id)
        past = next((past for past in key.past if past.epoch == record.epoch), None) if key is not None else None
        found = [newest.get(seat, past.holders.get(seat) if past is not None else None)]
    elif isinstance(record, Open):
        found = [_of(dealing_committee(state, record.key_id), seat)]
    elif isinstance(record, Deal | PhaseVote):
        attempt = _attempt(state, record)
        found = [_of(attempt.old if attempt is not None else None, seat)]
    elif isinstance(record, KeyRecord):
        found = [newest.get(seat), _of(dealing_committee(state, record.key_id), seat)]
    else:
        found = [newest.get(seat)]
    return tuple(key for key in found if key is not None)


def _of(committee: Committee | None, seat: Index) -> bytes | None:
    return committee.identities.get(seat) if committee is not None else None


def _attempt(state: LogState, record: Announce | Deal | Verdict | Ready | PhaseVote) -> Attempt | None:
    open_attempts = (key.attempt for key in state.keys.values() if key.attempt is not None)
    return next((attempt for attempt in open_attempts if attempt.open_id == record.open_id), None)


def _check_history(
    before: LogState, state: LogState, envelope: Envelope, said: Said
) -> tuple[LogState, tuple[Finding, ...]]:
    """Compare what the sender had seen with what we have: the broker may show each of us another log."""
    if _agrees(before, envelope):
        return state, ()
    finding = blame("log-forked", said, "its sender has seen another history of the log")
    return replace(state, forked=True), (finding,)


def _agrees(before: LogState, envelope: Envelope) -> bool:
    seen, seen_hash = envelope.seen_offset, envelope.seen_hash[:HASH_PREFIX]
    if seen > before.offset:
        return False  # It cannot have seen what came after it.
    if seen == NO_OFFSET:
        return True
    end = len(before.window) - HASH_PREFIX * (before.offset - seen)
    return end <= 0 or before.window[end - HASH_PREFIX : end] == seen_hash


# --- rosters ---------------------------------------------------------------------------------------------------------


def _roster(
    before: LogState, state: LogState, envelope: Envelope, said: Said, record: Roster, trust: LogTrust
) -> Folded:
    # The operator's signature is what counts; a seat that only the new roster knows may bring it.
    raw = envelope.payload
    try:
        roster = trust.wire.read_roster(raw)
    except BadInput as bad:
        return Folded(state, (fact("foreign-roster", said.offset, code=bad.code),))
    findings: tuple[Finding, ...] = ()
    known = [identities(each).get(said.seat) for each in (roster, state.roster) if each is not None]
    if any(key is not None and is_signed_by(ENVELOPE_DOMAIN, said.raw, key) for key in known):
        state, findings = _check_history(before, state, envelope, said)
    if state.roster is not None:
        try:
            if trust.wire.newer(state.roster, roster) is not roster or roster.version == state.roster.version:
                return Folded(state, findings)
        except BadInput as bad:
            return Folded(state, (*findings, fact("roster-alarm", said.offset, code=bad.code)))
    if roster.protocol_version > PROTOCOL_VERSION:
        # Not folded, and not passed by: the journal stays before it, and a newer program goes on from there.
        halted = fact("protocol-version", said.offset, version=roster.protocol_version)
        return Folded(replace(before, halted_by=roster.protocol_version), (halted,))
    fresh_log = state.roster is not None and roster.log_generation > state.roster.log_generation
    if fresh_log or (state.roster is None and roster.checkpoints):
        state, found = _from_checkpoints(state, roster, said, trust)
        findings += found
    keys: dict[KeyId, KeyLog] = {}
    for key in state.keys.values():
        if key.attempt is not None:
            findings += (fold_phases.ended(key.attempt, said.offset, "roster"),)
        keys[key.key_id] = replace(key, opens=(), attempt=None, ended=key.ended + (key.attempt is not None), heals={})
    for wanted in roster.keys:
        keys.setdefault(wanted.key_id, KeyLog(wanted.key_id))
    accepted = fact("roster-accepted", said.offset, version=roster.version, seats=len(roster.seats))
    return Folded(replace(state, roster=roster, roster_raw=raw, keys=keys), (*findings, accepted))


def _from_checkpoints(
    state: LogState, roster: Roster, said: Said, trust: LogTrust
) -> tuple[LogState, tuple[Finding, ...]]:
    """The operator says from which key records the log goes on: nothing that was in it before counts."""
    keys: dict[KeyId, KeyLog] = {}
    findings: list[Finding] = []
    for raw in roster.checkpoints:
        try:
            record = trust.wire.check_key_record(raw)
            held = trust.wire.read_roster(record.roster)
        except BadInput as bad:
            findings.append(fact("checkpoint-refused", said.offset, code=bad.code))
            continue
        if not _interpolates(record):
            findings.append(fact("checkpoint-refused", said.offset, code="interpolation"))
            continue
        committee = Committee(record.threshold, identities(held))
        everybody = tuple(share.index for share in record.verification_shares)
        keys[record.key_id] = KeyLog(record.key_id, Commit(record, said.offset, committee, None, everybody))
    return replace(state, keys=keys, forked=False), tuple(findings)


def _interpolates(record: KeyRecord) -> bool:
    """Whether every verification share lies on the one polynomial whose constant term is the public key."""
    shares = {share.index: Element(share.element) for share in record.verification_shares}
    first = sorted(shares)[: record.threshold - 1]
    rest = sorted(shares)[record.threshold - 1 :]
    return bool(rest) and all(interpolate_group_key(shares, (*first, j)) == record.public_key for j in rest)


# --- records ---------------------------------------------------------------------------------------------------------


def _record(state: LogState, said: Said, record: CeremonyRecord) -> Folded:
    if isinstance(record, Open):
        return _open(state, said, record)
    if isinstance(record, Announce | Deal | Verdict | Ready | PhaseVote):
        attempt = _attempt(state, record)
        if attempt is not None:
            return _phase(state, said, attempt, record)
        if isinstance(record, Ready):
            return Folded(*fold_commit.late_ready(state, said, record))
        return Folded(state, (late(said, record),))
    if isinstance(record, KeyRecord):
        return Folded(*fold_commit.key_record(state, said, record))
    if isinstance(record, Erased):
        return Folded(*fold_commit.erased(state, said, record))
    if isinstance(record, HealRequest):
        return Folded(*fold_commit.heal_request(state, said, record))
    return Folded(state)


def _open(state: LogState, said: Said, record: Open) -> Folded:
    key = state.keys.get(record.key_id)
    expected = expected_open(state, record.key_id)
    if key is None or expected is None or _essence(record) != expected:
        return Folded(state, (fact("idle-open", said.offset, seat=said.seat),))
    if any(seat == said.seat for seat, _ in key.opens):
        return Folded(state)
    opens = (*key.opens, (said.seat, record))
    old, new = dealing_committee(state, key.key_id), newest_committee(state, key.key_id)
    if old is None or new is None or len(opens) < old.threshold:
        return Folded(state.with_key(replace(key, opens=opens)))
    attempt = Attempt(
        open_id=transcript.open_id(opens),
        key_id=key.key_id,
        kind=record.kind,
        from_epoch=record.from_epoch,
        number=record.attempt,
        opened=said.offset,
        old=old,
        new=new,
        old_shares=key.current.shares if key.current is not None else {},
        newcomers=_newcomers(key, new),
        heal_seat=_heal_seat(key, new, opens),
    )
    opened = fact("ceremony-opened", said.offset, key_id=key.key_id, kind=record.kind.value, attempt=record.attempt)
    return Folded(state.with_key(replace(key, opens=(), attempt=attempt)), (opened,))


def _newcomers(key: KeyLog, new: Committee) -> tuple[Index, ...]:
    known = key.current.committee.identities if key.current is not None else {}
    return tuple(seat for seat, identity in new.identities.items() if known.get(seat) != identity)


def expected_open(state: LogState, key_id: KeyId) -> tuple[CeremonyKind, Epoch, int, int] | None:
    """Kind, from_epoch, attempt and roster version of the one Open that could count now; None: no Open could.

    A key that the roster pins and the log does not know is never generated: it exists, the log lost it. And no
    ceremony could give a key other than the pinned one.
    """
    key, wanted = state.keys.get(key_id), state.roster_key(key_id)
    if key is None or wanted is None or state.roster is None or key.attempt is not None:
        return None
    if wanted.public_key and (key.current is None or key.current.record.public_key != wanted.public_key):
        return None
    kind = CeremonyKind.RESHARE if key.current is not None else CeremonyKind.GENERATE
    return kind, key.epoch, key.ended + 1, state.roster.version


def _essence(record: Open) -> tuple[CeremonyKind, Epoch, int, int]:
    return record.kind, record.from_epoch, record.attempt, record.roster_version


def _heal_seat(key: KeyLog, new: Committee, opens: tuple[tuple[Index, Open], ...]) -> int:
    """The one seat that may take part although it lost its share: the one that asked first.

    Only if each of the t Opens gives this reason: an honest seat gives it only when its own clock says that the request
    has stood unopposed for long enough, and one of t is honest.
    """
    if any(said.reason is not OpenReason.HEAL for _, said in opens):
        return 0
    asked = [(offset, seat) for seat, offset in key.heals.items() if seat in new.identities]
    return min(asked)[1] if asked else 0


def _phase(
    state: LogState, said: Said, attempt: Attempt, record: Announce | Deal | Verdict | Ready | PhaseVote
) -> Folded:
    key = state.keys[attempt.key_id]
    if isinstance(record, Announce):
        attempt, findings = fold_phases.announce(attempt, said, record)
    elif isinstance(record, Deal):
        attempt, findings = fold_phases.deal(attempt, said, record)
    elif isinstance(record, Verdict):
        attempt, findings = fold_phases.verdict(attempt, said, record)
    elif isinstance(record, Ready):
        attempt, findings = fold_phases.ready(attempt, said, record, state.running_hash)
    else:
        attempt, findings = fold_phases.vote(attempt, said, record)
    closed, more = fold_phases.close(attempt, key, said.offset)
    if closed is None:
        return Folded(state.with_key(replace(key, attempt=None, ended=attempt.number, opens=())), findings + more)
    if any(seat in key.heals for seat, each in closed.announced.items() if each.proved):
        # It proved that it holds its share: whoever asked in its name does not.
        heals = {s: at for s, at in key.heals.items() if s not in closed.announced or not closed.announced[s].proved}
        key = replace(key, heals=heals)
    return Folded(state.with_key(replace(key, attempt=closed)), findings + more)
