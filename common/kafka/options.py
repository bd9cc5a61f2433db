"""librdkafka's settings, in one place: what each kind of client is given, and why.

Pure functions from our settings to option dictionaries; no client library here.
"""

from enum import Enum

from common.kafka.port import OnLost
from common.kafka.settings import KafkaSettings
from common.wire.topics import MAX_RECORD_BYTES, signer_group, tail_group

Option = str | int | float | bool
Options = dict[str, Option]

COMMIT_INTERVAL_MS = 250
STATISTICS_INTERVAL_MS = 2_000
"""A client that reads what nobody writes learns from them alone that its broker is back."""
MESSAGE_TIMEOUT_MS = 5_000
METADATA_INTERVAL_MS = 4_000
"""A question of some hundred bytes, each time."""


class Role(Enum):
    """What a client is for; ends its ``client.id``."""

    PRODUCER = "producer"
    TAIL = "tail"
    GROUP = "group"
    ADMIN = "admin"


def common(settings: KafkaSettings, role: Role) -> Options:
    """What every client has."""
    return {
        "bootstrap.servers": settings.bootstrap,
        "client.id": f"{settings.client_id}-{role.value}",
        # Back within a second of the broker's return, whatever the outage was.
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "socket.timeout.ms": 10_000,
        # A node that has just woken up says at first that nobody is in the cluster, itself neither. Whoever believed it
        # asks again only after these, which are five minutes each if nothing is said.
        "topic.metadata.refresh.interval.ms": METADATA_INTERVAL_MS,
        "metadata.recovery.rebootstrap.trigger.ms": METADATA_INTERVAL_MS,
        # A topic comes from the table or not at all. (The producer's default is true.)
        "allow.auto.create.topics": False,
        **settings.security,
    }


def producer(settings: KafkaSettings) -> Options:
    """Idempotent, so that a retry inside the client writes nothing twice and keeps the order."""
    return common(settings, Role.PRODUCER) | {
        "statistics.interval.ms": STATISTICS_INTERVAL_MS,
        "queue.buffering.max.kbytes": 32_768,
        "enable.idempotence": True,
        # Whoever sends has gathered what goes together: waiting once more at each hop would only be waiting.
        "linger.ms": 0,
        # The default is five minutes: long after everybody who asked has gone.
        "message.timeout.ms": MESSAGE_TIMEOUT_MS,
        "compression.type": "none",
        "message.max.bytes": MAX_RECORD_BYTES,
    }


def tail(settings: KafkaSettings, on_lost: OnLost) -> Options:
    """A reader by explicit assignment. The group id is only there because a Consumer cannot be made without one."""
    return _consumer(settings, Role.TAIL) | {
        "group.id": tail_group(settings.topic_prefix),
        "enable.auto.commit": False,
        "auto.offset.reset": on_lost.value,
        # Apache answers at the first byte, so that this only says how often an idle reader asks again.
        "fetch.wait.max.ms": 10 if settings.embedded else 500,
    }


def group(settings: KafkaSettings, member: str | None) -> Options:
    """A member of the signers' group.

    The classic protocol: with the new one (KIP-848) and the broker's defaults, a dead member's partitions stay dark
    for 42 to 47 s. The embedded broker lets a newcomer wait session.timeout.ms - 1000 and has no static members.
    """
    options = _consumer(settings, Role.GROUP) | {
        "group.id": signer_group(settings.topic_prefix),
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": 2_000 if settings.embedded else 10_000,
        "heartbeat.interval.ms": 500,
        "max.poll.interval.ms": 60_000,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": True,
        "auto.commit.interval.ms": COMMIT_INTERVAL_MS,
        "queued.min.messages": 1_000,
    }
    if settings.embedded:
        options["fetch.wait.max.ms"] = 10
    elif member is not None:
        options["group.instance.id"] = member
    return options


def admin(settings: KafkaSettings) -> Options:
    """For topics. It prints no lines of its own: whoever called is told by an exception, once, not per attempt."""
    return common(settings, Role.ADMIN) | {"log_level": 0}


def _consumer(settings: KafkaSettings, role: Role) -> Options:
    return common(settings, role) | {
        "statistics.interval.ms": STATISTICS_INTERVAL_MS,
        "queued.max.messages.kbytes": 16_384,
        # Only what the application calls finished is ever stored, and so committed.
        "enable.auto.offset.store": False,
        "isolation.level": "read_uncommitted",
        "fetch.min.bytes": 1,
        "fetch.error.backoff.ms": 10,
        "fetch.queue.backoff.ms": 10,
    }
