"""Topics that somebody made otherwise than the table says: named with the remedy before anything is built on them."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import Unavailable
from common.kafka import suitable
from common.wire import topics
from tests.brokers import Broker, made_again, until
from tests.kafka.members import Client
from tests.shell.in_process import replicas
from tests.system.replicas import provisioned

pytestmark = pytest.mark.anyio
on_apache = pytest.mark.parametrize("broker", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True)


async def test_topics_as_the_table_says_are_nothing_to_speak_of(broker: Broker, client: Client) -> None:
    table = topics.all_topics(broker.prefix, 1, 1)
    broker.create(table)
    said: list[str] = []
    await suitable.check(client.admin(), table, said.append)
    assert not said


async def test_other_partitions_are_refused_with_what_to_do(broker: Broker, client: Client) -> None:
    spec = topics.ceremony(broker.prefix)
    broker.create([replace(spec, partitions=3)])
    with pytest.raises(Unavailable) as refused:
        await suitable.check(client.admin(), [spec], pytest.fail)
    assert refused.value.code == "topic-partitions"
    assert f"{spec.name} has 3 partitions and must have 1" in refused.value.detail
    assert "signer-flow topics --create" in refused.value.detail


@on_apache
async def test_another_configuration_is_said_with_the_command_that_mends_it(broker: Broker, client: Client) -> None:
    spec = topics.ceremony(broker.prefix)
    broker.create([replace(spec, retention_ms=604_800_000)])
    said: list[str] = []
    await suitable.check(client.admin(), [spec], said.append)
    (line,) = said
    assert line.startswith(f"{spec.name}: retention.ms is 604800000 and should be -1: ")
    assert f"kafka-configs.sh --alter --topic {spec.name} --add-config retention.ms=-1" in line


async def test_a_topic_that_is_not_there_yet_is_somebody_else_s_to_say(broker: Broker, client: Client) -> None:
    await suitable.check(client.admin(), [topics.ceremony(broker.prefix)], pytest.fail)


@on_apache
async def test_replicas_wait_unready_until_the_topic_is_mended(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = provisioned(tmp_path / "keys", 3, 2)
    spec = topics.requests(broker.prefix)
    table = [each for each in topics.all_topics(broker.prefix, 1, 3) if each.name != spec.name]
    broker.create([*table, replace(spec, partitions=3)])
    said: list[str] = []

    def told() -> bool:
        said.extend(capsys.readouterr())
        return "has 3 partitions and must have 12" in "".join(said)

    async with replicas(broker, keys, tmp_path / "state", (1, 2, 3)) as running:
        await until(told, "it is said what is wrong")
        assert not any(each.readiness().ok for each in running.values())
        await made_again(broker, spec)
        await until(lambda: all(each.readiness().ok for each in running.values()), "all are ready", 60.0)
