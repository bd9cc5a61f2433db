"""A reader that sticks goes on with a new client: nothing is lost by it, and nothing comes twice."""

import asyncio

import pytest

from common.kafka.port import At, End, OnLost, Position, Producer, Record, Start, TailConsumer
from common.kafka.tail import RealTail
from common.wire import topics
from tests.brokers import Broker, until
from tests.kafka.members import Client, turned, written

pytestmark = pytest.mark.anyio

WITHIN_S = 60.0
RENEWED = "reading on with a new client"


async def stand_still(tail: TailConsumer) -> None:
    """Its client reads no more and says nothing. What it has read before is delivered."""
    assert isinstance(tail, RealTail)

    def stand() -> None:
        tail.consumer.unassign()  # asked for in the thread that it belongs to

    await tail.ask(stand, WITHIN_S)


async def test_a_reader_that_is_renewed_in_the_middle_of_a_stream_loses_nothing_and_repeats_nothing(
    broker: Broker, client: Client, producer: Producer, caplog: pytest.LogCaptureFixture
) -> None:
    answers, requests = topics.responses(broker.prefix, 0), topics.requests(broker.prefix)
    broker.create([answers, requests])
    await written(producer, answers.name, [b"0", b"1", b"2"])
    await written(producer, requests.name, [b"before"])
    got: list[Record] = []
    tail = await client.tail({answers.name: Start(), requests.name: End()}, got.extend)
    count = 3
    async with asyncio.timeout(WITHIN_S):
        while caplog.text.count(RENEWED) < 3:
            tail.renew()
            for _ in range(20):
                # Not all partitions: a new client stands in its place where nothing was ever read, too.
                producer.send(answers.name, b"%d" % count, partition=0)
                producer.send(requests.name, b"%d" % count, partition=count % 6)
                count += 1
            assert await producer.flush(WITHIN_S) == 0
    for partition in range(topics.REQUEST_PARTITIONS):
        await written(producer, requests.name, [b"last"], partition)
    await written(producer, answers.name, [b"last"])
    await until(lambda: sum(record.value == b"last" for record in got) == 13, "the last of each", WITHIN_S)

    def read(topic: str, partition: int) -> list[bytes]:
        return [record.value for record in got if (record.topic, record.partition) == (topic, partition)]

    assert read(answers.name, 0) == [b"%d" % number for number in range(count)] + [b"last"]
    for partition in range(topics.REQUEST_PARTITIONS):
        numbers = [number for number in range(3, count) if number % 6 == partition]
        assert read(requests.name, partition) == [b"%d" % number for number in numbers] + [b"last"]


async def test_what_came_while_a_reader_stood_still_is_read_by_the_next_one(
    broker: Broker, client: Client, producer: Producer
) -> None:
    answers, beats = topics.responses(broker.prefix, 0), topics.presence(broker.prefix)
    broker.create([answers, beats])
    got: list[Record] = []
    tail = await client.tail({answers.name: End(), beats.name: End()}, got.extend)
    await written(producer, answers.name, [b"heard"])
    await until(lambda: got, "the first record")
    await stand_still(tail)
    await written(producer, answers.name, [b"unheard"])
    await written(producer, beats.name, [b"unheard beat"])
    await turned(client)
    assert [record.value for record in got] == [b"heard"]
    tail.renew()
    await until(lambda: len(got) == 3, "what came meanwhile", WITHIN_S)
    assert {record.value for record in got} == {b"heard", b"unheard", b"unheard beat"}


async def test_a_topic_that_was_lost_is_not_looked_for_by_a_new_client(
    broker: Broker, client: Client, producer: Producer, caplog: pytest.LogCaptureFixture
) -> None:
    log, beats = topics.ceremony(broker.prefix), topics.presence(broker.prefix)
    broker.create([log, beats])
    await written(producer, log.name, [b"another history"])
    got: list[Record] = []
    lost: list[str] = []
    positions: dict[str, Position] = {log.name: At(10), beats.name: End()}
    tail = await client.tail(positions, got.extend, OnLost.ERROR, lambda topic, _: lost.append(topic))
    await until(lambda: lost, "the topic is given up")
    tail.renew()
    await until(lambda: RENEWED in caplog.text, "the new client", WITHIN_S)
    await written(producer, beats.name, [b"beat"])
    await until(lambda: got, "the other topic is read", WITHIN_S)
    assert lost == [log.name]
    assert isinstance(tail, RealTail)
    read = await tail.ask(lambda: {each.topic for each in tail.consumer.assignment()}, WITHIN_S)
    assert read == {beats.name}
