"""A committee that speaks the real wire with a plain Ed25519 key, so that the HTTP edge is tested without a signer.

It reads ``signer.v1`` on a real (embedded) broker, checks the edge signature of every request as a signer does, and
answers in its seats' envelopes. The roster, the attestations and the key record are real: ``common.trust`` believes
them. Only the key is held in one place, which no test of the edge can tell. Each seat's behaviour is a function, so
that a test can make a seat silent, slow, unwilling or a liar.
"""

import asyncio
import contextlib
import itertools
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import httpx

from common import ed25519
from common.ids import BootId, EdgeKeyId, Epoch, Index, Instant, KeyId, Offset, OpenId, RecordId
from common.kafka.client import KafkaClient
from common.kafka.embedded import EmbeddedBroker
from common.kafka.port import End, Record
from common.kafka.settings import KafkaSettings
from common.observability.spans import Spans
from common.secret import Secret
from common.wire import codec, envelope, topics, transcript
from common.wire.messages import (
    Accepted,
    KeyPresence,
    KeyRecord,
    Mode,
    MsgSigned,
    MsgToSign,
    Outcome,
    Presence,
    Ready,
    RefusalCode,
    Refused,
    ReplicaState,
    Role,
    Roster,
    RosterKey,
    Seat,
    Signed,
    SignItem,
    VerificationShare,
)
from rest_api import sockets
from rest_api.app import create_app
from rest_api.goodbye import CourteousHttp
from rest_api.server import Server
from rest_api.settings import Settings
from tests.brokers import until

DEFAULT = KeyId("default")
BEAT_S = 0.25
_seeds = itertools.count(1)


def keypair() -> tuple[Secret[bytes], bytes]:
    """A new pair; seeds are counted, so that a failure shows the same keys again."""
    return ed25519.generate_keypair(next(_seeds).to_bytes(32, "big"))


def boot() -> BootId:
    return BootId(str(uuid.uuid4()))


@dataclass
class Trust:
    """Everything that ``provision`` and a key generation would have made, for n seats, 2 of which sign."""

    prefix: str
    size: int = 3
    threshold: int = 2

    def __post_init__(self) -> None:
        self.operator, self.operator_pub = keypair()
        self.edge, self.edge_pub = keypair()
        self.group, self.group_pub = keypair()
        self.identities = {Index(i): keypair() for i in range(1, self.size + 1)}
        self.shares = {i: keypair()[1] for i in self.identities}
        self.roster = envelope.sign_roster(
            Roster(
                version=1,
                protocol_version=1,
                log_generation=0,
                seats=tuple(Seat(i, public) for i, (_, public) in self.identities.items()),
                keys=(RosterKey(DEFAULT, self.threshold, b""), RosterKey(KeyId("late"), self.threshold, b"")),
                edge_keys=(self.edge_pub,),
                checkpoints=(),
            ),
            self.operator,
        )

    def key_record(self, *, group: tuple[Secret[bytes], bytes] | None = None, epoch: int = 1) -> KeyRecord:
        """The record of the default key (or of another group key, attested by the same seats)."""
        private, public = group or (self.group, self.group_pub)
        topic = topics.ceremony(self.prefix).name
        open_id = OpenId(bytes([epoch]) * 64)
        ready = Ready(
            open_id=open_id,
            key_id=DEFAULT,
            epoch=Epoch(epoch),
            transcript_hash=bytes(64),
            qualified=tuple(self.identities),
            public_key=public,
            verification_hash=transcript.verification_hash(self.shares),
            share_proof=bytes(64),
        )
        attestations = tuple(
            envelope.seal(
                envelope.Signer(Role.SIGNER, i, boot(), identity), topic, codec.encode(ready), Offset(9), bytes(64)
            )
            for i, (identity, _) in self.identities.items()
        )
        record = KeyRecord(
            key_id=DEFAULT,
            epoch=Epoch(epoch),
            open_id=open_id,
            threshold=self.threshold,
            public_key=public,
            verification_shares=tuple(VerificationShare(i, element) for i, element in self.shares.items()),
            roster=self.roster,
            log_offset=Offset(10),
            log_hash=bytes(64),
            attestations=attestations,
        )
        return replace(record, signature=ed25519.sign(private, transcript.key_record_message(record)))

    def write(self, folder: Path) -> Path:
        """The three files of an API pod."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "operator.pub").write_bytes(self.operator_pub)
        (folder / "roster.avro").write_bytes(self.roster)
        edge = folder / "edge.key"
        edge.write_bytes(self.edge.expose())
        edge.chmod(0o600)
        return folder


@dataclass(frozen=True)
class Asked:
    """A request that reached a seat."""

    record: Record
    request: MsgToSign
    seat: "TestSeat"


Behaviour = Callable[[Asked], None]


CALM: Final = KeyPresence(
    DEFAULT, Epoch(1), True, "", 0, (), Instant(1_700_000_000_000), Instant(0), Offset(10), bytes(64)
)
"""No ceremony runs, and this seat holds a share of epoch 1."""


@dataclass
class TestSeat:
    """One seat: an identity, partitions of its own, and what it does with a request."""

    __test__ = False

    committee: "Committee"
    index: Index
    partitions: tuple[int, ...]
    boot_id: BootId = field(default_factory=boot)
    started_ms: int = field(default_factory=lambda: int(time.time() * 1000))
    seq: int = 0
    beating: bool = True
    draining: bool = False
    queue_wait_ms: int = 0
    skew_ms: int = 0
    behaviour: Behaviour | None = None
    asked: list[MsgToSign] = field(default_factory=list)
    key: KeyPresence = CALM
    """What its beats say of the default key."""

    def signer(self) -> envelope.Signer:
        return envelope.Signer(Role.SIGNER, self.index, self.boot_id, self.committee.trust.identities[self.index][0])

    def beat(self) -> None:
        self.seq += 1
        presence = Presence(
            started_ms=Instant(self.started_ms),
            seq=self.seq,
            sent_ms=Instant(int(time.time() * 1000)),
            state=ReplicaState.READY,
            draining=self.draining,
            schema_level=codec.SCHEMA_LEVEL,
            partitions=self.partitions,
            in_flight=0,
            queue_wait_ms=self.queue_wait_ms,
            nonces_left=100,
            keys=(self.key,),
            clock_skew_ms=self.skew_ms,
        )
        topic = topics.presence(self.committee.prefix).name
        self.committee.producer.send(topic, envelope.seal(self.signer(), topic, codec.encode(presence)))

    def answer(self, asked: Asked, *outcomes: Outcome, signer: envelope.Signer | None = None) -> None:
        """Send outcomes in this seat's envelope (or in another's) to the pod that asked."""
        topic = asked.request.reply_to
        message = MsgSigned(asked.request.record_id, asked.request.instance_id, outcomes)
        sealed = envelope.seal(signer or self.signer(), topic, codec.encode(message))
        self.committee.producer.send(topic, sealed)

    def sign(self, asked: Asked) -> None:
        """What an honest committee does."""
        self.answer(asked, *(self.committee.outcome(item) for item in asked.request.items))

    def refuse(self, asked: Asked, code: RefusalCode, *, retryable: bool) -> None:
        refused = Refused(code, "as the test wants", retryable)
        self.answer(asked, *(Outcome(item.request_id, refused) for item in asked.request.items))


class Committee:
    """The seats, on one set of clients."""

    def __init__(self, trust: Trust, settings: KafkaSettings) -> None:
        self.trust = trust
        self.prefix = trust.prefix
        self.kafka = KafkaClient(settings)
        self.producer = self.kafka.producer()
        every = range(topics.REQUEST_PARTITIONS)
        self.seats = {
            i: TestSeat(self, i, tuple(p for p in every if p % trust.size == i - 1)) for i in trust.identities
        }
        self.edge_keys = {EdgeKeyId(envelope.edge_key_id(trust.edge_pub)): trust.edge_pub}
        self._tail = self.kafka.tail({topics.requests(trust.prefix).name: End()}, self._deliver)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.producer.start()
        self.publish(codec.encode(self.trust.key_record()))
        await self._tail.start()
        self._task = asyncio.create_task(self._beat())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._tail.close()
        await self.producer.close()

    def publish(self, key_record: bytes) -> None:
        self.producer.send(topics.keys(self.prefix).name, key_record, key=b"default")

    def reset(self) -> None:
        """Honest, awake and forgetful again."""
        for seat in self.seats.values():
            seat.behaviour, seat.beating, seat.draining, seat.queue_wait_ms, seat.key = None, True, False, 0, CALM
            seat.asked.clear()

    def all_do(self, behaviour: Behaviour) -> None:
        for seat in self.seats.values():
            seat.behaviour = behaviour

    def outcome(self, item: SignItem, *, private: Secret[bytes] | None = None, message: bytes | None = None) -> Outcome:
        """A signature as the group makes it; with another key or message: as a forger does. A refresh is accepted."""
        if item.mode is Mode.REFRESH:
            return Outcome(item.request_id, Accepted(item.key_id, Epoch(1)))
        signature = ed25519.sign(private or self.trust.group, item.message if message is None else message)
        return Outcome(item.request_id, Signed(signature, item.key_id, Epoch(1), (Index(1), Index(2))))

    def asked_items(self) -> list[tuple[Index, SignItem]]:
        return [(seat.index, item) for seat in self.seats.values() for request in seat.asked for item in request.items]

    def _deliver(self, batch: Sequence[Record]) -> None:
        for record in batch:
            request = codec.decode(record.value, MsgToSign)
            envelope.check_request(record.value, request, self.edge_keys)
            assert record.key == request.record_id.encode()
            seat = next(seat for seat in self.seats.values() if record.partition in seat.partitions)
            seat.asked.append(request)
            (seat.behaviour or seat.sign)(Asked(record, request, seat))

    async def _beat(self) -> None:
        while True:
            for seat in self.seats.values():
                if seat.beating:
                    seat.beat()
            await asyncio.sleep(BEAT_S)


@dataclass
class Pod:
    """A running API pod: the real application under the real server."""

    server: Server
    url: str
    admin_url: str
    http: httpx.AsyncClient

    @property
    def gateway(self):  # type: ignore[no-untyped-def]
        return self.server.config.app.state.services.gateway  # type: ignore[union-attr]

    @property
    def metrics(self):  # type: ignore[no-untyped-def]
        return self.server.config.app.state.services.metrics  # type: ignore[union-attr]

    def count(self, name: str, **labels: str) -> float:
        """A counter's value."""
        return float(self.metrics.registry.get_sample_value(f"signer_flow_{name}", labels) or 0.0)

    async def ready(self) -> bool:
        return (await self.http.get("/readyz")).status_code == 200


NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that need none: they would read all certificates first."""


@contextlib.asynccontextmanager
async def running_pod(
    settings: Settings, *, wait: bool = True, port: int = 0, spans: Spans | None = None
) -> AsyncIterator[Pod]:
    """Run a pod on free ports of loopback (or on ``port``); it drains before it stops, as the process does."""
    import uvicorn

    fatal: list[str] = []
    app = create_app(settings, on_fatal=fatal.append, spans=spans)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        http=CourteousHttp,
        **sockets.UVICORN,
        lifespan="on",
        log_config=None,
        access_log=False,
    )
    config.timeout_graceful_shutdown = 3
    server = Server(config)
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or task.done(), "the pod listens")
        if task.done():
            task.result()
        bound = server.listeners[0].listening.getsockname()[1]
        url = f"http://127.0.0.1:{bound}"
        async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False, verify=NO_TLS) as http:
            pod = Pod(server, url, f"http://127.0.0.1:{app.state.admin_port}", http)
            if wait:
                await until(lambda: not pod.gateway.standing.readiness(), "the pod is ready")
            yield pod
    finally:
        if (running := getattr(app.state, "services", None)) is not None:
            running.gateway.drain(0)
        server.should_exit = True
        await task
    assert fatal == []


@dataclass
class World:
    """A broker's corner with a committee in it, and what a pod needs to join."""

    broker: EmbeddedBroker
    trust: Trust
    committee: Committee
    folder: Path

    def settings(self, index: int = 0, **more: object) -> Settings:
        given: dict[str, object] = {
            "index": index,
            "port": 0,
            "admin_port": 0,
            "kafka_bootstrap": self.broker.bootstrap,
            "kafka_embedded": True,
            "topic_prefix": self.trust.prefix,
            "secrets_dir": self.folder,
        }
        return Settings(**{**given, **more})  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def world(broker: EmbeddedBroker, folder: Path) -> AsyncIterator[World]:
    """Topics of their own, a committee, and files on disk."""
    prefix = f"t-{uuid.uuid4().hex[:8]}."
    broker.create_topics(topics.all_topics(prefix, 2, 3))
    trust = Trust(prefix)
    committee = Committee(trust, broker.settings("committee", prefix))
    await committee.start()
    try:
        yield World(broker, trust, committee, trust.write(folder))
    finally:
        await committee.close()


def record_id() -> RecordId:
    return RecordId(str(uuid.uuid4()))
