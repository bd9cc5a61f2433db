"""The thin road: real processes make a key that nobody holds, and sign with it."""

import asyncio
import base64
import json
import subprocess
import sys
from hashlib import sha256

import pytest

from common import ed25519
from common.secret import Secret
from common.wire import codec, topics
from common.wire.messages import AuditEntry, AuditEvent, AuditKind, DeadLetter, RefusalCode, Refused, Signed
from tests.brokers import Broker, apache, broker
from tests.shell.road import DEFAULT, GARBAGE, PRINCIPAL, Pod, Signers, signers

__all__ = ["apache", "broker", "signers"]

# What Apache Kafka does differently at a restart is seen by the demo on it (tests/system).
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.parametrize("broker", ["embedded"], indirect=True),
]


@pytest.mark.anyio
async def test_three_replicas_make_a_key_and_sign_with_it_through_restarts(broker: Broker, signers: Signers) -> None:
    signers.start(1, 2, 3)
    async with Pod(broker.settings, signers.keys, signers) as pod:
        await pod.until_serving(1, 2, 3)
        public = pod.records[DEFAULT].public_key

        messages = [b"", b"hello", bytes(64 * 1024)]
        for partition in range(topics.REQUEST_PARTITIONS):
            for outcome, message in zip(await pod.sign(messages, partition), messages, strict=True):
                assert isinstance(outcome.result, Signed)
                assert ed25519.verify(public, message, outcome.result.signature)
                assert len(outcome.result.signers) == 2

        # Who asked stands in the audit beside what was signed for him.
        def audited() -> list[AuditEntry]:
            events = [pod._open(record, AuditEvent)[2] for record in pod.audits]
            return [entry for event in events if isinstance(event, AuditEvent) for entry in event.entries]

        def signatures() -> list[AuditEntry]:
            return [entry for entry in audited() if entry.kind is AuditKind.SIGNED and entry.request_id]

        await pod.until(lambda: len(signatures()) >= 3 * topics.REQUEST_PARTITIONS, "an entry for each")
        assert {entry.principal for entry in signatures()} == {PRINCIPAL}
        assert {entry.request_id for entry in signatures()} == pod.outcomes.keys()
        assert {entry.message_sha256 for entry in signatures()} == {sha256(message).digest() for message in messages}

        # Nobody's word: refused, kept, and the next record of the partition is served.
        forged, raw = pod.request([b"forged"], edge=Secret(b"f" * 32))
        pod.send(raw, 0)
        pod.send(GARBAGE, 0)
        (outcome,) = await pod.sign([b"after garbage"], 0)
        assert isinstance(outcome.result, Signed)
        await pod.until(lambda: len(pod.letters) >= 2, "both letters")
        refused = pod.outcomes[forged.items[0].request_id].result
        assert isinstance(refused, Refused)
        assert refused.code is RefusalCode.BAD_EDGE_SIGNATURE

        # Garbage on every topic that replicas read: kept once, and nobody minds.
        for topic in ("signer.v1.peer2", "signer.v1.presence", "signer.v1.ceremony", "signer.v1.keys"):
            # With a key: a compacted topic takes nothing else.
            pod.producer.send(f"{broker.prefix}{topic}", GARBAGE, key=b"garbage", partition=0)
        await pod.until(lambda: len(pod.letters) >= 6, "a letter for each")
        kept = [codec.decode(letter.value, DeadLetter) for letter in pod.letters]
        assert sorted(letter.topic.removeprefix(broker.prefix) for letter in kept[2:]) == [
            "signer.v1.ceremony",
            "signer.v1.keys",
            "signer.v1.peer2",
            "signer.v1.presence",
        ]
        assert [letter.value for letter in kept].count(GARBAGE) == 5
        (outcome,) = await pod.sign([b"after garbage everywhere"], 1)
        assert isinstance(outcome.result, Signed)

        assert (await asyncio.to_thread(signers.page, 1, "/healthz"))[0] == 200
        status, ready = await asyncio.to_thread(signers.page, 1, "/readyz")
        assert status == 200, ready
        _, metrics = await asyncio.to_thread(signers.page, 1, "/metrics")
        assert 'signer_flow_key_epoch{key_id="default"} 1.0' in metrics
        assert 'signer_flow_quorum_margin_seats{key_id="default"} 1.0' in metrics

        # One dies with records in its hands: whoever gets its partitions signs them, and nothing is lost.
        boot = pod.beats[3][1]
        under_way = [pod.request([b"under way"], deadline_ms=25_000) for _ in range(topics.REQUEST_PARTITIONS)]
        for partition, (_, raw) in enumerate(under_way):
            pod.send(raw, partition)
        signers.kill(3)
        pod.beats.pop(3)
        ids = [request.items[0].request_id for request, _ in under_way]
        await pod.until(lambda: all(each in pod.outcomes for each in ids), "each is answered")
        assert all(isinstance(pod.outcomes[each].result, Signed) for each in ids)

        # The other two go on. Back with its share from disk, it serves again.
        await pod.until_serving(1, 2)
        (outcome,) = await pod.sign([b"two are enough"], 0)
        assert isinstance(outcome.result, Signed)
        assert outcome.result.signers == (1, 2)
        signers.start(3)
        await pod.until(lambda: 3 in pod.beats and pod.beats[3][1] != boot, "seat 3 is back")
        await pod.until(lambda: bool(pod.beats[3][0].partitions), "seat 3 serves again")
        await pod.until_serving(1, 2, 3)
        assert pod.records[DEFAULT].public_key == public

        # With the operator's public key alone, and the rubbish passed over: the key came to be as it should.
        audit = [sys.executable, "-m", "signer_service", "audit", "--operator-pub", str(signers.keys / "operator.pub")]
        audit += ["--kafka", broker.settings.bootstrap, "--topic-prefix", broker.prefix, "--json"]
        done = await asyncio.to_thread(
            lambda: subprocess.run(audit, capture_output=True, text=True, timeout=60, check=False)
        )
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        (key,) = report["keys"]
        assert key["public_key"] == base64.b64encode(public).decode()
        assert (key["epochs"][0]["what"], key["epochs"][0]["attested"]) == ("generate", [1, 2, 3])
        assert report["counts"]["garbage-on-log"] == 1

        # All told to end: they do, in order, within their bound.
        assert [signers.terminate(seat) for seat in (1, 2, 3)] == [0, 0, 0]
