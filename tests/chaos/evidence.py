"""What the topics hold, decoded to what the checker asks. Nothing here is believed: that is the checker's part."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

from common.errors import BadInput
from common.wire import codec, topics
from common.wire.messages import (
    Accepted,
    AuditEvent,
    AuditKind,
    DeadLetter,
    Envelope,
    KeyRecord,
    Mode,
    MsgSigned,
    MsgToSign,
    Presence,
    Refused,
    Role,
    Signed,
)
from tests.chaos import commits
from tests.chaos.commits import Commit

Place = tuple[str, int, int]
"""Topic, partition, offset."""


@dataclass(frozen=True, slots=True)
class Raw:
    """One record as it was read. ``at_ms`` is the broker's time."""

    topic: str
    partition: int
    offset: int
    at_ms: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a request record, and where it stands."""

    record_id: str
    request_id: str
    message: bytes
    created_ms: int
    deadline_ms: int
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Given:
    """One outcome on a response topic."""

    record_id: str
    request_id: str
    result: Signed | Refused | Accepted
    at_ms: int


@dataclass(frozen=True, slots=True)
class Audited:
    """One entry of the audit that tells of a signature."""

    request_id: str
    message_sha256: bytes
    epoch: int
    signers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Holder:
    """What a seat said last of its share of a key; ``phase`` is empty when no ceremony runs."""

    epoch: int
    holds_share: bool
    phase: str


@dataclass(slots=True)
class Evidence:
    """All of it. ``ends`` are the offsets at which each partition ended when the run was over; ``group`` is read there
    too, where the broker keeps its commits in a topic."""

    prefix: str = ""
    items: list[Item] = field(default_factory=list)
    given: list[Given] = field(default_factory=list)
    audited: list[Audited] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    holders: dict[int, Holder] = field(default_factory=dict)
    key_records: list[KeyRecord] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    unreadable: list[Place] = field(default_factory=list)
    read: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[tuple[str, int], int] = field(default_factory=dict)

    def take(self, raw: Raw) -> None:
        """Add one record."""
        if raw.topic == commits.TOPIC:
            requests = topics.requests(self.prefix).name
            found = commits.parse(raw.key, raw.value, topics.signer_group(self.prefix), requests)
            if found is not None:
                self.commits.append(found)
            return
        self.read[raw.topic, raw.partition].append(raw.offset)
        try:
            self._sort(raw, raw.topic.removeprefix(self.prefix))
        except BadInput:
            self.unreadable.append((raw.topic, raw.partition, raw.offset))

    def take_all(self, records: Iterable[Raw]) -> None:
        """Add many."""
        for raw in records:
            self.take(raw)

    def _sort(self, raw: Raw, name: str) -> None:
        if name == "signer.v1":
            self._take_request(raw)
        elif name.startswith("signer.v1.resp"):
            answer = codec.decode(codec.decode(raw.value, Envelope).payload, MsgSigned)
            for outcome in answer.outcomes:
                self.given.append(Given(answer.record_id, outcome.request_id, outcome.result, raw.at_ms))
        elif name == "signer.v1.audit":
            self._take_audit(raw)
        elif name == "signer.v1.presence":
            opened = codec.decode(raw.value, Envelope)
            beat = codec.decode(opened.payload, Presence)
            if opened.role is Role.SIGNER and beat.keys:
                first = beat.keys[0]
                self.holders[opened.index] = Holder(first.epoch, first.holds_share, first.phase)
        elif name == "signer.v1.keys":
            self.key_records.append(codec.decode(raw.value, KeyRecord))
        elif name == "signer.v1.dlq":
            self.letters.append(codec.decode(raw.value, DeadLetter))

    def _take_request(self, raw: Raw) -> None:
        request = codec.decode(raw.value, MsgToSign)
        for item in request.items:
            if item.mode is Mode.SIGN:
                place = (raw.partition, raw.offset)
                times = (item.created_ms, item.deadline_ms)
                self.items.append(Item(request.record_id, item.request_id, item.message, *times, *place))

    def _take_audit(self, raw: Raw) -> None:
        event = codec.decode(codec.decode(raw.value, Envelope).payload, AuditEvent)
        for entry in event.entries:
            if entry.kind is AuditKind.SIGNED:
                self.audited.append(Audited(entry.request_id, entry.message_sha256, entry.epoch, entry.signers))


def digest(message: bytes) -> bytes:
    """As the audit names a message."""
    return sha256(message).digest()
