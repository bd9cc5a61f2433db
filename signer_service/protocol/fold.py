"""The ceremony log, folded: same offset, same state, at every replica. No clock, no secrets, no leader.

``fold`` is total: whatever stands in the log, it returns the next state. What does not count is hashed into the running
hash like everything else, and told of in a finding.

Rules, for each record:

1. It stands in an envelope of a seat, for this topic. Its sender had seen the log to less than ``WINDOW`` records
   before; if its running hash there is not ours, the log was forked.
2. ``Roster``: the first of a higher version that the operator signed counts, whoever brought it, and ends every open
   ceremony. Every other record is judged by the right roster: Deal, Verdict and Ready of recipients by the newest,
   what holders say (Open, Deal, Erased) by that of the epoch they hold, PhaseVote by either.
3. ``Open``: t equal ones of different seats open an attempt. Only what the fold itself expects next can be equal; those
   to heal a seat are equal to one another only, and count with a proof of the sender's current share (``heal_open``).
4. ``Announce``, ``Deal``, ``Verdict`` of the open attempt: ``fold_phases``; ``Ready`` and ``PhaseVote``:
   ``fold_closing``.
5. ``KeyRecord``, ``Erased``, ``HealRequest`` and late ``Ready``: ``fold_commit``.
"""

from dataclasses import replace

from common.errors import BadInput
from common.ids import Epoch, Index, KeyId, Offset
from common.wire.messages import (
    Announce,
    CeremonyKind,
    CeremonyRecord,
    Deal,
    Erased,
    HealRequest,
    KeyRecord,
    Open,
    PhaseVote,
    Ready,
    Role,
    Roster,
    Verdict,
)
from common.wire.signatures import ENVELOPE_DOMAIN, is_signed_by
from common.wire.transcript import next_log_hash
from signer_service.protocol import fold_closing, fold_commit, fold_phases, transcript
from signer_service.protocol.findings import Folded, Said, fact, late
from signer_service.protocol.fold_roster import take_roster
from signer_service.protocol.fold_sender import attempt_of, check_history, keys_of
from signer_service.protocol.heal_open import healed, is_proved
from signer_service.protocol.log_state import (
    ENVELOPE_BYTES,
    HASH_PREFIX,
    WINDOW,
    Attempt,
    Committee,
    KeyLog,
    LogState,
    dealing_committee,
    newest_committee,
)
from signer_service.protocol.log_wire import LogTrust


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
    if len(raw) - len(envelope.payload) > ENVELOPE_BYTES:
        # Integers may be padded. A bloated Ready would become part of a key record that is too large to be written.
        return Folded(state, (fact("garbage-on-log", offset, code="bloated"),))
    said = Said(Index(envelope.index), offset, raw)
    if isinstance(record, Roster):
        return take_roster(before, state, envelope, said, trust)
    if not any(is_signed_by(ENVELOPE_DOMAIN, raw, key) for key in keys_of(state, said.seat, record)):
        return Folded(state, (fact("unknown-sender", offset, seat=said.seat),))
    state, alarm = check_history(before, state, envelope, said)
    # By offsets alone, so that a replica that began to read later comes to the same answer.
    if offset - envelope.seen_offset > WINDOW:
        return Folded(state, (fact("stale-record", offset, seat=said.seat),))
    folded = _record(state, said, record)
    if alarm:
        return Folded(folded.state, alarm + folded.findings)
    return folded


# --- records ---------------------------------------------------------------------------------------------------------


def _record(state: LogState, said: Said, record: CeremonyRecord) -> Folded:
    if isinstance(record, Open):
        return _open(state, said, record)
    if isinstance(record, Announce | Deal | Verdict | Ready | PhaseVote):
        attempt = attempt_of(state, record)
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
    equal = equal_opens(key, record)
    if any(seat == said.seat for seat, _ in equal):
        return Folded(state)
    heals = healed(record)
    if heals is not None and not _may_heal(state, key, said, record, heals):
        return Folded(state, (fact("idle-open", said.offset, seat=said.seat),))
    opens, equal = (*key.opens, (said.seat, record)), (*equal, (said.seat, record))
    old, new = dealing_committee(state, key.key_id), newest_committee(state, key.key_id)
    if old is None or new is None or len(equal) < old.threshold:
        return Folded(state.with_key(replace(key, opens=opens)))
    attempt = Attempt(
        open_id=transcript.open_id(equal),
        key_id=key.key_id,
        kind=record.kind,
        from_epoch=record.from_epoch,
        number=record.attempt,
        opened=said.offset,
        old=old,
        new=new,
        old_shares=key.current.shares if key.current is not None else {},
        newcomers=_newcomers(key, new, record.attempt) if heals is None else (),
        heal_seat=heals or 0,
    )
    opened = fact("ceremony-opened", said.offset, key_id=key.key_id, kind=record.kind.value, attempt=record.attempt)
    return Folded(state.with_key(replace(key, opens=(), attempt=attempt)), (opened,))


def equal_opens(key: KeyLog, record: Open) -> tuple[tuple[Index, Open], ...]:
    """Those that wait and count together with ``record``: to heal the same seat, or for any other reasons.

    Counted all together, one bad seat's and one honest Open to heal could open a ceremony that heals nobody, again and
    again.
    """
    return tuple(each for each in key.opens if healed(each[1]) == healed(record))


def _may_heal(state: LogState, key: KeyLog, said: Said, record: Open, seat: Index) -> bool:
    """Whether an Open to heal ``seat`` counts: it has asked, and the sender holds a share of the current epoch."""
    share = key.current.shares.get(said.seat) if key.current is not None else None
    new = newest_committee(state, key.key_id)
    if share is None or new is None or seat not in new.identities or seat not in key.heals:
        return False
    return is_proved(record, said.seat, seat, share)


def _newcomers(key: KeyLog, new: Committee, attempt: int) -> tuple[Index, ...]:
    """Seats with an identity that the current epoch does not know. Whoever announces first takes part; but after that
    came to nothing each in its turn: one that announces and goes silent must not keep the others out for ever."""
    known = key.current.committee.identities if key.current is not None else {}
    found = tuple(sorted(seat for seat, identity in new.identities.items() if known.get(seat) != identity))
    if key.current is None or attempt == 1 or not found:
        return found
    return (found[attempt // 2 % len(found)],)


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
        attempt, findings = fold_closing.ready(attempt, said, record, state.running_hash)
    else:
        attempt, findings = fold_closing.vote(attempt, said, record)
    closed, more = fold_closing.close(attempt, key, said.offset)
    if closed is None:
        return Folded(state.with_key(replace(key, attempt=None, ended=attempt.number, opens=())), findings + more)
    if any(seat in key.heals for seat, each in closed.announced.items() if each.proved):
        # It proved that it holds its share: whoever asked in its name does not.
        heals = {s: at for s, at in key.heals.items() if s not in closed.announced or not closed.announced[s].proved}
        key = replace(key, heals=heals)
    return Folded(state.with_key(replace(key, attempt=closed)), findings + more)
