"""What a replica says of itself: to probes, in its beats, and in metrics."""

from collections.abc import Container

from common.clock_skew import SkewMeter
from common.ids import Index
from common.kafka.port import GroupConsumer, Kafka
from common.observability.admin import Health
from common.observability.logging import get_logger
from common.observability.metrics import Metrics
from common.wire.messages import KeyPresence, ReplicaState
from signer_service.protocol.ceremony_view import status
from signer_service.protocol.view import SigningView
from signer_service.settings import Settings
from signer_service.shell import health
from signer_service.shell.ceremonies import Ceremonies
from signer_service.shell.health import Facts
from signer_service.shell.peers import PresenceInbox
from signer_service.shell.requests import Requests
from signer_service.shell.signing import Signing

_log = get_logger(__name__)


class Standing:
    """Asks the parts; holds nothing but how far the start and the end have come."""

    def __init__(
        self,
        kafka: Kafka,
        settings: Settings,
        metrics: Metrics,
        ceremonies: Ceremonies,
        signing: Signing,
        requests: Requests,
        presence: PresenceInbox,
        skew: SkewMeter,
    ) -> None:
        self._kafka = kafka
        self._settings = settings
        self._metrics = metrics
        self._ceremonies = ceremonies
        self._signing = signing
        self._requests = requests
        self._presence = presence
        self._skew = skew
        self._skew_warned = False
        self._view = SigningView(settings.seat)
        self.positioned = False
        """Every reader stands where nothing can be missed."""
        self.group: GroupConsumer | None = None
        """What reads the requests, once we are a member."""
        self.draining = False
        """We were told to end."""

    def readiness(self) -> Health:
        """For /readyz."""
        facts = Facts(
            broker_up=self._kafka.up(),
            positioned=self.positioned,
            caught_up=self._ceremonies.caught_up.is_set(),
            kept_out=self.group is not None and self.group.kept_out(),
            beats_heard=self._presence.own_beats,
            skew_ms=self._skew.skew_ms,
            draining=self.draining,
            keys={key.key_id: _why_not(key) for key in self.keys()},
        )
        return health.readiness(facts, self._settings.skew_unready_ms)

    def state(self) -> ReplicaState:
        """For a beat."""
        keys = self.keys()
        if not self._ceremonies.caught_up.is_set():
            return ReplicaState.STARTING
        if not any(key.epoch for key in keys):
            return ReplicaState.WAITING_FOR_KEY
        return ReplicaState.READY if self.readiness().ok else ReplicaState.DEGRADED

    def load(self) -> tuple[tuple[int, ...], int, int, int]:
        """For a beat: partitions, items in flight, queue wait in ms, other seats' nonces left."""
        partitions = () if self.draining else self._requests.partitions
        return partitions, self._requests.in_flight, self._requests.queue_wait_ms, self._signing.coordinator.nonces_left

    def keys(self) -> tuple[KeyPresence, ...]:
        """For a beat."""
        return status(self._ceremonies.state)

    def show_view(self, view: SigningView, live: Container[Index]) -> bool:
        """There is another view. True if there are other keys or epochs to sign with."""
        changed = view.current != self._view.current
        self._view = view
        for key_id, keys in view.current.items():
            self._metrics.key_epoch.labels(key_id=key_id).set(keys.epoch)
        self.show_margin(live)
        return changed

    def show_margin(self, live: Container[Index]) -> None:
        """Other seats are live."""
        least = 0
        for key_id, keys in self._view.current.items():
            margin = sum(seat in live for seat in keys.holders) - keys.threshold
            self._metrics.quorum_margin.labels(key_id=key_id).set(margin)
            least = min(least, margin)
        self._metrics.alarm.labels(alarm="waiting_for_quorum").set(least < 0)

    def look(self) -> None:
        """Several times a second: what changes without anybody telling."""
        self._metrics.clock_skew.set(self._skew.skew_ms / 1000)
        for seat, left in self._signing.coordinator.stocks.left_by_seat().items():
            self._metrics.nonce_commitments.labels(seat=seat).set(left)
        bad = abs(self._skew.skew_ms) >= self._settings.skew_warn_ms
        if bad != self._skew_warned:
            self._skew_warned = bad
            say = _log.warning if bad else _log.info
            say("clock differs from the broker's" if bad else "clock is right again", skew_ms=self._skew.skew_ms)


def _why_not(key: KeyPresence) -> str:
    if key.holds_share:
        return ""
    if key.epoch == 0:
        where = f", now in phase {key.phase}, waiting for seats {list(key.awaited)}" if key.phase else ""
        return f"not generated yet{where}"
    return f"this seat holds no share of epoch {key.epoch}; it has asked to be healed"
