"""What the machines noticed, as counts and log lines. The machines themselves neither count nor log."""

from typing import Final

from common.observability.logging import get_logger
from common.observability.metrics import Metrics
from signer_service.protocol.machine import Note

_QUIET: Final = frozenset({"share_late", "share_stray", "share_declined", "nonce_batch_stray", "nonce_request_stale"})
"""Everyday life of a distributed system: a line for each would cost more than the round that it tells of."""
_BAD: Final = frozenset({"peer_bad", "own_share_bad"})

_log = get_logger("signer_service.protocol")


class Notes:
    """Turns notes into metrics and lines."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def tell(self, notes: tuple[Note, ...]) -> None:
        """Take the notes of one step."""
        for note in notes:
            if note.name in _QUIET:
                continue
            if note.name in _BAD:
                self._metrics.blame.labels(seat=int(note.fields["seat"])).inc()
                _log.error(note.name, **note.fields)
            else:
                _log.info(note.name, **note.fields)
