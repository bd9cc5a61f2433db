"""COMMIT and what comes after it: key records, late Ready, Erased, requests to be healed.

COMMIT is the first offset where a valid KeyRecord stands after enough equal Ready, in an attempt that had not ended.
The fold builds every byte of that record itself but for the group signature: so does every seat that helps to sign it.
"""

from dataclasses import replace

from common import ed25519
from common.ids import Index
from common.wire.messages import NO_SIGNATURE, Erased, HealRequest, KeyRecord, Ready, VerificationShare
from common.wire.transcript import key_record_message
from signer_service.protocol.findings import Finding, Said, blame, fact, late
from signer_service.protocol.fold_closing import ready_fault
from signer_service.protocol.log_state import MAX_PAST, Attempt, Commit, KeyLog, LogState, PastEpoch

Outcome = tuple[LogState, tuple[Finding, ...]]


def expected_record(state: LogState, attempt: Attempt) -> KeyRecord | None:
    """The key record that would commit this attempt, all but its signature; None while too few have said Ready."""
    made = attempt.made
    if made is None or not attempt.attested:
        return None
    offset, log_hash = attempt.position
    return KeyRecord(
        key_id=attempt.key_id,
        epoch=made.expected.epoch,
        open_id=attempt.open_id,
        threshold=attempt.new.threshold,
        public_key=made.public_key,
        verification_shares=tuple(VerificationShare(j, made.shares[j]) for j in sorted(made.shares)),
        roster=state.roster_raw,
        log_offset=offset,
        log_hash=log_hash,
        attestations=tuple(raw for _, raw in attempt.ready[: attempt.ready_needed]),
    )


def key_record(state: LogState, said: Said, record: KeyRecord) -> Outcome:
    """Take a KeyRecord."""
    key = state.keys.get(record.key_id)
    if key is None:
        return state, (late(said, record),)
    unsigned = replace(record, signature=NO_SIGNATURE)
    if key.current is not None and unsigned == replace(key.current.record, signature=NO_SIGNATURE):
        return state, ()  # Two coordinators signed at the same time: the first offset wins, nobody is to blame.
    attempt = key.attempt
    if attempt is None or unsigned != expected_record(state, attempt) or attempt.made is None:
        return state, (late(said, record),)
    if not ed25519.verify(record.public_key, key_record_message(record), record.signature):
        return state, (blame("key-record-refused", said, "the group key did not sign it"),)
    ready = tuple(sorted(seat for seat, _ in attempt.ready))
    commit = Commit(record, said.offset, attempt.new, attempt.made.expected, ready)
    # Nothing is left of what was before: a replica that begins to read at this record has to come to the same state.
    # Who still has no share asks anew, and a dead machine brings no ceremony after another.
    state = state.with_key(KeyLog(key.key_id, current=commit, past=_past(key)))
    committed = fact(
        "ceremony-committed",
        said.offset,
        key_id=key.key_id,
        epoch=commit.epoch,
        attempt=attempt.number,
        ready=len(ready),
    )
    return state, (committed,)


def _past(key: KeyLog) -> tuple[PastEpoch, ...]:
    """The epochs before the one that begins; those whose every holder has erased are forgotten."""
    past = tuple(each for each in key.past if len(each.erased) < len(each.holders))
    if key.current is None:
        return past
    committee = key.current.committee
    holders = {seat: committee.identities[seat] for seat in key.current.shares if seat in committee.identities}
    return (*past, PastEpoch(key.current.epoch, committee.threshold, holders))[-MAX_PAST:]


def late_ready(state: LogState, said: Said, record: Ready) -> Outcome:
    """Take a Ready of a committed attempt: it counts for erasing the epoch before.

    One made after the commit is known by its proof, and says that its sender has seen it. No other record does: a seat
    that lost its disk since says others, and holds nothing.
    """
    key = state.keys.get(record.key_id)
    commit = key.current if key is not None else None
    if key is None or commit is None or commit.expected is None or record.open_id != commit.expected.open_id:
        return state, (late(said, record),)
    seat = said.seat
    if seat in commit.seen:
        return state, ()
    if not ready_fault(commit.expected, commit.shares, said, record, committed=True):
        told = replace(commit, ready=_with(seat, commit.ready), seen=_with(seat, commit.seen))
        return state.with_key(replace(key, current=told)), ()
    if seat in commit.ready:
        return state, ()
    fault = ready_fault(commit.expected, commit.shares, said, record)
    if fault:
        return state, (blame("ready-refused", said, fault),)
    return state.with_key(replace(key, current=replace(commit, ready=_with(seat, commit.ready)))), ()


def _with(seat: Index, seats: tuple[Index, ...]) -> tuple[Index, ...]:
    return tuple(sorted({*seats, seat}))


def may_erase(commit: Commit) -> bool:
    """Whether r seats have said that they saw the commit: until then everybody keeps older shares, sealed and unused.

    To be Ready is not enough. A broker could show the commit to some, and to the others votes that end the attempt
    before it: those would erase the new shares, these the old, and neither be t. Nor are q enough: where n is t + 1
    that is t, and those would be too few as soon as one of them loses its disk.
    """
    return len(commit.seen) >= commit.committee.erase_quorum


def erased(state: LogState, said: Said, record: Erased) -> Outcome:
    """Take an Erased of a holder of a past epoch."""
    key = state.keys.get(record.key_id)
    past = key.past if key is not None else ()
    found = next((each for each in past if each.epoch == record.epoch and said.seat in each.holders), None)
    if key is None or found is None or said.seat in found.erased:
        return state, ()
    after = replace(found, erased=(*found.erased, said.seat))
    return state.with_key(replace(key, past=tuple(after if each is found else each for each in past))), ()


def heal_request(state: LogState, said: Said, record: HealRequest) -> Outcome:
    """Take a HealRequest: it stands until the next commit, a newer roster, or the seat's proof that it has a share."""
    key = state.keys.get(record.key_id)
    if key is None or key.current is None or key.epoch != record.epoch or said.seat in key.heals:
        return state, ()
    asked = fact("heal-requested", said.offset, key_id=key.key_id, seat=said.seat)
    return state.with_key(replace(key, heals={**key.heals, said.seat: said.offset})), (asked,)
