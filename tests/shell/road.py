"""Real signer processes on a real broker, and a stand-in for an API pod that asks them."""

import http.client
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from common import ed25519
from common.ids import BootId, EdgeKeyId, Instant, KeyId, RecordId, RequestId
from common.kafka.client import KafkaClient
from common.kafka.port import End, Hooks, Record, Start
from common.kafka.settings import KafkaSettings
from common.secret import Secret
from common.wire import codec, topics
from common.wire.envelope import edge_key_id, open_envelope, sign_request
from common.wire.messages import (
    Envelope,
    KeyRecord,
    Mode,
    MsgSigned,
    MsgToSign,
    Outcome,
    Presence,
    Role,
    SignItem,
)
from tests.brokers import Broker, until
from tests.ports import free_ports

DEFAULT = KeyId("default")
GARBAGE = b"not a record"
ROOT = Path(__file__).resolve().parents[2]


class Signers:
    """Signer processes, one per seat; each can be killed and started again."""

    def __init__(self, broker: Broker, root: Path, **extra: str) -> None:
        self._broker = broker
        self.keys = root / "keys"
        self.state = root / "state"
        self.extra = extra
        """Settings of those that are started from now on."""
        self._logs = root
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.ports: dict[int, int] = {}

    def provision(self, signers: int, threshold: int) -> None:
        command = [sys.executable, "-m", "signer_service", "provision", "--out", str(self.keys)]
        command += ["--signers", str(signers), "--threshold", str(threshold)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def environment(self, seat: int) -> dict[str, str]:
        kafka = self._broker.settings
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("SIGNER_")},
            "SIGNER_SERVICE_INDEX": str(seat),
            "SIGNER_SERVICE_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "SIGNER_SERVICE_KAFKA_EMBEDDED": str(kafka.embedded).lower(),
            "SIGNER_SERVICE_TOPIC_PREFIX": kafka.topic_prefix,
            "SIGNER_SERVICE_SECRETS_DIR": str(self.keys),
            "SIGNER_SERVICE_STATE_DIR": str(self.state / str(seat)),
            "SIGNER_SERVICE_ADMIN_PORT": str(self.ports[seat]),
            **self.extra,
        }

    def start(self, *seats: int) -> None:
        for seat in seats:
            self._start(seat, "signer_service", "run")

    def start_changed(self, seat: int, *what: str) -> None:
        """A replica in which one thing is not as it should be: see ``tests.shell.changed``."""
        self._start(seat, "tests.shell.changed", *what)

    def _start(self, seat: int, module: str, *arguments: str) -> None:
        self.ports.setdefault(seat, free_ports())
        with self.log(seat).open("ab") as log:
            self.processes[seat] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=self.environment(seat),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def log(self, seat: int) -> Path:
        return self._logs / f"signer-{seat}.log"

    def kill(self, seat: int) -> None:
        process = self.processes.pop(seat)
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    def terminate(self, seat: int, within_s: float = 20.0) -> int:
        process = self.processes.pop(seat)
        process.terminate()
        return process.wait(within_s)

    def check(self) -> None:
        """Fail with the log of a process that ended by itself."""
        for seat, process in self.processes.items():
            if process.poll() is not None:
                pytest.fail(f"signer {seat} ended with {process.returncode}:\n{self.log(seat).read_text()[-6000:]}")

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait(10)

    def page(self, seat: int, path: str) -> tuple[int, str]:
        """Status and body of a page of the seat's admin port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[seat], timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


PRINCIPAL = "billing"
"""Who asks, as a pod would write it into the record."""


class Pod:
    """What an API pod does on Kafka, without HTTP: asks, and checks what comes back."""

    def __init__(self, settings: KafkaSettings, keys: Path, signers: Signers) -> None:
        self.kafka = KafkaClient(settings, Hooks())
        self.prefix = settings.topic_prefix
        self.instance = BootId(str(uuid.uuid4()))
        self._edge = Secret((keys / "edge.key").read_bytes())
        self._identities = {
            int(folder.name): ed25519.public_key(Secret((folder / "identity.key").read_bytes()))
            for folder in (keys / "seats").iterdir()
        }
        self._signers = signers
        self.records: dict[KeyId, KeyRecord] = {}
        self.outcomes: dict[RequestId, Outcome] = {}
        self.beats: dict[int, tuple[Presence, BootId]] = {}
        self.letters: list[Record] = []
        self.audits: list[Record] = []

    async def __aenter__(self) -> Self:
        self._reply_to = topics.responses(self.prefix, 0).name
        self._presence = topics.presence(self.prefix).name
        self.producer = self.kafka.producer()
        self.producer.start()
        keys, dlq, audit = topics.keys(self.prefix), topics.dead_letters(self.prefix), topics.audit(self.prefix)
        self._tails = [
            self.kafka.tail({self._reply_to: End()}, self._answers),
            self.kafka.tail({self._presence: End()}, self._hear),
            self.kafka.tail({keys.name: Start()}, self._keys),
            self.kafka.tail({dlq.name: Start()}, self.letters.extend),
            self.kafka.tail({audit.name: Start()}, self.audits.extend),
        ]
        for tail in self._tails:
            await tail.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for tail in self._tails:
            await tail.close()
        await self.producer.close()

    def _open(self, record: Record, *expected: type) -> tuple[int, BootId, object]:
        opened = open_envelope(record.value, record.topic, lambda _, index: (self._identities[index],))
        assert opened.role is Role.SIGNER
        return opened.index, opened.boot_id, codec.decode(opened.payload, *expected)

    def _answers(self, records: Sequence[Record]) -> None:
        for record in records:
            _, _, answer = self._open(record, MsgSigned)
            assert isinstance(answer, MsgSigned)
            assert answer.instance_id == self.instance
            for outcome in answer.outcomes:
                self.outcomes[outcome.request_id] = outcome

    def _hear(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.value != GARBAGE and codec.decode(record.value, Envelope).role is Role.SIGNER:
                index, boot, beat = self._open(record, Presence)
                assert isinstance(beat, Presence)
                self.beats[index] = (beat, boot)

    def _keys(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.value != GARBAGE:
                found = codec.decode(record.value, KeyRecord)
                self.records[found.key_id] = found

    async def until(self, condition: object, what: str, within_s: float = 60.0) -> None:
        def holds() -> bool:
            self._signers.check()
            return bool(condition())  # type: ignore[operator]

        await until(holds, what, within_s)

    async def until_serving(self, *seats: int, within_s: float = 60.0) -> None:
        """The key exists, these seats hold it, and every partition is claimed by somebody live."""

        def holds() -> bool:
            claimed: set[int] = set()
            for seat in seats:
                if seat not in self.beats:
                    return False
                beat = self.beats[seat][0]
                if not any(key.holds_share for key in beat.keys):
                    return False
                claimed |= set(beat.partitions)
            return len(claimed) == topics.REQUEST_PARTITIONS

        await self.until(holds, f"seats {seats} serve", within_s)
        await self.until(lambda: DEFAULT in self.records, "the key record is published")

    def request(
        self, messages: Sequence[bytes], deadline_ms: int = 10_000, edge: Secret[bytes] | None = None
    ) -> tuple[MsgToSign, bytes]:
        now = int(time.time() * 1000)
        items = tuple(
            SignItem(
                RequestId(str(uuid.uuid4())),
                DEFAULT,
                Mode.SIGN,
                message,
                PRINCIPAL,
                Instant(now),
                Instant(now + deadline_ms),
            )
            for message in messages
        )
        name: EdgeKeyId = edge_key_id(ed25519.public_key(self._edge))
        request = MsgToSign(RecordId(str(uuid.uuid4())), items, self._reply_to, self.instance, name)
        raw = sign_request(request, edge or self._edge)
        return codec.decode(raw, MsgToSign), raw

    def send(self, raw: bytes, partition: int) -> None:
        self.producer.send(topics.requests(self.prefix).name, raw, partition=partition)

    async def sign(self, messages: Sequence[bytes], partition: int, within_s: float = 15.0) -> list[Outcome]:
        request, raw = self.request(messages)
        self.send(raw, partition)
        await self.until(
            lambda: all(item.request_id in self.outcomes for item in request.items), "an answer to each item", within_s
        )
        return [self.outcomes[item.request_id] for item in request.items]


@pytest.fixture
def signers(broker: Broker, tmp_path: Path) -> Iterator[Signers]:
    """Three seats, two of which sign together, and the topics for one pod; nobody is started."""
    broker.create(topics.all_topics(broker.prefix, 1, 3, 1))
    made = Signers(broker, tmp_path)
    made.provision(3, 2)
    try:
        yield made
    finally:
        made.close()
