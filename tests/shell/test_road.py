"""The thin road: real processes make a key that nobody holds, and sign with it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common import ed25519
from common.secret import Secret
from common.wire import topics
from common.wire.messages import RefusalCode, Refused, Signed
from tests.brokers import Broker, apache, broker
from tests.shell.road import DEFAULT, Pod, Signers

__all__ = ["apache", "broker"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def signers(broker: Broker, tmp_path: Path) -> Iterator[Signers]:
    broker.create(topics.all_topics(broker.prefix, 1, 3, 1))
    made = Signers(broker, tmp_path)
    made.provision(3, 2)
    try:
        yield made
    finally:
        made.close()


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

        # Nobody's word: refused, kept, and the next record of the partition is served.
        forged, raw = pod.request([b"forged"], edge=Secret(b"f" * 32))
        pod.send(raw, 0)
        pod.send(b"garbage", 0)
        (outcome,) = await pod.sign([b"after garbage"], 0)
        assert isinstance(outcome.result, Signed)
        await pod.until(lambda: len(pod.letters) >= 2, "both letters")
        refused = pod.outcomes[forged.items[0].request_id].result
        assert isinstance(refused, Refused)
        assert refused.code is RefusalCode.BAD_EDGE_SIGNATURE

        # One dead: the other two sign. Back with its share from disk, it serves again.
        boot = pod.beats[3][1]
        signers.kill(3)
        pod.beats.pop(3)
        await pod.until_serving(1, 2)
        (outcome,) = await pod.sign([b"two are enough"], 0)
        assert isinstance(outcome.result, Signed)
        assert outcome.result.signers == (1, 2)
        signers.start(3)
        await pod.until(lambda: 3 in pod.beats and pod.beats[3][1] != boot, "seat 3 is back")
        await pod.until(lambda: bool(pod.beats[3][0].partitions), "seat 3 serves again")
        await pod.until_serving(1, 2, 3)
        assert pod.records[DEFAULT].public_key == public

        # All told to end: they do, in order, within their bound.
        assert [signers.terminate(seat) for seat in (1, 2, 3)] == [0, 0, 0]
