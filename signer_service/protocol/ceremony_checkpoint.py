"""A roster that begins a new log, held against what a seat knows: it must not go back behind shares that are there."""

from collections.abc import Mapping

from common.errors import BadInput
from common.ids import Epoch, Index, KeyId
from common.wire.messages import KeyRecord, Roster
from signer_service.protocol import remedy
from signer_service.protocol.ceremony_state import KeySecrets
from signer_service.protocol.log_state import KeyLog
from signer_service.protocol.log_wire import LogTrust


def is_next_log(known: Roster | None, generation: int) -> bool:
    """Whether ``generation`` is of a later log than the one that ``known`` stands on."""
    return known is not None and generation > known.log_generation


def refuse_behind(
    raw: bytes,
    generation: int,
    seat: Index,
    secrets: Mapping[KeyId, KeySecrets],
    trust: LogTrust,
    keys: Mapping[KeyId, KeyLog] | None = None,
) -> None:
    """Refuse a checkpoint that is older than what this seat knows, unless it has kept its share of that epoch: where
    all have erased that, nobody could sign.

    Args:
        raw: The checkpoint: a key record.
        generation: Of the log that would go on from it.
        seat: Who asks.
        secrets: Its shares. One that is only staged is of no commit that it has seen, and refuses nothing.
        trust: Whose log.
        keys: The log as far as it was read. Without it only shares count: who starts without any loses nothing, and
            where the operator has to go back, nothing could mend what it once read.

    Raises:
        BadInput: ``checkpoint``; the detail says which epochs and what to do.
    """
    record = _checkpoint(raw, trust)
    if record is None:
        return  # The log's fold refuses it and alarms.
    key, mine = (keys or {}).get(record.key_id), secrets.get(record.key_id, KeySecrets(record.key_id))
    known = max((key.epoch if key is not None else Epoch(0), *(each.epoch for each in mine.held)))
    named = {share.index: share.element for share in record.verification_shares}
    if known > record.epoch and mine.find(record.epoch, named.get(seat)) is None:
        raise BadInput(
            "checkpoint",
            f"the roster's log generation {generation} goes on from epoch {record.epoch} of key {record.key_id}, and "
            f"this replica was at epoch {known} and has no share of epoch {record.epoch}: {remedy.CHECKPOINT}",
        )


def _checkpoint(raw: bytes, trust: LogTrust) -> KeyRecord | None:
    try:
        return trust.wire.check_key_record(raw)
    except BadInput:
        return None
