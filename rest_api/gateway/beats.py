"""API pods on the presence topic: our own beat, and who else claims our N.

Two pods with one N would both read ``signer.v1.resp<N>`` and each take the other's answers for foreign ones, and
nothing would fail loudly. So each says who it is, and the younger steps back until the other is silent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from common.clock_skew import SkewMeter
from common.ids import BootId, Instant, PodIndex
from common.observability.logging import Logger
from common.wire import codec
from common.wire.messages import Presence, ReplicaState

CLAIM_LASTS_S: Final = 6.0
FORGET_AFTER_S: Final = 60.0
MOST_INSTANCES: Final = 1_000
SKEW_WARN_MS: Final = 250


@dataclass(slots=True)
class PodView:
    """What is known of one start of one pod."""

    index: PodIndex
    started_ms: Instant
    seq: int
    heard_at: float
    skew_ms: int


class Pods:
    """The API pods as we hear them.

    Args:
        index: Our N.
        instance_id: This start of us.
        started_ms: When it began.
        clock: Monotonic seconds.
    """

    def __init__(self, index: PodIndex, instance_id: BootId, started_ms: Instant, clock: Callable[[], float]) -> None:
        self.index = index
        self.instance_id = instance_id
        self._started_ms = started_ms
        self._clock = clock
        self._seq = 0
        self.skew = SkewMeter()
        self.pods: dict[BootId, PodView] = {}

    def silence_s(self) -> dict[PodIndex, float]:
        """How long ago each pod's last word was; of several starts, the one that was heard last."""
        ages: dict[PodIndex, float] = {}
        for pod in self.pods.values():
            age = self._clock() - pod.heard_at
            ages[pod.index] = min(age, ages.get(pod.index, age))
        return ages

    def beat(self, state: ReplicaState, draining: bool, in_flight: int, now_ms: Instant) -> Presence:
        """Our next beat. It has neither partitions nor keys: those are the signers'."""
        self._seq += 1
        return Presence(
            started_ms=self._started_ms,
            seq=self._seq,
            sent_ms=now_ms,
            state=state,
            draining=draining,
            schema_level=codec.SCHEMA_LEVEL,
            partitions=(),
            in_flight=in_flight,
            queue_wait_ms=0,
            nonces_left=0,
            keys=(),
            clock_skew_ms=self.skew.skew_ms,
        )

    def heard(self, index: PodIndex, instance_id: BootId, beat: Presence) -> bool:
        """Take a beat that came in an envelope of the edge key. Returns whether it was new."""
        known = self.pods.get(instance_id)
        if known is not None and beat.seq <= known.seq:
            return False
        if known is None and len(self.pods) >= MOST_INSTANCES:
            return False
        self.pods[instance_id] = PodView(index, beat.started_ms, beat.seq, self._clock(), beat.clock_skew_ms)
        return True

    def forget(self) -> None:
        """Drop instances that are silent for a minute."""
        now = self._clock()
        for instance_id in [i for i, pod in self.pods.items() if now - pod.heard_at > FORGET_AFTER_S]:
            del self.pods[instance_id]

    def forgive(self, seconds: float) -> None:
        """We ourselves stood still for so long."""
        for pod in self.pods.values():
            pod.heard_at += seconds

    def rivals(self) -> dict[BootId, PodView]:
        """Other live instances with our N."""
        now = self._clock()
        return {
            instance_id: pod
            for instance_id, pod in self.pods.items()
            if pod.index == self.index and instance_id != self.instance_id and now - pod.heard_at < CLAIM_LASTS_S
        }

    def is_rival(self, instance_id: BootId) -> bool:
        """That live instance, which is not us, claims our N."""
        return instance_id in self.rivals()

    def must_yield(self) -> bool:
        """A rival was here first (of two that began in the same millisecond, the lower instance id was)."""
        ours = (self._started_ms, self.instance_id)
        return any((pod.started_ms, instance_id) < ours for instance_id, pod in self.rivals().items())

    def listed(self) -> list[dict[str, str | int]]:
        """The pods as ``/v1/cluster`` shows them, by index."""
        now = self._clock()
        found = sorted(self.pods.items(), key=lambda each: (each[1].index, each[1].started_ms))
        return [
            {
                "index": pod.index,
                "instance_id": instance_id,
                "last_seen_ms": max(0, int((now - pod.heard_at) * 1000)),
                "skew_ms": pod.skew_ms,
            }
            for instance_id, pod in found
        ]


class RivalWatch:
    """Says when another live pod takes our N, and when it is ours again."""

    def __init__(self, pods: Pods, log: Logger) -> None:
        self._pods = pods
        self._log = log
        self._rivals: frozenset[BootId] = frozenset()

    def look(self) -> None:
        """Now and then."""
        rivals = frozenset(self._pods.rivals())
        if rivals - self._rivals:
            self._log.warning(
                "another live pod has this pod's index: answers would go to either",
                index=self._pods.index,
                instance_id=self._pods.instance_id,
                others=sorted(rivals),
                ready=not self._pods.must_yield(),
            )
        elif self._rivals and not rivals:
            self._log.info("this pod's index is its own again", index=self._pods.index)
        self._rivals = rivals


class ClockWatch:
    """Says when our clock differs from the broker's: our deadlines are absolute, so they come too early or too late."""

    def __init__(self, pods: Pods, log: Logger) -> None:
        self._pods = pods
        self._log = log
        self._bad = False

    def look(self) -> None:
        """Now and then."""
        skew_ms = self._pods.skew.skew_ms
        if (bad := abs(skew_ms) >= SKEW_WARN_MS) != self._bad:
            self._bad = bad
            say = self._log.warning if bad else self._log.info
            say("clock differs from the broker's" if bad else "clock is right again", skew_ms=skew_ms)
