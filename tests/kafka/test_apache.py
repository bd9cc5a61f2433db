"""What only a real broker shows: topic configuration, broker timestamps, fencing, topics that are lost, restarts."""

import asyncio
import contextlib
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from common.kafka.port import At, Delivery, End, OnLost, Producer, Record
from common.kafka.settings import KafkaSettings
from common.wire import topics
from tests.brokers import Broker, launcher, made_again, until
from tests.kafka.members import Client, Member, written

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]


@pytest.fixture
def broker(apache: str) -> Broker:
    """Only the real one."""
    return Broker(KafkaSettings(bootstrap=apache, client_id="test", topic_prefix=f"t-{uuid.uuid4().hex[:12]}."), None)


async def test_every_topic_of_the_table_is_made_as_it_says(broker: Broker, client: Client) -> None:
    admin = client.admin()
    table = topics.all_topics(broker.prefix, 2, 2, replication=1)
    assert {difference.what for difference in await admin.describe(table)} == {"existence"}
    ensured = await admin.ensure(table)
    assert sorted(ensured.created) == sorted(spec.name for spec in table)
    again = await admin.ensure(table)
    assert (again.created, again.differences) == ((), ())
    assert await admin.topics() == {spec.name: spec.partitions for spec in table}


async def test_a_topic_that_differs_is_reported_and_left_alone(broker: Broker, client: Client) -> None:
    spec = topics.requests(broker.prefix)
    other = topics.TopicSpec(spec.name, spec.records, spec.key, 3, 1000, "delete", spec.writers, spec.readers)
    admin = client.admin()
    await admin.ensure([other])
    found = {
        (difference.what, difference.wanted, difference.found)
        for difference in (await admin.ensure([spec])).differences
    }
    assert ("partitions", "12", "3") in found
    assert ("retention.ms", "600000", "1000") in found
    assert (await admin.topics())[spec.name] == 3


async def test_a_record_that_the_broker_finds_too_large_is_known_to_be_unwritten(
    broker: Broker, client: Client, producer: Producer
) -> None:
    spec = topics.requests(broker.prefix)
    admin = AdminClient({"bootstrap.servers": broker.settings.bootstrap})
    for made in admin.create_topics([NewTopic(spec.name, 1, 1, config={"max.message.bytes": "2000"})]).values():
        made.result(20.0)
    outcomes: list[Delivery] = []
    producer.send(spec.name, b"x" * 3_000, on_delivery=outcomes.append)
    await until(lambda: outcomes, "the refusal")
    assert (outcomes[0].error or "").startswith("MSG_SIZE_TOO_LARGE")
    assert outcomes[0].unwritten
    producer.send(spec.name, b"x" * 1_000, on_delivery=outcomes.append)
    await until(lambda: len(outcomes) == 2, "one that fits")
    assert (outcomes[1].error, outcomes[1].offset, outcomes[1].unwritten) == (None, 0, False)


async def test_two_processes_may_make_the_same_topics_at_once(broker: Broker, client: Client) -> None:
    table = topics.all_topics(broker.prefix, 2, 2)
    first, second = await asyncio.gather(client.admin().ensure(table), client.admin().ensure(table))
    assert sorted(first.created + second.created) == sorted(spec.name for spec in table)


async def test_a_record_carries_the_broker_time_not_the_writer_s(
    broker: Broker, client: Client, producer: Producer
) -> None:
    spec = topics.presence(broker.prefix)
    broker.create([spec])
    got: list[Record] = []
    await client.tail({spec.name: End()}, got.extend)
    await written(producer, spec.name, [b"x"])
    await until(lambda: got, "the record")
    assert got[0].timestamp_ms is not None
    assert abs(got[0].timestamp_ms - time.time() * 1000) < 5_000


async def test_a_topic_is_usable_the_moment_it_is_made(broker: Broker, client: Client, producer: Producer) -> None:
    for number in range(5):
        spec = topics.responses(broker.prefix, number)
        await client.admin().ensure([spec])
        got: list[Record] = []
        await client.tail({spec.name: End()}, got.extend)
        producer.send(spec.name, b"x")
        await until(lambda got=got: got, "the record")  # type: ignore[misc]


async def test_a_member_whose_seat_is_taken_by_another_process_ends(broker: Broker, client: Client) -> None:
    spec = topics.requests(broker.prefix)
    broker.create([spec])
    first = await client.member(spec.name, Member(), "seat-1")
    await until(lambda: first.held, "the first process has the seat")
    usurper = Client(broker.settings)
    second = await usurper.member(spec.name, Member(), "seat-1")
    try:
        await until(lambda: client.fatal, "the first is told that it is fenced")
        assert "fenced by other consumer" in client.fatal[0]
        client.expected_fatal = client.fatal
        await until(lambda: len(second.held) == topics.REQUEST_PARTITIONS, "the second holds all")
    finally:
        await usurper.close()


async def test_a_reader_of_answers_goes_on_when_its_topic_is_made_again(
    broker: Broker, client: Client, producer: Producer
) -> None:
    spec = topics.responses(broker.prefix, 0)
    broker.create([spec])
    await written(producer, spec.name, [b"%d" % number for number in range(10)])
    got: list[Record] = []
    await client.tail({spec.name: End()}, got.extend)
    await written(producer, spec.name, [b"old"])
    await until(lambda: got, "a record")
    await made_again(broker, spec, 20.0)
    outcomes: list[Delivery] = []

    def new_record_came() -> bool:
        # A record or two may fail while the client still believes in the old topic; it has to get over it.
        if producer.outstanding() == 0:
            producer.send(spec.name, b"new", on_delivery=outcomes.append)
        return any(record.value == b"new" for record in got)

    await until(new_record_came, "a record of the new topic")


async def test_a_reader_of_the_ceremony_log_stops_and_says_so_when_its_topic_is_made_again(
    broker: Broker, client: Client, producer: Producer
) -> None:
    spec = topics.ceremony(broker.prefix)
    broker.create([spec])
    await written(producer, spec.name, [b"%d" % number for number in range(10)])
    got: list[Record] = []
    lost: list[str] = []
    await client.tail({spec.name: At(10)}, got.extend, OnLost.ERROR, lambda topic, _: lost.append(topic))
    await made_again(broker, spec, 20.0)
    await until(lambda: lost, "the alarm")
    assert lost == [spec.name]
    assert not got


@pytest.fixture
def own_broker() -> Iterator[tuple[Any, int]]:
    """A broker that this test alone may kill: (instance, port)."""
    kafka = launcher()
    instance = kafka.Instance(f"killed-{uuid.uuid4().hex[:8]}")
    _, port = instance.start(0, keep=False, bench=False, die_with_us=False)
    try:
        yield instance, port
    finally:
        with contextlib.suppress(kafka.Failed):
            instance.stop(kill=True)
        shutil.rmtree(instance.folder, ignore_errors=True)


@pytest.fixture
async def restarted(own_broker: tuple[Any, int]) -> AsyncIterator[Client]:
    _, port = own_broker
    made = Client(KafkaSettings(bootstrap=f"127.0.0.1:{port}", client_id="test"))
    yield made
    await made.close()
    assert made.fatal == []


@pytest.mark.slow
async def test_after_kill_9_of_the_broker_everything_goes_on(
    apache: str, own_broker: tuple[Any, int], restarted: Client
) -> None:
    instance, port = own_broker
    response, request = topics.responses("", 0, 1), topics.requests("", 1)
    await restarted.admin().ensure([response, request])
    producer = restarted.producer()
    got: list[Record] = []
    await restarted.tail({response.name: End()}, got.extend)
    member = await restarted.member(request.name, Member(), "seat-1")
    await until(lambda: len(member.held) == topics.REQUEST_PARTITIONS, "a member")
    await written(producer, response.name, [b"before"])
    await until(lambda: got and restarted.states == [True], "up")

    with ThreadPoolExecutor(1) as pool:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(pool, lambda: instance.stop(kill=True))
        await until(lambda: restarted.states[-1] is False, "down")
        starting = loop.run_in_executor(pool, lambda: instance.start(port, keep=True, bench=False, die_with_us=False))
        await asyncio.wait_for(starting, 60.0)
    await until(lambda: restarted.states[-1] is True, "up again")

    outcomes: list[Delivery] = []

    def both_flow() -> bool:
        if producer.outstanding() == 0:
            producer.send(response.name, b"after", on_delivery=outcomes.append)
            producer.send(request.name, b"after", partition=5, on_delivery=outcomes.append)
        return got[-1].value == b"after" and bool(member.records)

    await until(both_flow, "answers and requests", 60.0)
