"""What the machines noticed, as counts and log lines. The machines themselves neither count nor log."""

from typing import Final

from common.observability.logging import get_logger
from common.observability.metrics import Metrics
from signer_service.protocol.machine import Note

_QUIET: Final = frozenset({"share_late", "share_stray", "share_declined", "nonce_batch_stray", "nonce_request_stale"})
"""Everyday life of a distributed system: a line for each would cost more than the round that it tells of."""
_PROVEN: Final = frozenset({"peer_bad", "own_share_bad"})
_LIES: Final = frozenset(
    {
        "announce-refused",
        "announce-void",
        "complaint-false",
        "complaint-idle",
        "deal-convicted",
        "deal-refused",
        "deal-twice",
        "key-record-refused",
        "ready-refused",
    }
)
"""What no honest seat says on the ceremony log."""
_WARN: Final = frozenset(
    {
        "announce-again",
        "announce-not-counted",
        "announce-refused",
        "announce-void",
        "ceremony-ended",
        "checkpoint-refused",
        "complaint-false",
        "complaint-idle",
        "deal-convicted",
        "deal-refused",
        "deal-twice",
        "foreign-roster",
        "garbage-on-log",
        "heal-requested",
        "hears-nothing",
        "key-record-refused",
        "no-share-from-ceremony",
        "ready-refused",
        "roster-file-refused",
        "share-missing",
        "share-of-another-history",
    }
)
_ALARM: Final = frozenset({"ceremony-log-lost", "log-forked", "protocol-version", "roster-alarm"})

_log = get_logger("signer_service.protocol")


class Notes:
    """Turns notes into metrics and lines."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def tell(self, notes: tuple[Note, ...]) -> None:
        """Take the notes of one step."""
        for note in notes:
            if note.name in _QUIET:
                _log.debug(note.name, **note.fields)
            else:
                self._count(note)
                self._say(note)

    def _say(self, note: Note) -> None:
        if note.name in _PROVEN or note.name in _ALARM:
            _log.error(note.name, **note.fields)
        elif note.name in _WARN:
            _log.warning(note.name, **note.fields)
        else:
            _log.info(note.name, **note.fields)

    def _count(self, note: Note) -> None:
        key_id = str(note.fields.get("key_id", ""))
        if note.name in _PROVEN or note.name in _LIES:
            self._metrics.blame.labels(seat=int(note.fields["seat"])).inc()
        elif note.name == "ceremony-opened":
            self._metrics.set_ceremony_phase(key_id, "announce")
        elif note.name == "ceremony-phase":
            self._metrics.set_ceremony_phase(key_id, str(note.fields["phase"]))
        elif note.name == "ceremony-committed":
            self._metrics.set_ceremony_phase(key_id, "idle")
        elif note.name == "ceremony-ended":
            self._metrics.set_ceremony_phase(key_id, "idle")
            self._metrics.ceremony_failures.labels(key_id=key_id).inc()
        elif note.name == "roster-alarm":
            self._metrics.alarm.labels(alarm="roster_conflict").set(1)
