"""What the rest of the program knows about Kafka: values and protocols, no client library.

One rule holds for everything below: **callbacks are called on the event loop, never on another thread**, and
nothing but the methods marked ``async`` waits. A method without ``async`` is called on the event loop and
returns at once. A callback must not block; what it raises is a bug and ends in ``Hooks.on_fatal``.

Records come from a cluster that we do not trust: ``value``, ``key`` and headers are bytes as received, checked
by nobody. A null value (a tombstone, or rubbish) is shown as ``b""``, which decodes to nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from common.kafka.settings import KafkaSettings
from common.wire.access import Acl
from common.wire.topics import TopicSpec

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it was read."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None
    """Unix milliseconds by the broker's clock (LogAppendTime); ``None`` for any other type: a writer's own word
    about the time is worth nothing here. The embedded broker never sets it."""
    key: bytes | None
    value: bytes
    headers: Headers = ()

    def header(self, name: str) -> bytes | None:
        """The last header of that name (Kafka allows repeats), or ``None``."""
        for key, value in reversed(self.headers):
            if key == name:
                return value
        return None


@dataclass(frozen=True, slots=True)
class Delivery:
    """The final report on one sent record. ``error`` is ``None`` when the broker has it (``offset`` is then set).

    A timeout (``message.timeout.ms``, 5 s) is an error here, and means "outcome unknown", never "not written".
    ``unwritten``: it certainly is not, and will not be: the broker refused it before it wrote anything.
    """

    topic: str
    partition: int
    offset: int
    error: str | None
    unwritten: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """Start at the high watermark as it stands now: everything written after ``start()`` returned is delivered."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start at the low watermark: everything that is still kept."""


@dataclass(frozen=True, slots=True)
class At:
    """Start at this offset (a journal's next). Only for topics of one partition."""

    offset: int


Position = End | Start | At


class OnLost(Enum):
    """What to do when the position is gone, as after a topic was lost and made again."""

    EARLIEST = "earliest"
    """Go on from the low watermark, silently: right where unknown records are dropped anyway."""
    ERROR = "error"
    """Read no more of that topic and say so: right where silence would mean another history."""


@dataclass(frozen=True, slots=True)
class Watermarks:
    """``low``: the first offset kept. ``high``: the offset that the next record will get."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A topic that exists otherwise than the table says. Nothing is changed: that is the operator's to decide."""

    topic: str
    what: str
    wanted: str
    found: str


@dataclass(frozen=True, slots=True)
class Ensured:
    """What ``Admin.ensure`` did: names it created, and differences of those that were there."""

    created: tuple[str, ...]
    differences: tuple[Difference, ...]


Deliver = Callable[[Sequence[Record]], None]
OnDelivery = Callable[[Delivery], None]


def _ignore_state(up: bool) -> None:
    pass


def _ignore_statistics(client: str, json_text: str) -> None:
    pass


def _raise_fatal(detail: str) -> None:
    # Nobody listens: the loop's exception handler shows it, rather than a client that is dead and says nothing.
    raise RuntimeError(detail)


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a process wants to hear about its connection. All are called on the event loop."""

    on_state: Callable[[bool], None] = _ignore_state
    """``True``: the broker answers. ``False``: every broker is unreachable. Only changes are told; before the first
    evidence nothing is. librdkafka has no "up" event, so it is inferred from deliveries, records and statistics."""
    on_fatal: Callable[[str], None] = _raise_fatal
    """The client cannot go on (fenced member, fatal producer error, a bug in a callback): log the line, and end."""
    on_statistics: Callable[[str, str], None] = _ignore_statistics
    """(client name, librdkafka's statistics JSON), every 2 s (``options``)."""


class Producer(Protocol):
    """Writes records. Idempotent; order is kept within a partition."""

    def start(self) -> None:
        """Start the client and its poll thread. Needs no broker. Must be called on the running event loop, once."""

    def send(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        on_delivery: OnDelivery | None = None,
    ) -> None:
        """Hand a record to the client; never waits.

        When it raises, ``on_delivery`` is not called; otherwise it is called exactly once, with the final outcome
        (also when the producer is closed with the record still under way).

        Raises:
            Unavailable: ``producer-full`` (backpressure: too much is waiting for the broker), ``topic-missing``
                (unknown topic or partition, as far as the client knows now), ``producer-closed``,
                ``producer-fatal`` (also told to ``on_fatal``).
            BadInput: ``record-too-large``: it would never be accepted (limit 1 MiB with headers).
        """

    def outstanding(self) -> int:
        """Records sent whose outcome is not known yet."""

    async def flush(self, timeout_s: float) -> int:
        """Wait until every outcome is known (their callbacks have run) or the time is over.

        Returns:
            How many are still outstanding.
        """

    async def close(self) -> None:
        """Stop. What is still outstanding gets its ``on_delivery`` with an error. Bounded (5 s); may be repeated."""


class TailConsumer(Protocol):
    """Reads whole topics by explicit assignment, without a group: answers, peer records, presence, ceremony, keys."""

    async def start(self) -> None:
        """Find the positions and assign them; return when every later record is certain to be delivered.

        Raises:
            Unavailable: ``topic-missing`` or ``broker-unreachable``, after a bound (30 s).
            BadInput: ``position``: ``At`` for a topic with more than one partition.
        """

    def begin_at_start(self, topic: str, partition: int = 0) -> int:
        """The offset that reading began at. Known once ``start()`` has returned."""

    def end_at_start(self, topic: str, partition: int = 0) -> int:
        """The high watermark that ``start()`` saw: a replayer is there when its next offset is not below it.

        Nothing has to be replayed when ``begin_at_start >= end_at_start``.
        """

    async def watermarks(self, topic: str, partition: int = 0) -> Watermarks:
        """Ask the broker now, and again for 30 s (a missing topic: 10 s) while it gives no answer. Reading pauses while
        it is asked, a second each time.

        Raises:
            Unavailable: ``broker-unreachable`` or ``topic-missing``.
        """

    def renew(self) -> None:
        """Go on with a new client, behind the last record that was delivered: none is lost, none comes twice."""

    async def close(self) -> None:
        """Stop on the owner thread; nothing is delivered after it returns. Bounded; may be repeated."""


class GroupListener(Protocol):
    """What a member of the group is told, in this order per partition: assigned, records, revoked or lost."""

    def deliver(self, records: Sequence[Record]) -> None:
        """Records of partitions that are ours, in order within each partition."""

    def on_assigned(self, partitions: frozenset[int]) -> None:
        """These are ours from now on (an increment; those held before stay)."""

    async def on_revoked(self, partitions: frozenset[int]) -> None:
        """These go to another member: begin no new work of them, finish what is in flight, ``store``, return.

        The owner thread waits for it, at most the revoke grace; then it commits what was stored, and lets go. What
        takes longer is cancelled, and ``on_lost`` is called for the same partitions.
        """

    def on_lost(self, partitions: frozenset[int]) -> None:
        """These already belong to somebody else: nothing of them is committed any more."""


class GroupConsumer(Protocol):
    """A member of the consumer group that shares out the request partitions."""

    async def start(self) -> None:
        """Subscribe. Returns before anything is assigned: that comes by ``on_assigned``."""

    def store(self, partition: int, next_offset: int) -> None:
        """Everything below ``next_offset`` is finished. Committed within 350 ms, and at revoke and close.

        Ignored for a partition that is no longer ours. Never goes backwards while the partition is held.
        """

    def pause(self, partitions: Iterable[int] | None = None) -> None:
        """Fetch no more of these; ``None``: of all, those assigned later too. Records under way may still come.

        Holds over a reassignment, until ``resume``. The member goes on polling, so that it is not thrown out.
        """

    def resume(self, partitions: Iterable[int] | None = None) -> None:
        """Undo ``pause`` for these, also for those that are away now; ``None``: for all, whatever was paused before."""

    def assigned(self) -> frozenset[int]:
        """The partitions that are ours, as last told to the listener."""

    def kept_out(self) -> bool:
        """Whether the broker, when it spoke last, did not allow us to be a member or to read the topic."""

    async def close(self) -> None:
        """Revoke (with its grace), commit, leave the group, on the owner thread. Bounded; may be repeated."""


class Admin(Protocol):
    """Looks at topics and makes them."""

    async def topics(self) -> Mapping[str, int]:
        """Names with their number of partitions, our prefix only.

        Raises:
            Unavailable: ``broker-unreachable``.
        """

    async def describe(self, specs: Sequence[TopicSpec]) -> tuple[Difference, ...]:
        """How what exists differs from the table (a missing topic differs in ``existence``). Changes nothing.

        Raises:
            Unavailable: ``broker-unreachable``, or ``not-authorized``.
        """

    async def ensure(self, specs: Sequence[TopicSpec]) -> Ensured:
        """Create the missing topics; return when each can be written and read.

        Raises:
            Unavailable: ``broker-unreachable``, ``not-authorized``, ``topic-create`` (the broker said no), or
                ``topic-missing`` on the embedded broker, where only the process that owns it can make topics.
        """

    async def delete(self, names: Sequence[str]) -> None:
        """Delete topics of our prefix; those that are not there are passed over.

        Raises:
            BadInput: ``topic-prefix``: we have no prefix, or a name is outside of it. Whoever shares a cluster under a
                prefix may clean up after himself; nobody deletes the topics of a production system by this.
            Unavailable: ``broker-unreachable``, or ``not-authorized``.
        """

    async def acls(self) -> frozenset[Acl]:
        """Every rule on topics and groups that the broker has, of whatever system.

        Raises:
            Unavailable: ``broker-unreachable``, ``not-authorized``, or ``no-authorizer``: it lets everybody do all.
        """

    async def allow(self, rules: Sequence[Acl]) -> None:
        """Add rules; return when the broker says that it has them.

        Raises:
            Unavailable: as ``acls``.
        """

    async def close(self) -> None:
        """Stop. Bounded; may be repeated."""


class Kafka(Protocol):
    """The factory a composition root hands around: everything it makes shares one state and one set of hooks.

    Called on the running event loop. Each thing made is started and closed by whoever asked for it.
    """

    @property
    def settings(self) -> KafkaSettings:
        """As it was given."""

    def producer(self) -> Producer:
        """A producer; a process needs one."""

    def tail(
        self,
        positions: Mapping[str, Position],
        deliver: Deliver,
        *,
        on_lost: OnLost = OnLost.EARLIEST,
        on_reset_error: Callable[[str, str], None] | None = None,
    ) -> TailConsumer:
        """A reader of whole topics.

        Args:
            positions: Topic name to where to begin, for each of its partitions.
            deliver: Gets the batches; a batch can mix topics, in order within each partition.
            on_lost: For all of these topics.
            on_reset_error: (topic, detail), with ``OnLost.ERROR``: that topic is read no more.
        """

    def group(
        self, topic: str, listener: GroupListener, *, member: str | None = None, grace_s: float = 1.0
    ) -> GroupConsumer:
        """A member of the consumer group ``<prefix>signer``.

        Args:
            topic: What the group reads.
            listener: Gets everything.
            member: Static membership: a name that is the same after a restart (the seat). Not used where embedded.
            grace_s: How long ``on_revoked`` may take.
        """

    def admin(self) -> Admin:
        """For making and checking topics."""

    def up(self) -> bool:
        """What ``on_state`` said last; ``False`` before any evidence."""

    def heartbeats(self) -> Mapping[str, float]:
        """Thread name to ``time.monotonic()`` of its last turn: liveness compares with now."""
