"""Where a seat begins to read that has nothing to go on from, or was away for long: at the newest key records.

A key record stands for itself: the operator's roster, the attesting seats and the group key vouch for it, for the
offset of the Ready that made those enough, and for the running hash of the log there. So reading may begin right after
that offset, and what the log held before costs nothing. It is not yet a commit: an attempt can have ended before its
key record came. Until the record itself is read further on, nothing is sent, signed, written or erased.

::

    nothing, or a journal ... P: last attesting Ready ... C: the KeyRecord ... end at start
                              state made of the copy      proven: from here on as ever

Not proven at the end: the log is read from where that would have begun without the records.

What a fold that began at P cannot know is of no consequence: a commit leaves a key with no attempt, no Open and no
request to be healed. Of epochs before the record it does not know who has erased them.

What ends the attempt between P and C is a newer roster, which is read, or votes for the commit phase. Those count only
where it is known who may vote, and when the phase began: here it is not, so two of them are enough to doubt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from common.errors import BadInput
from common.ids import NO_OFFSET, Epoch, Index, KeyId
from common.wire.messages import NO_SIGNATURE, CeremonyKind, KeyRecord, Phase, PhaseVote, Ready, Role, Roster
from common.wire.signatures import ENVELOPE_DOMAIN, is_signed_by
from signer_service.protocol.ceremony_state import Anchor, Anchoring, CeremonyState
from signer_service.protocol.fold_roster import interpolates
from signer_service.protocol.log_state import HASH_PREFIX, Attempt, Committee, KeyLog, LogState, Made, identities
from signer_service.protocol.log_wire import LogTrust

_DOUBT = 2
"""Votes to close the commit phase, of different seats: no committee has a smaller quorum."""
_LEAST_MISSED = 2
"""A seat that missed one epoch reads all of it: it may have announced, and finish from the log."""


def begin_at(state: CeremonyState, copies: Mapping[KeyId, Sequence[bytes]], roster: Roster) -> CeremonyState:
    """Return the state that reads on from the newest key records; ``state`` itself where they are no place to begin.

    Args:
        state: New, or as the disk had it.
        copies: Of each key, what stands on ``signer.v1.keys``, newest first. Anybody may have written it.
        roster: As this process has it as a file.
    """
    anchors = []
    for wanted in roster.keys:
        found = _believable(copies.get(wanted.key_id, ()), wanted.public_key, roster, state.trust)
        if found is None:
            return state  # It is being generated perhaps: that began somewhere in what would be passed over.
        anchors.append(found)
    if not anchors or not all(_left_behind(state, each) for each in anchors):
        return state
    anchors.sort(key=lambda each: each.record.log_offset)
    first, *rest = anchors
    offset, running_hash = first.position
    if offset <= state.log.offset:
        return state
    log = LogState(
        offset=offset,
        running_hash=running_hash,
        window=running_hash[:HASH_PREFIX],
        roster_raw=first.record.roster,
        roster=first.roster,
        keys={key.key_id: KeyLog(key.key_id) for key in first.roster.keys},
    )
    log = log.with_key(KeyLog(first.record.key_id, attempt=first.attempt))
    anchoring = Anchoring(state.log, tuple(rest), (first,))
    return replace(state, log=log, soft=replace(state.soft, anchoring=anchoring))


def follow(state: CeremonyState, raw: bytes) -> CeremonyState:
    """Look at what the record ``raw``, folded just now, says of the anchors. Only while ``soft.anchoring``."""
    anchoring = state.soft.anchoring
    if anchoring is None or anchoring.refuted:
        return state
    log, waiting, unproven = state.log, [], []
    refuted = False
    for anchor in anchoring.waiting:
        if log.offset < anchor.record.log_offset:
            waiting.append(anchor)
            continue
        refuted = refuted or (log.offset, log.running_hash) != anchor.position or log.roster_raw != anchor.record.roster
        log = log.with_key(KeyLog(anchor.record.key_id, attempt=anchor.attempt))
        unproven.append(anchor)
    votes = dict(anchoring.votes)
    for anchor in anchoring.unproven:
        key = log.keys[anchor.record.key_id]
        if key.current is not None:
            continue  # The fold has seen the commit.
        voter = _voter(anchor, raw, state.trust)
        if voter is not None:
            votes[key.key_id] = votes.get(key.key_id, frozenset()) | {voter}
        refuted = refuted or key.attempt is None or len(votes.get(key.key_id, ())) >= _DOUBT
        unproven.append(anchor)
    after = Anchoring(anchoring.before, tuple(waiting), tuple(unproven), votes, refuted)
    done = not refuted and not waiting and not unproven
    return replace(state, log=log, soft=replace(state.soft, anchoring=None if done else after))


def start_over(state: CeremonyState) -> CeremonyState:
    """The end was reached and not everything is proven: read from where it would have begun without the records."""
    anchoring = state.soft.anchoring
    if anchoring is None:
        return state
    committed = {k: at for k, at in state.committed.items() if k in anchoring.before.keys}
    return replace(state, log=anchoring.before, committed=committed, soft=replace(state.soft, anchoring=None))


# --- key records -----------------------------------------------------------------------------------------------------


def _believable(copies: Sequence[bytes], pinned: bytes, roster: Roster, trust: LogTrust) -> Anchor | None:
    for raw in copies:
        try:
            found = _anchor(trust.wire.check_key_record(raw), trust)
        except BadInput:
            continue  # Rubbish in its place must not make every start a long one.
        if pinned and found.record.public_key != pinned:
            continue
        # Offsets of another log mean nothing in this one.
        return found if found.roster.log_generation == roster.log_generation else None
    return None


def _anchor(record: KeyRecord, trust: LogTrust) -> Anchor:
    roster = trust.wire.read_roster(record.roster)
    attested = [trust.wire.decode_envelope(each) for each in record.attestations]
    ready = trust.wire.decode_record(attested[0].payload)
    if not isinstance(ready, Ready) or record.log_offset < 0 or not interpolates(record):
        raise BadInput("key-record", "no place in the log follows from it")
    shares = {share.index: share.element for share in record.verification_shares}
    committee = Committee(record.threshold, identities(roster))
    expected = replace(ready, share_proof=NO_SIGNATURE)
    attempt = Attempt(
        open_id=record.open_id,
        key_id=record.key_id,
        kind=CeremonyKind.GENERATE if record.epoch == 1 else CeremonyKind.RESHARE,
        from_epoch=Epoch(record.epoch - 1),
        number=1,
        opened=record.log_offset,
        # Of the votes of those who dealt none count: who they were is not known. They are counted above.
        old=Committee(record.threshold, {}),
        new=committee,
        old_shares={},
        phase=Phase.COMMIT,
        made=Made(expected.qualified, record.public_key, shares, expected),
        ready=tuple((Index(each.index), raw) for each, raw in zip(attested, record.attestations, strict=True)),
        position=(record.log_offset, record.log_hash),
    )
    if not attempt.attested:
        raise BadInput("key-record", "more attestations are needed")
    return Anchor(record, roster, attempt)


def _left_behind(state: CeremonyState, anchor: Anchor) -> bool:
    """Whether nothing that the journal knows of this key is of use any more."""
    log, record = state.log, anchor.record
    key, mine = log.keys.get(record.key_id), state.of_key(record.key_id)
    if mine.part is not None and (mine.part.staged is not None or mine.part.transport is not None):
        # Of the attempt that it is of the log tells how it ended. It may be a share that the others count on.
        return False
    if log.offset == NO_OFFSET:
        return True
    if key is None or key.current is None or log.roster is None or log.halted_by:
        return False
    return (
        log.roster.log_generation == anchor.roster.log_generation
        and key.current.record.public_key == record.public_key
        and record.epoch >= key.epoch + _LEAST_MISSED
        and (mine.part is None or mine.part.open_id != record.open_id)
    )


def _voter(anchor: Anchor, raw: bytes, trust: LogTrust) -> Index | None:
    try:
        envelope = trust.wire.decode_envelope(raw)
        record = trust.wire.decode_record(envelope.payload)
    except BadInput:
        return None
    if not isinstance(record, PhaseVote) or envelope.role is not Role.SIGNER:
        return None
    if (record.open_id, record.phase) != (anchor.record.open_id, Phase.COMMIT):
        return None
    known = identities(anchor.roster).get(Index(envelope.index))
    # A seat that left with this record is not in its roster: it is believed, for it costs no more than a slow start.
    return Index(envelope.index) if known is None or is_signed_by(ENVELOPE_DOMAIN, raw, known) else None
