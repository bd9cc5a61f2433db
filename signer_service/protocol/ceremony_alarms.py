"""Conditions of keys and ceremonies that a person has to look at although signing goes on. Pure; nothing is stored.

old-epoch-held       this seat still keeps a share of an earlier epoch: too few seats are known to hold the new one
share-ahead          this seat's share is of a later epoch than the log went back to, and it has none of that one
refresh-overdue      a key's shares are older than the schedule allows by far: what was stolen is worth something
committee-out-of-reach   the newest roster asks for a committee that no ceremony can bring about
fold-differs         another live seat, at the same place of the log, has come to another running hash than this one
"""

from collections.abc import Mapping

from common.ids import NO_OFFSET, Index, Instant, KeyId
from common.wire.messages import Presence
from signer_service.protocol.ceremony_opening import out_of_reach
from signer_service.protocol.ceremony_part import held_now
from signer_service.protocol.ceremony_state import CeremonyState
from signer_service.protocol.log_state import HASH_PREFIX, LogState


def old_epochs_held(state: CeremonyState) -> tuple[KeyId, ...]:
    """Keys of which this seat keeps a share of an earlier epoch, though its sessions are over."""
    return tuple(
        key_id
        for key_id, key in state.log.keys.items()
        if key_id not in state.soft.draining and any(held.epoch < key.epoch for held in state.of_key(key_id).held)
    )


def shares_ahead(state: CeremonyState) -> tuple[KeyId, ...]:
    """Keys whose log the operator took back behind this seat's share: it cannot sign with what it holds.

    Where it has kept a share of that epoch as well, going back was no mistake.
    """
    return tuple(
        key_id
        for key_id, key in state.log.keys.items()
        if state.soft.caught_up
        and key.current is not None
        and held_now(key.current, state.seat, state.of_key(key_id)) is None
        and any(held.epoch > key.epoch for held in state.of_key(key_id).held)
    )


def overdue(state: CeremonyState, now: Instant) -> tuple[KeyId, ...]:
    """Keys whose refresh should have ended: every seat found it due (a tenth late at most), and as much time is over
    again."""
    late = state.timing.refresh_interval_ms * 6 // 5
    # When an epoch began is known only once all was read.
    return tuple(
        key_id
        for key_id, key in state.log.keys.items()
        if state.soft.caught_up and key.current is not None and now > state.committed.get(key_id, now) + late
    )


def unreachable(state: CeremonyState) -> dict[KeyId, str]:
    """Keys that no ceremony can bring to the newest roster's committee, and why."""
    reasons = {key_id: out_of_reach(state, key) for key_id, key in state.log.keys.items()}
    return {key_id: reason for key_id, reason in reasons.items() if reason}


def differing(log: LogState, beats: Mapping[Index, Presence]) -> tuple[Index, ...]:
    """Seats whose beat tells of another running hash than this seat has at that offset.

    Where the offset is ahead of this seat, or too far back, nothing can be said, and the seat is not named.
    """
    return tuple(sorted(seat for seat, beat in beats.items() if any(_differs(log, *each) for each in _folds(beat))))


def _folds(beat: Presence) -> set[tuple[int, bytes]]:
    return {(key.fold_offset, key.fold_hash) for key in beat.keys if key.fold_offset != NO_OFFSET and key.fold_hash}


def _differs(log: LogState, offset: int, fold_hash: bytes) -> bool:
    end = len(log.window) - HASH_PREFIX * (log.offset - offset)
    if offset > log.offset or end < HASH_PREFIX:
        return False
    return log.window[end - HASH_PREFIX : end] != fold_hash[:HASH_PREFIX]
