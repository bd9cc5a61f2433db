"""Looks several times a second for what a person should know of: sets the alarms, and says once what each is about."""

from collections.abc import Mapping

from common.ids import Index, Instant, KeyId
from common.observability.logging import get_logger
from common.observability.metrics import Metrics
from common.wire.messages import Presence
from signer_service.protocol.ceremony_alarms import differing, old_epochs_held, overdue, shares_ahead, unreachable
from signer_service.protocol.ceremony_state import CeremonyState

_log = get_logger(__name__)


class Watchdog:
    """Holds what was said, so that each condition is one line when it begins and one when it ends."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._said: dict[str, str] = {}

    def look(self, state: CeremonyState, beats: Mapping[Index, Presence], now: Instant) -> None:
        """Compare what stands now with what stood before. ``beats``: the last one of each other live seat."""
        # With the epochs: where too few hold the current one, a person looks here for an older one that t still hold.
        self._set("old_epoch_held", "; ".join(_shares(state, key_id) for key_id in old_epochs_held(state)))
        self._set("share_ahead", "; ".join(_shares(state, key_id) for key_id in shares_ahead(state)))
        self._set("refresh_overdue", ", ".join(overdue(state, now)))
        self._set("committee_out_of_reach", "; ".join(unreachable(state).values()))
        self._set("fold_differs", ", ".join(f"seat {seat}" for seat in differing(state.log, beats)))

    def _set(self, alarm: str, about: str) -> None:
        self._metrics.alarm.labels(alarm=alarm).set(bool(about))
        before = self._said.get(alarm, "")
        self._said[alarm] = about
        if about and about != before:
            _log.warning("alarm", alarm=alarm, about=about)
        elif before and not about:
            _log.info("alarm is over", alarm=alarm)


def _shares(state: CeremonyState, key_id: KeyId) -> str:
    epochs = ", ".join(map(str, sorted(each.epoch for each in state.of_key(key_id).held)))
    return f"{key_id}: shares of epochs {epochs}"
