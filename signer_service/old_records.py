"""Key records of epochs that ``signer.v1.keys`` has long forgotten, out of the ceremony log: for going back to one.

That topic is compacted and has each key's newest record alone. Where fewer than t seats hold shares of the newest
epoch, and t still hold those of an older one, only the log tells what that older epoch was.

What lies on the log need not have been committed: a record that came after the end of its attempt stands for itself
all the same. So these count only where that epoch is asked for, and of two that differ only what an audit of the log
shows as committed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from common.errors import BadInput
from common.ids import KeyId
from common.trust import facts
from common.wire import codec
from common.wire.messages import Envelope, KeyRecord, Roster
from signer_service.app import make_log_trust
from signer_service.audit.auditor import Auditor
from signer_service.audit.facts import Logged


@dataclass(frozen=True, slots=True)
class _Seen:
    """A record, and where it or another that says the same stands."""

    raw: bytes
    offsets: list[int]


class OldRecords:
    """Takes a ceremony log from its beginning; keeps what stands for itself of the epochs that are asked for."""

    def __init__(self, asked: Mapping[KeyId, int], prefix: str, operator_key: bytes) -> None:
        self._asked = asked
        self._trust = make_log_trust(prefix, operator_key)
        self._auditor = Auditor(self._trust, operator_key)
        self._kept: dict[KeyId, dict[KeyRecord, _Seen]] = {}

    def take(self, logged: Logged) -> None:
        """One record of the log, in order. Never raises for what stands in it."""
        self._auditor.take(logged)
        for raw in _records_in(logged.value):
            try:
                record = self._trust.wire.check_key_record(raw)
            except BadInput:
                continue
            if self._asked.get(record.key_id) == record.epoch:
                of_key = self._kept.setdefault(record.key_id, {})
                of_key.setdefault(facts(record), _Seen(raw, [])).offsets.append(logged.offset)

    def found(self) -> list[bytes]:
        """At most one record of each key that was asked for.

        Raises:
            BadInput: code ``key-records``: several that differ, and no audit shows which of them was committed.
        """
        return [self._one(key_id, tuple(kept.values())) for key_id, kept in self._kept.items()]

    def _one(self, key_id: KeyId, kept: tuple[_Seen, ...]) -> bytes:
        if len(kept) == 1:
            return kept[0].raw
        keys = [key for key in self._auditor.report().keys if key.key_id == key_id]
        committed = {each.committed for key in keys for each in key.epochs if each.epoch == self._asked[key_id]}
        counted = {offset: seen.raw for seen in kept for offset in seen.offsets if offset in committed}
        if not counted:
            where = ", ".join(str(seen.offsets[0]) for seen in kept)
            raise BadInput(
                "key-records",
                f"the ceremony log has different records of epoch {self._asked[key_id]} of key {key_id}, at offsets "
                f"{where}, and nothing shows which was committed: see `python -m signer_service audit`",
            )
        # Several only if the operator left a log generation after the one before: what he left counts no more.
        return counted[max(counted)]


def _records_in(raw: bytes) -> Iterable[bytes]:
    """Key records in a record of the log: one that was said there, or those that a new log goes on from."""
    try:
        payload = codec.decode(raw, Envelope).payload
        record = codec.decode_ceremony(payload)
    except BadInput:
        return ()
    if isinstance(record, Roster):
        return record.checkpoints
    return (payload,) if isinstance(record, KeyRecord) else ()
