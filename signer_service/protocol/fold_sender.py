"""Who may say what on the ceremony log, and whether the sender has seen the same log as we have.

Each record is judged by the right roster: what holders say (Open, Deal, Erased) by that of the epoch they hold,
a PhaseVote by either, everything else by the newest.
"""

from dataclasses import replace

from common.ids import NO_OFFSET, Index
from common.wire.messages import (
    Announce,
    CeremonyRecord,
    Deal,
    Envelope,
    Erased,
    KeyRecord,
    Open,
    PhaseVote,
    Ready,
    Verdict,
)
from signer_service.protocol.findings import Finding, Said, witnessed
from signer_service.protocol.log_state import (
    HASH_PREFIX,
    Attempt,
    Committee,
    LogState,
    dealing_committee,
    identities,
)


def keys_of(state: LogState, seat: Index, record: CeremonyRecord) -> tuple[bytes, ...]:
    """Identity keys with which this seat may say this."""
    if state.roster is None:
        return ()
    newest = identities(state.roster)
    found: list[bytes | None] = []
    if isinstance(record, Erased):
        key = state.keys.get(record.key_id)
        past = next((past for past in key.past if past.epoch == record.epoch), None) if key is not None else None
        mine = past.holders.get(seat) if past is not None else None
        # A new identity is another machine: what the one before it holds, it cannot know.
        found = [mine if newest.get(seat, mine) == mine else None]
    elif isinstance(record, Open):
        found = [_of(dealing_committee(state, record.key_id), seat)]
    elif isinstance(record, Deal | PhaseVote):
        attempt = attempt_of(state, record)
        # Of an attempt that is over: whoever says it, it is late.
        found = [_of(attempt.old, seat) if attempt is not None else newest.get(seat)]
        if isinstance(record, PhaseVote) and attempt is not None:
            found.append(_of(attempt.new, seat))
    elif isinstance(record, KeyRecord):
        found = [newest.get(seat), _of(dealing_committee(state, record.key_id), seat)]
    else:
        found = [newest.get(seat)]
    return tuple(key for key in found if key is not None)


def _of(committee: Committee | None, seat: Index) -> bytes | None:
    return committee.identities.get(seat) if committee is not None else None


def attempt_of(state: LogState, record: Announce | Deal | Verdict | Ready | PhaseVote) -> Attempt | None:
    """The open attempt that a record is about, if it is open."""
    open_attempts = (key.attempt for key in state.keys.values() if key.attempt is not None)
    return next((attempt for attempt in open_attempts if attempt.open_id == record.open_id), None)


def check_history(
    before: LogState, state: LogState, envelope: Envelope, said: Said
) -> tuple[LogState, tuple[Finding, ...]]:
    """Compare what the sender had seen with what we have: the broker may show each of us another log."""
    if _agrees(before, envelope):
        return state, ()
    # Not its fault: whoever may write to the broker's disks can show each of us another log.
    finding = witnessed("log-forked", said, "its sender has seen another history of the log")
    return replace(state, forked=True), (finding,)


def _agrees(before: LogState, envelope: Envelope) -> bool:
    seen, seen_hash = envelope.seen_offset, envelope.seen_hash[:HASH_PREFIX]
    if seen > before.offset:
        return False  # It cannot have seen what came after it.
    if seen == NO_OFFSET:
        return True
    end = len(before.window) - HASH_PREFIX * (before.offset - seen)
    return end <= 0 or before.window[end - HASH_PREFIX : end] == seen_hash
