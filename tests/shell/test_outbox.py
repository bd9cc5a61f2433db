"""What goes out: merged, audited before it is seen, and never to a topic that is no reply topic."""

import asyncio
import uuid

import pytest

from common import ed25519
from common.ids import BootId, EdgeKeyId, Epoch, Index, Instant, KeyId, Offset, OpenId, RecordId, RequestId
from common.kafka.port import Record
from common.observability.metrics import Metrics
from common.secret import Secret
from common.wire import codec
from common.wire.envelope import Signer, open_envelope
from common.wire.messages import (
    AuditEntry,
    AuditEvent,
    AuditKind,
    Declined,
    DeclineReason,
    Mode,
    MsgSigned,
    MsgToSign,
    NonceBatch,
    NonceGrant,
    NonceRequest,
    NonceScope,
    NonceWant,
    Outcome,
    RefusalCode,
    Refused,
    Role,
    Share,
    SignatureShares,
    Signed,
    SignGroup,
    SignItem,
    SignPackage,
    SignSession,
)
from common.wire.topics import MAX_SENT_BYTES
from signer_service.protocol.machine import (
    Answer,
    InternalSigned,
    Origin,
    RecordDone,
    RefreshAsked,
    ToAudit,
    ToLog,
    ToPeer,
)
from signer_service.shell import patient_sender
from signer_service.shell.names import names
from signer_service.shell.outbox import Outbox
from signer_service.shell.patient_sender import PatientSender
from signer_service.shell.records import RecordBook
from signer_service.shell.traces import Traces
from tests.brokers import until
from tests.shell.memory_producer import MemoryProducer

SEED = Secret(b"i" * 32)
BOOT = BootId(str(uuid.UUID(int=1)))
SCOPE = NonceScope(KeyId("default"), Offset(5))
PREFIX = "t."
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class World:
    def __init__(self) -> None:
        self.producer = MemoryProducer()
        self.stored: list[tuple[int, int]] = []
        self.poison: list[tuple[Record, str]] = []
        self.internal: list[InternalSigned | RefreshAsked] = []
        self.bugs: list[BaseException] = []
        self.metrics = Metrics()
        self.book = RecordBook(lambda partition, offset: self.stored.append((partition, offset)))
        self.traces = Traces()
        self.outbox = Outbox(
            asyncio.get_running_loop(),
            self.producer,
            Signer(Role.SIGNER, 1, BOOT, SEED),
            names(PREFIX),
            self.book,
            self.metrics,
            self.internal.append,
            lambda record, reason, _: self.poison.append((record, reason)),
            self.bugs.append,
            self.traces,
        )

    def opened(self, topic: str, *kinds: type) -> list[object]:
        public = ed25519.public_key(SEED)
        return [
            codec.decode(open_envelope(sent.value, topic, lambda *_: (public,)).payload, *kinds)
            for sent in self.producer.on(topic)
        ]

    def begin(self, request: MsgToSign, offset: int = 0) -> Origin:
        origin = Origin(0, offset)
        record = Record("t.signer.v1", 0, offset, None, None, b"raw", (("traceparent", TRACE.encode()),))
        self.book.begin(record)
        self.traces.arrived(record, request, 0)
        self.book.taken(origin, len(request.items))
        return origin

    def value(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(name) or 0.0


def request(items: int = 1, reply_to: str = "t.signer.v1.resp0") -> MsgToSign:
    each = tuple(
        SignItem(RequestId(str(uuid.uuid4())), KeyId("default"), Mode.SIGN, b"m", "anonymous", Instant(1), Instant(2))
        for _ in range(items)
    )
    return MsgToSign(RecordId(str(uuid.uuid4())), each, reply_to, BOOT, EdgeKeyId("0" * 16))


def signed(request_id: RequestId) -> Outcome:
    return Outcome(request_id, Signed(bytes(64), KeyId("default"), Epoch(1), (Index(1), Index(2))))


def entry(request_id: str, evidence: tuple[bytes, ...] = ()) -> AuditEntry:
    return AuditEntry(AuditKind.SIGNED, Instant(1), request_id, "", "default", Epoch(1), b"", (), "", "", evidence)


def group(session: int, request: bytes = b"r") -> SignGroup:
    two = (bytes(64), bytes(64))
    return SignGroup(
        SCOPE, Epoch(1), request, (Index(1), Index(2)), (BOOT, BOOT), (SignSession(session, 0, (0, 0), two),)
    )


@pytest.mark.anyio
async def test_what_many_steps_say_to_one_seat_travels_in_one_record_of_each_kind() -> None:
    world = World()
    for session in range(10):
        world.outbox.put((ToPeer(Index(2), SignPackage((group(session),))),))
        world.outbox.put((ToPeer(Index(2), SignatureShares((Share(session, bytes(32), bytes(32)),))),))
        world.outbox.put((ToPeer(Index(2), NonceRequest((NonceWant(SCOPE, 4),))),))
        grant = NonceGrant(SCOPE, Index(2), BOOT, session, (bytes(64),))
        world.outbox.put((ToPeer(Index(2), NonceBatch((grant,))),))
    assert world.producer.sent == []
    await asyncio.sleep(0)
    found = world.opened("t.signer.v1.peer2", SignPackage, SignatureShares, NonceRequest, NonceBatch)
    assert [type(each) for each in found] == [SignPackage, SignatureShares, NonceRequest, NonceBatch]
    package, shares, wants, grants = found
    assert isinstance(package, SignPackage)
    assert [g.sessions[0].session_id for g in package.groups] == list(range(10))
    assert isinstance(shares, SignatureShares)
    assert len(shares.answers) == 10
    assert isinstance(wants, NonceRequest)
    assert len(wants.wants) == 10
    assert isinstance(grants, NonceBatch)
    assert len(grants.grants) == 10


@pytest.mark.anyio
async def test_records_that_would_grow_too_large_are_split_and_none_is_lost() -> None:
    world = World()
    world.outbox.put(ToPeer(Index(2), SignPackage((group(i, bytes(100_000)),))) for i in range(20))
    answers = tuple(Declined(i, DeclineReason.EXPIRED) for i in range(3000))
    world.outbox.put(
        (ToPeer(Index(3), SignatureShares(answers[:1500])), ToPeer(Index(3), SignatureShares(answers[1500:])))
    )
    full = NonceGrant(SCOPE, Index(4), BOOT, 0, (bytes(64),) * 256)
    world.outbox.put(ToPeer(Index(4), NonceBatch((full,))) for _ in range(40))
    await asyncio.sleep(0)
    packages = world.opened("t.signer.v1.peer2", SignPackage)
    assert len(packages) > 1
    assert sum(len(each.groups) for each in packages if isinstance(each, SignPackage)) == 20
    shares = world.opened("t.signer.v1.peer3", SignatureShares)
    assert sum(len(each.answers) for each in shares if isinstance(each, SignatureShares)) == 3000
    batches = world.opened("t.signer.v1.peer4", NonceBatch)
    assert sum(len(each.grants) for each in batches if isinstance(each, NonceBatch)) == 40
    assert world.bugs == []


@pytest.mark.anyio
async def test_audit_goes_before_the_answer_and_the_offset_waits_for_both_reports() -> None:
    world = World()
    asked = request(2)
    origin = world.begin(asked)
    first, second = (item.request_id for item in asked.items)
    audit = AuditEvent(asked.record_id, (entry(first),))
    world.outbox.put((ToAudit(audit), Answer(origin, asked, (signed(first),))))
    rest = AuditEvent(asked.record_id, (entry(second),))
    world.outbox.put((ToAudit(rest), Answer(origin, asked, (signed(second),)), RecordDone(origin, asked.record_id)))
    await asyncio.sleep(0)
    assert [sent.topic for sent in world.producer.sent] == ["t.signer.v1.audit", "t.signer.v1.resp0"]
    (event,) = world.opened("t.signer.v1.audit", AuditEvent)
    assert isinstance(event, AuditEvent)
    assert [each.request_id for each in event.entries] == [first, second]
    (answer,) = world.opened("t.signer.v1.resp0", MsgSigned)
    assert isinstance(answer, MsgSigned)
    assert [each.request_id for each in answer.outcomes] == [first, second]
    assert answer.instance_id == BOOT
    assert world.producer.sent[1].partition == 0
    assert dict(world.producer.sent[1].headers) == {
        "record-id": asked.record_id.encode(),
        "instance-id": BOOT.encode(),
        "traceparent": TRACE.encode(),
    }
    world.producer.sent[1].deliver()
    assert world.stored == []
    world.producer.sent[0].deliver()
    assert world.stored == [(0, 1)]


@pytest.mark.anyio
@pytest.mark.parametrize("failure", ["_MSG_TIMED_OUT", "producer-full", "producer-closed"])
async def test_an_audit_event_that_no_broker_took_is_sent_again_and_holds_the_offset(
    monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    monkeypatch.setattr(patient_sender, "AGAIN_S", 0.01)
    monkeypatch.setattr(patient_sender, "GIVE_UP_S", 0.0)
    world = World()
    asked = request()
    origin = world.begin(asked)
    name = asked.items[0].request_id
    audit = AuditEvent(asked.record_id, (entry(name),))
    if failure.startswith("producer"):
        world.producer.refuse_with = failure
        asyncio.get_running_loop().call_later(0.1, setattr, world.producer, "refuse_with", None)
    world.outbox.put((ToAudit(audit), Answer(origin, asked, (signed(name),)), RecordDone(origin, asked.record_id)))
    await until(lambda: world.producer.on("t.signer.v1.audit"), "the event")
    if failure.startswith("_"):
        sent, world.producer.sent = world.producer.sent, []
        sent[1].deliver()
        sent[0].deliver(failure)
        assert world.stored == []
        await until(lambda: world.producer.on("t.signer.v1.audit"), "the event again")
        assert world.producer.sent[0].value == sent[0].value
    assert world.stored == []
    world.producer.on("t.signer.v1.audit")[0].deliver()
    assert world.stored == [(0, 1)]


@pytest.mark.anyio
async def test_an_audit_topic_that_takes_nothing_holds_no_offset_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_sender, "INSIST_S", 0.0)
    world = World()
    asked = request()
    origin = world.begin(asked)
    audit = AuditEvent(asked.record_id, (entry(asked.items[0].request_id),))
    answer = Answer(origin, asked, (signed(asked.items[0].request_id),))
    world.outbox.put((ToAudit(audit), answer, RecordDone(origin, asked.record_id)))
    await asyncio.sleep(0)
    world.producer.sent[1].deliver()
    world.producer.sent[0].deliver("TOPIC_AUTHORIZATION_FAILED")
    assert world.stored == [(0, 1)]
    failures = {"topic": "t.signer.v1.audit"}
    assert world.metrics.registry.get_sample_value("signer_flow_kafka_delivery_failures_total", failures) == 1


@pytest.mark.anyio
async def test_an_answer_that_cannot_be_delivered_is_counted_and_does_not_hold_up_the_partition() -> None:
    world = World()
    asked = request()
    origin = world.begin(asked)
    world.outbox.put((Answer(origin, asked, (signed(asked.items[0].request_id),)), RecordDone(origin, asked.record_id)))
    await asyncio.sleep(0)
    world.producer.sent[0].deliver("_MSG_TIMED_OUT")
    assert world.stored == [(0, 1)]
    assert world.value("signer_flow_answers_undeliverable_total") == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    "topic",
    ["t.signer.v1.ceremony", "signer.v1.resp0", "t.signer.v1.resp", "t.signer.v1.resp12345", "other.signer.v1.resp0"],
)
async def test_an_answer_never_goes_to_a_topic_that_is_no_reply_topic_of_this_system(topic: str) -> None:
    world = World()
    asked = request(reply_to=topic)
    origin = world.begin(asked)
    world.outbox.put((Answer(origin, asked, (signed(asked.items[0].request_id),)), RecordDone(origin, asked.record_id)))
    await asyncio.sleep(0)
    assert world.producer.sent == []
    assert world.stored == [(0, 1)]
    assert world.value("signer_flow_answers_undeliverable_total") == 1


@pytest.mark.anyio
async def test_a_full_producer_delays_answers_in_their_order_and_loses_none() -> None:
    world = World()
    world.producer.refuse_with = "producer-full"
    places = []
    for offset in range(3):
        asked = request()
        origin = world.begin(asked, offset)
        places.append(asked.record_id)
        outcome = signed(asked.items[0].request_id)
        world.outbox.put((Answer(origin, asked, (outcome,)), RecordDone(origin, asked.record_id)))
    await asyncio.sleep(0)
    assert not world.outbox.idle
    world.producer.refuse_with = None
    await until(lambda: world.outbox.idle, "all answers are handed over", 5)
    answers = world.opened("t.signer.v1.resp0", MsgSigned)
    assert [each.record_id for each in answers if isinstance(each, MsgSigned)] == places


@pytest.mark.anyio
async def test_what_cannot_be_sent_behind_others_that_wait_is_a_bug_and_not_the_end_of_all_sending() -> None:
    producer, bugs = MemoryProducer(), list[BaseException]()
    sender = PatientSender(asyncio.get_running_loop(), producer, Metrics(), bugs.append)
    producer.refuse_with = "producer-full"
    sender.send("topic", b"x", None, (), lambda _: None)
    sender.send("topic", bytes(MAX_SENT_BYTES + 1), None, (), lambda _: None)
    producer.refuse_with = None
    await until(lambda: bugs, "whoever waits for them is told")
    assert [sent.value for sent in producer.sent] == [b"x"]


@pytest.mark.anyio
async def test_a_request_that_nobody_vouches_for_is_told_to_the_poison_cabinet_with_its_bytes() -> None:
    world = World()
    asked = request()
    origin = world.begin(asked)
    refused = Outcome(asked.items[0].request_id, Refused(RefusalCode.BAD_EDGE_SIGNATURE, "no", retryable=False))
    world.outbox.put((Answer(origin, asked, (refused,)), RecordDone(origin, asked.record_id)))
    await asyncio.sleep(0)
    ((record, reason),) = world.poison
    assert (record.value, reason) == (b"raw", "bad-edge-signature")


@pytest.mark.anyio
@pytest.mark.parametrize("sizes", [(900_000, 900_000), (900_000, 148_000)], ids=["for-all", "for-the-broker"])
async def test_an_accusation_survives_evidence_that_is_too_large(sizes: tuple[int, int]) -> None:
    """Whoever is accused chooses how long his records are: also such that an envelope takes them, and no topic."""
    world = World()
    blame = entry("", evidence=tuple(map(bytes, sizes)))
    world.outbox.put((ToAudit(AuditEvent("", (blame,))),))
    await asyncio.sleep(0)
    (event,) = world.opened("t.signer.v1.audit", AuditEvent)
    assert isinstance(event, AuditEvent)
    assert event.entries[0].evidence == ()
    assert world.bugs == []


@pytest.mark.anyio
async def test_what_is_for_the_ceremonies_goes_there_and_a_strange_sending_is_a_bug() -> None:
    world = World()
    signed, asked = InternalSigned(OpenId(b"o" * 64), b"s" * 64), RefreshAsked(KeyId("default"), b"raw")
    world.outbox.put((signed, asked))
    assert world.internal == [signed, asked]
    with pytest.raises(TypeError):
        world.outbox.put((ToLog(None),))  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_answers_to_a_repeated_package_are_sent_and_stop_nobody() -> None:
    """Anybody who can write to our peer topic can repeat a package; both answers may fall into one turn of the loop."""
    world = World()
    first = SignatureShares((Share(7, bytes(32), bytes(32)), Share(8, bytes(32), bytes(32))))
    again = SignatureShares((Declined(7, DeclineReason.NO_NONCE), Declined(8, DeclineReason.NO_NONCE)))
    world.outbox.put((ToPeer(Index(2), first),))
    world.outbox.put((ToPeer(Index(2), again),))
    await until(lambda: world.outbox.idle, "everything was sent")
    assert world.bugs == []
    assert world.opened("t.signer.v1.peer2", SignatureShares) == [first, again]
