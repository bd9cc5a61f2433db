"""A pod and a replica whose reader stands still without a word hear again, by themselves."""

from pathlib import Path

import pytest

from common.kafka import hearing
from common.kafka.embedded import EmbeddedBroker
from common.kafka.port import TailConsumer
from common.kafka.tail import RealTail
from common.wire import topics
from tests.brokers import Broker, broker, until
from tests.rest_api.world import running_pod, world
from tests.shell.in_process import replicas
from tests.system.replicas import provisioned

__all__ = ["broker"]

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

WITHIN_S = 60.0


@pytest.fixture(autouse=True)
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "DEAF_S", 1e9)


async def soon(own: hearing.Hearing, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is heard was taken into account until now; from now on little time is needed to know that nothing is."""
    await until(lambda: own._confirmed_at is not None, "a confirmed beat", WITHIN_S)
    first = own._confirmed_at
    await until(lambda: own._confirmed_at != first, "the next", WITHIN_S)
    await until(lambda: own._deaf_s == 0.0, "beats that were heard", WITHIN_S)
    monkeypatch.setattr(hearing, "DEAF_S", 1.5)


async def stand_still(tails: list[TailConsumer], topic: str) -> None:
    """The reader of that topic reads no more and says nothing; what it has read is delivered when this is over."""
    (tail,) = [tail for tail in tails if isinstance(tail, RealTail) and topic in tail._positions]

    def stand() -> None:
        tail.consumer.unassign()  # asked for in the thread that it belongs to

    await tail.ask(stand, WITHIN_S)


async def test_a_pod_that_hears_nobody_any_more_hears_and_signs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedBroker() as cluster:
        async with world(cluster, tmp_path) as made, running_pod(made.settings()) as pod:
            gateway = pod.gateway
            own = gateway.pods.instance_id
            await until(lambda: own in gateway.pods.pods, "its own beat", WITHIN_S)
            await soon(gateway._readers.hearing, monkeypatch)
            await stand_still(gateway._readers._tails, topics.presence(made.trust.prefix).name)
            last = gateway.pods.pods[own].seq
            answer = await pod.http.post(
                "/v1/sign", json={"text": "hello"}, headers={"Request-Timeout-Ms": "30000"}, timeout=WITHIN_S
            )
            assert answer.status_code == 200, "its answer lay there until a new reader took it"
            await until(lambda: gateway.pods.pods[own].seq > last, "its later beats", WITHIN_S)


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
async def test_a_replica_that_hears_nobody_any_more_hears_again(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = provisioned(tmp_path / "keys", 3, 2)
    broker.create(topics.all_topics(broker.prefix, 1, 3, 1))
    async with replicas(broker, keys, tmp_path / "state", (1,)) as running:
        replica = running[1]
        await until(lambda: replica.parts.presence.own_beats, "its own beat", WITHIN_S)
        await soon(replica.parts.readers.hearing, monkeypatch)
        await stand_still(replica.parts.readers._tails, topics.presence(broker.prefix).name)
        before = replica.parts.presence.own_beats
        await until(lambda: replica.parts.presence.own_beats > before, "its later beats", WITHIN_S)
