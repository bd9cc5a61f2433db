"""The one table of topics: name, records, key, partitions, retention, who writes and who reads.

Every name is made here and every topic is created from here; broker auto-create stays off, because a topic made by
a typing mistake would have the broker's defaults, and nobody reading it.

=====================  ==========  =========  =======  ==========================================================
topic                  partitions  kept       cleanup  writes -> reads
=====================  ==========  =========  =======  ==========================================================
signer.v1              12          10 min     delete   API pods -> signers, as one consumer group
signer.v1.resp<N>      1           5 min      delete   signers -> API pod N only
signer.v1.peer<M>      1           5 min      delete   signers -> seat M only
signer.v1.presence     1           5 min      delete   signers and API pods -> everybody
signer.v1.ceremony     1           for ever   delete   signers -> signers and auditors, all of it
signer.v1.keys         1           for ever   compact  signers -> everybody
signer.v1.audit        3           30 days    delete   signers -> auditors
signer.v1.dlq          1           7 days     delete   signers and API pods -> a person
=====================  ==========  =========  =======  ==========================================================

Who may do so on a locked broker, principal by principal, stands in ``common.wire.access``.

A ``prefix`` (``demo-ab12.``) before every name lets several systems share a cluster; the default is none.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from common.errors import BadInput
from common.wire import messages

MAX_RECORD_BYTES = messages.MAX_RECORD_BYTES
"""``max.message.bytes`` of every topic: one record with key, headers and the batch around it."""

MAX_SENT_BYTES = MAX_RECORD_BYTES - 1024
"""Key, value and headers of a record: the broker counts the framing of record and batch as well."""

REQUEST_PARTITIONS = 12
"""Of ``signer.v1``; min(this, replicas) replicas can coordinate at the same time."""

BROKER_DEFAULT_REPLICATION = -1
"""Leave it to the broker's ``default.replication.factor``: for a process that only makes its own topic."""

MAX_POD_INDEX = 9999
"""Largest N of a response topic: the reply-topic pattern has one to four digits."""

FOR_EVER = -1

_MINUTE_MS = 60_000
_DAY_MS = 24 * 60 * _MINUTE_MS
_PREFIX = re.compile(r"[A-Za-z0-9._-]{0,100}")

# Only closed segments expire: with the broker's default of a week per segment, "five minutes" would be a week.
_SHORT_SEGMENTS = {"segment.ms": "60000", "segment.bytes": str(64 * 1024 * 1024)}


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic, as it is created."""

    name: str
    records: tuple[str, ...]
    """Names of the record types that belong there; anything else is poison."""
    key: str | None
    """Which field is the Kafka key; ``None``: records there have no key."""
    partitions: int
    retention_ms: int
    cleanup: str
    writers: str
    readers: str
    replication: int = BROKER_DEFAULT_REPLICATION
    extra: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Topic configuration beyond what every topic has."""

    @property
    def config(self) -> dict[str, str]:
        """The whole topic configuration, in Kafka's names and units."""
        return {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(MAX_RECORD_BYTES),
            # The broker's clock: a writer cannot date its records, and a replica can measure its own skew.
            "message.timestamp.type": "LogAppendTime",
            # A replica that is behind must not become leader: a log that loses its end is another history.
            "unclean.leader.election.enable": "false",
            **self.extra,
        }


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` if it can stand before a topic name.

    Raises:
        BadInput: code ``topic-prefix``: other than at most 100 of ``A-Z a-z 0-9 . _ -``.
    """
    if _PREFIX.fullmatch(prefix) is None:
        raise BadInput(
            "topic-prefix", "a topic prefix is at most 100 of A-Z, a-z, 0-9, '.', '_' and '-'", "topic_prefix"
        )
    return prefix


def requests(prefix: str, replication: int = BROKER_DEFAULT_REPLICATION) -> TopicSpec:
    """Messages to sign; the group of signers shares its partitions."""
    return TopicSpec(
        name=f"{check_prefix(prefix)}signer.v1",
        records=("MsgToSign",),
        key="record_id",
        partitions=REQUEST_PARTITIONS,
        retention_ms=10 * _MINUTE_MS,
        cleanup="delete",
        writers="API pods",
        readers="signers, as one consumer group",
        replication=replication,
        extra=MappingProxyType(_SHORT_SEGMENTS),
    )


def responses(prefix: str, n: int, replication: int = BROKER_DEFAULT_REPLICATION) -> TopicSpec:
    """Answers for API pod ``n`` (from 0).

    Raises:
        BadInput: code ``pod-index``: not 0 to 9999.
    """
    if not 0 <= n <= MAX_POD_INDEX:
        raise BadInput("pod-index", f"an API pod's index is 0 to {MAX_POD_INDEX}", "index")
    return TopicSpec(
        name=f"{check_prefix(prefix)}signer.v1.resp{n}",
        records=("MsgSigned",),
        key=None,
        partitions=1,
        retention_ms=5 * _MINUTE_MS,
        cleanup="delete",
        writers="signers",
        readers=f"API pod {n}",
        replication=replication,
        extra=MappingProxyType(_SHORT_SEGMENTS),
    )


def peer(prefix: str, m: int, replication: int = BROKER_DEFAULT_REPLICATION) -> TopicSpec:
    """What other replicas send to seat ``m`` (from 1).

    Raises:
        BadInput: code ``index``: not a seat.
    """
    if not 1 <= m <= 65535:
        raise BadInput("index", "a seat index is 1 to 65535", "index")
    return TopicSpec(
        name=f"{check_prefix(prefix)}signer.v1.peer{m}",
        records=("NonceRequest", "NonceBatch", "SignPackage", "SignatureShares"),
        key=None,
        partitions=1,
        retention_ms=5 * _MINUTE_MS,
        cleanup="delete",
        writers="signers",
        readers=f"seat {m}",
        replication=replication,
        extra=MappingProxyType(_SHORT_SEGMENTS),
    )


def presence(prefix: str, replication: int = BROKER_DEFAULT_REPLICATION) -> TopicSpec:
    """Who is up, with what and how busy."""
    return TopicSpec(
        name=f"{check_prefix(prefix)}signer.v1.presence",
        records=("Presence",),
        key=None,
        partitions=1,
        retention_ms=5 * _MINUTE_MS,
        cleanup="delete",
        writers="signers and API pods",
        readers="everybody",
        replication=replication,
        extra=MappingProxyType(_SHORT_SEGMENTS),
    )


def ceremony(prefix: str, replication: int = BROKER_DEFAULT_REPLICATION) -> TopicSpec:
    """The log that decides key generation and resharing: one partition, so one order for all, kept for ever."""
    return TopicSpec(
        name=f"{check_prefix(prefix)}signer.v1.ceremony",
        records=(
            "Roster",
            "Open",
            "Announce",
            "Deal",
            "Verdict",
            "Ready",
            "PhaseVote",
            "KeyRecord",
            "Erased",
            "HealRequest",
        ),
        key=None,
        partitions=1,
        retention_ms=FOR_EVER,
        cleanup="delete",
        writers="signers",
        readers="signers and auditors",
        replication=replication,
        # Two copies before it counts, where there are three: a ceremony step that was acknowledged and then lost
        # would leave replicas with different histories.
        extra=MappingProxyType({"retention.bytes": "-1"} | ({"min.insync.replicas": "2"} if replication >= 3 else {})),
    )


def keys(prefix: str, replication: int = BROKER_DEFAULT_REPLICATION) -> TopicSpec:
    """The public key records, the newest per key."""
    return TopicSpec(
        name=f"{check_prefix(prefix)}signer.v1.keys",
        records=("KeyRecord",),
        key="key_id",
        partitions=1,
        retention_ms=FOR_EVER,
        cleanup="compact",
        writers="signers",
        readers="everybody",
        replication=replication,
        # A replica reads it whole at each start: the records of past epochs shall be gone within hours, not weeks.
        extra=MappingProxyType({"segment.ms": "3600000", "max.compaction.lag.ms": "21600000"}),
    )


def audit(prefix: str, replication: int = BROKER_DEFAULT_REPLICATION) -> TopicSpec:
    """What was signed, refused, decided and blamed."""
    return TopicSpec(
        name=f"{check_prefix(prefix)}signer.v1.audit",
        records=("AuditEvent",),
        key=None,
        partitions=3,
        retention_ms=30 * _DAY_MS,
        cleanup="delete",
        writers="signers",
        readers="auditors",
        replication=replication,
    )


def dead_letters(prefix: str, replication: int = BROKER_DEFAULT_REPLICATION) -> TopicSpec:
    """What could not be understood, with the reason and where it stood."""
    return TopicSpec(
        name=f"{check_prefix(prefix)}signer.v1.dlq",
        records=("DeadLetter",),
        key=None,
        partitions=1,
        retention_ms=7 * _DAY_MS,
        cleanup="delete",
        writers="signers and API pods",
        readers="a person",
        replication=replication,
    )


def all_topics(
    prefix: str, apis: int, signers: int, replication: int = BROKER_DEFAULT_REPLICATION
) -> tuple[TopicSpec, ...]:
    """Every topic of a system with API pods 0..apis-1 and seats 1..signers.

    Raises:
        BadInput: codes ``topic-prefix``, ``pod-index``, ``index``.
    """
    return (
        requests(prefix, replication),
        *(responses(prefix, n, replication) for n in range(apis)),
        *(peer(prefix, m, replication) for m in range(1, signers + 1)),
        presence(prefix, replication),
        ceremony(prefix, replication),
        keys(prefix, replication),
        audit(prefix, replication),
        dead_letters(prefix, replication),
    )


def signer_group(prefix: str) -> str:
    """Name of the consumer group that shares out ``signer.v1``."""
    return f"{check_prefix(prefix)}signer"


def tail_group(prefix: str) -> str:
    """Group id of those who read whole topics. Nobody joins it: librdkafka makes no Consumer without one."""
    return f"{signer_group(prefix)}-tail"


def is_reply_topic(prefix: str, name: str) -> bool:
    """Whether an answer may be sent to ``name``.

    The name comes from a record that anybody with Kafka credentials could have written: without this check it would
    make a signer write to the ceremony log, say, or to another system's topics.
    """
    # fullmatch and [0-9]: "$" would accept a final newline, and "\d" the digits of other scripts.
    return re.fullmatch(re.escape(prefix) + r"signer\.v1\.resp[0-9]{1,4}", name) is not None
