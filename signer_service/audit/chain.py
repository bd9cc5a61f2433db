"""The running hash at every offset, and whether each seat has signed the same: what shows that a log was changed.

It begins anew where the operator goes on with another log generation. What was before is vouched for by those who wrote
before.
"""

from common.ids import Offset
from common.wire.messages import Envelope
from common.wire.transcript import LOG_START_HASH, next_log_hash
from signer_service.audit.facts import Problem


class Chain:
    """All of the log's running hashes; the fold keeps the last of them. ``fork``: the first seat that disagrees."""

    def __init__(self) -> None:
        self._hashes: list[bytes] = []
        self._agreed = -1
        self._begin = 0
        self.fork: Problem | None = None

    def __len__(self) -> int:
        return len(self._hashes)

    @property
    def last(self) -> bytes:
        """The running hash at the end."""
        return self._hashes[-1] if self._hashes else LOG_START_HASH

    def at(self, offset: int) -> bytes | None:
        """The running hash at this offset; None if there is no such record."""
        return self._hashes[offset] if 0 <= offset < len(self._hashes) else None

    def add(self, offset: Offset, raw: bytes) -> None:
        """Add the next record."""
        self._hashes.append(next_log_hash(self.last, offset, raw))

    def begin_anew(self, offset: Offset, raw: bytes) -> None:
        """The record that was added last brought a roster with which the running hash begins again."""
        self._hashes[-1] = next_log_hash(LOG_START_HASH, offset, raw)
        self._begin = offset

    def follow(self, envelope: Envelope, offset: Offset, *, forked: bool, roster: bool) -> None:
        """Compare with what the sender of the record at ``offset``, whose signature was checked, says that it had seen.

        Args:
            envelope: Of the record.
            offset: Where it stands.
            forked: The fold says that it disagrees.
            roster: It brings a roster. Its sender's signature may not be known yet: there the fold has looked.
        """
        seen = envelope.seen_offset
        agrees = seen < self._begin or (seen < offset and self.at(seen) == envelope.seen_hash)
        if not forked and (agrees or roster):
            self._agreed = max(self._agreed, seen) if agrees else self._agreed
        elif self.fork is None:
            where = f"of offsets {self._agreed + 1} to {seen}" if seen < offset else f"up to offset {seen}, before it"
            self.fork = Problem(
                "log-forked",
                f"seat {envelope.index} has signed another running hash for offset {seen}: "
                f"records {where} were changed, left out, moved or put in",
                offset,
            )
