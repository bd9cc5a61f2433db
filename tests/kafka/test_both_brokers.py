"""One contract, two brokers: the embedded one is trusted because it passes what Apache Kafka passes."""

import asyncio
import json
import sys
import time

import pytest

from common.errors import BadInput, Unavailable
from common.kafka import options
from common.kafka.port import At, Delivery, End, OnLost, Producer, Record, Start
from common.wire import topics
from tests.brokers import Broker, until, until_async
from tests.kafka import rubbish
from tests.kafka.members import Client, Member, committed, turned, written

pytestmark = pytest.mark.anyio

WITHIN_S = 60.0


def _response(broker: Broker) -> str:
    spec = topics.responses(broker.prefix, 0)
    broker.create([spec])
    return spec.name


def _requests(broker: Broker) -> str:
    spec = topics.requests(broker.prefix)
    broker.create([spec])
    return spec.name


async def test_a_record_comes_back_as_it_was_sent(broker: Broker, client: Client, producer: Producer) -> None:
    topic = _response(broker)
    got: list[Record] = []
    await client.tail({topic: End()}, got.extend)
    headers = (("record-id", b"1"), ("traceparent", b"\xff\x00"), ("empty", b""), ("record-id", b"2"))
    outcomes: list[Delivery] = []
    producer.send(topic, b"value \x00", key=b"key \xff", partition=0, headers=headers, on_delivery=outcomes.append)
    await until(lambda: got and outcomes, "the record and its report")
    assert outcomes == [Delivery(topic, 0, 0, None)]
    [record] = got
    assert (record.topic, record.partition, record.offset) == (topic, 0, 0)
    assert (record.key, record.value, record.headers) == (b"key \xff", b"value \x00", headers)
    assert record.header("record-id") == b"2"
    assert record.header("absent") is None
    assert (record.timestamp_ms is not None) == (broker.embedded is None)


async def test_a_record_goes_to_the_partition_it_is_sent_to(broker: Broker, client: Client, producer: Producer) -> None:
    topic = _requests(broker)
    got: list[Record] = []
    await client.tail({topic: Start()}, got.extend)
    for partition in range(topics.REQUEST_PARTITIONS):
        # The same key everywhere: a key must not overrule the partition that presence chose.
        producer.send(topic, bytes([partition]), key=b"same", partition=partition)
    await until(lambda: len(got) == topics.REQUEST_PARTITIONS, "a record of every partition")
    assert all(record.value == bytes([record.partition]) for record in got)


async def test_what_comes_right_after_start_is_not_lost(broker: Broker, client: Client, producer: Producer) -> None:
    topic = _response(broker)
    await written(producer, topic, [b"before"])
    for round_ in range(5):
        got: list[Record] = []
        tail = await client.tail({topic: End()}, got.extend)
        producer.send(topic, b"%d" % round_)
        await until(lambda got=got: got, "the record that came right after start")  # type: ignore[misc]
        assert [record.value for record in got] == [b"%d" % round_]
        await tail.close()


async def test_order_is_kept_within_a_partition(broker: Broker, client: Client, producer: Producer) -> None:
    topic = _response(broker)
    got: list[Record] = []
    await client.tail({topic: End()}, got.extend)
    values = [b"%d" % number for number in range(3000)]
    await written(producer, topic, values)
    await until(lambda: len(got) >= len(values), "all records")
    assert [record.value for record in got] == values
    assert [record.offset for record in got] == list(range(3000))


async def test_a_replay_knows_its_end(broker: Broker, client: Client, producer: Producer) -> None:
    topic = _response(broker)
    await written(producer, topic, [b"0", b"1", b"2"])
    everything: list[Record] = []
    replay = await client.tail({topic: Start()}, everything.extend)
    assert (replay.begin_at_start(topic), replay.end_at_start(topic)) == (0, 3)
    from_journal: list[Record] = []
    resumed = await client.tail({topic: At(2)}, from_journal.extend, OnLost.ERROR)
    assert (resumed.begin_at_start(topic), resumed.end_at_start(topic)) == (2, 3)
    at_end = await client.tail({topic: End()}, list[Record]().extend)
    assert at_end.begin_at_start(topic) == at_end.end_at_start(topic) == 3
    await until(lambda: len(everything) == 3 and from_journal, "the replays")
    assert [record.value for record in from_journal] == [b"2"]
    await written(producer, topic, [b"3"])
    marks = await replay.watermarks(topic)
    assert (marks.low, marks.high) == (0, 4)


async def test_one_reader_reads_several_topics(broker: Broker, client: Client, producer: Producer) -> None:
    first, second = topics.responses(broker.prefix, 0), topics.presence(broker.prefix)
    broker.create([first, second])
    await written(producer, first.name, [b"old"])
    got: list[Record] = []
    await client.tail({first.name: Start(), second.name: End()}, got.extend)
    await written(producer, second.name, [b"beat"])
    await until(lambda: len(got) == 2, "a record of each")
    assert {(record.topic, record.value) for record in got} == {(first.name, b"old"), (second.name, b"beat")}


async def test_an_offset_alone_is_no_position_in_many_partitions(broker: Broker, client: Client) -> None:
    topic = _requests(broker)
    with pytest.raises(BadInput, match="position"):
        await client.tail({topic: At(0)}, list[Record]().extend)


async def test_a_missing_topic_is_said_at_start(
    broker: Broker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.kafka.tail.MISSING_S", 1.0)
    _response(broker)
    with pytest.raises(Unavailable) as refused:
        await client.tail({f"{broker.prefix}signer.v1.resp77": End()}, list[Record]().extend)
    assert refused.value.code == "topic-missing"
    assert f"{broker.prefix}signer.v1.resp77" not in await client.admin().topics(), "asking must not make it"


async def test_a_record_to_a_missing_topic_fails_within_the_timeout(
    broker: Broker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "MESSAGE_TIMEOUT_MS", 1000)
    producer = client.producer()
    outcomes: list[Delivery] = []
    producer.send(f"{broker.prefix}nowhere", b"lost", on_delivery=outcomes.append)
    assert await producer.flush(8.0) == 0
    assert outcomes[0].error is not None


async def test_a_record_to_a_missing_partition_is_refused(broker: Broker, producer: Producer) -> None:
    topic = _response(broker)
    await written(producer, topic, [b"now the client knows the topic"])
    with pytest.raises(Unavailable) as refused:
        producer.send(topic, b"x", partition=1)
    assert refused.value.code == "topic-missing"
    assert producer.outstanding() == 0


async def test_the_largest_record_passes_and_one_byte_more_is_refused(
    broker: Broker, client: Client, producer: Producer
) -> None:
    topic = _response(broker)
    got: list[Record] = []
    await client.tail({topic: End()}, got.extend)
    largest = bytes(topics.MAX_RECORD_BYTES - 1024 - 8)
    producer.send(topic, largest, headers=[("name", b"text")])
    await until(lambda: got, "the largest record")
    assert got[0].value == largest
    with pytest.raises(BadInput) as refused:
        producer.send(topic, largest, headers=[("name", b"text1")])
    assert refused.value.code == "record-too-large"


async def test_flush_waits_for_every_outcome(broker: Broker, producer: Producer) -> None:
    topic = _response(broker)
    outcomes: list[Delivery] = []
    for _ in range(200):
        producer.send(topic, b"x", on_delivery=outcomes.append)
    assert producer.outstanding() == 200
    assert await producer.flush(WITHIN_S) == 0
    assert len(outcomes) == 200
    assert producer.outstanding() == 0


async def test_close_tells_the_outcome_of_what_is_outstanding(broker: Broker, client: Client) -> None:
    topic = _response(broker)
    producer = client.producer()
    outcomes: list[Delivery] = []
    for _ in range(50):
        producer.send(topic, b"x", on_delivery=outcomes.append)
    await producer.close()
    assert len(outcomes) == 50, "whoever waits for an outcome must get one"
    with pytest.raises(Unavailable) as refused:
        producer.send(topic, b"x")
    assert refused.value.code == "producer-closed"


async def test_partitions_are_shared_out_and_taken_back(broker: Broker, client: Client, producer: Producer) -> None:
    topic = _requests(broker)
    first = await client.member(topic, Member(), "seat-1")
    await until(lambda: len(first.held) == topics.REQUEST_PARTITIONS, "one member holds all")
    second = await client.member(topic, Member(), "seat-2")
    await until(lambda: len(first.held) == len(second.held) == 6, "two members hold half each")
    assert not first.held & second.held
    for partition in range(topics.REQUEST_PARTITIONS):
        producer.send(topic, b"%d" % partition, partition=partition)
    await until(lambda: len(first.records) + len(second.records) == 12, "each record once")
    assert {record.partition for record in first.records} == first.held
    assert {record.partition for record in second.records} == second.held


async def test_a_revoked_partition_is_let_go_after_its_work_and_with_its_offset(
    broker: Broker, client: Client, producer: Producer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "common.kafka.group")
    topic = _requests(broker)
    first = await client.member(topic, Member(finish=False))
    await until(lambda: len(first.held) == topics.REQUEST_PARTITIONS, "the first member holds all")
    for partition in range(topics.REQUEST_PARTITIONS):
        await written(producer, topic, [b"done", b"also done", b"left"], partition)
    await until(lambda: len(first.records) == 36, "everything is read")

    def finish_two(partitions: frozenset[int]) -> None:
        for partition in partitions:
            first.consumer.store(partition, 2)  # in the grace: what was in flight is finished now

    first.before_revoke = finish_two
    second = await client.member(topic, Member())
    await until(lambda: second.held and second.values().count(b"left") == len(second.held), "the newcomer reads on")
    assert first.revoked
    assert not first.lost
    if "offsets were not" in caplog.text:  # committed, or stored
        # The group was changing once more (on a machine that is slow enough), and the broker takes no commit then.
        assert second.values().count(b"done") == len(second.held), "done again rather than skipped"
    else:
        assert set(second.values()) == {b"left"}, "nothing finished is done again, nothing is skipped"


async def test_a_member_that_does_not_let_go_is_not_waited_for(
    broker: Broker, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    topic = _requests(broker)
    first = await client.member(topic, Member(), grace_s=0.2)
    first.never_lets_go = True
    await until(lambda: len(first.held) == topics.REQUEST_PARTITIONS, "the first member holds all")
    second = await client.member(topic, Member())
    await until(lambda: len(second.held) == 6, "the newcomer gets its share in spite of it")
    assert "outlived its grace" in caplog.text


async def test_what_was_not_stored_comes_again_after_a_restart(
    broker: Broker, client: Client, producer: Producer
) -> None:
    topic = _requests(broker)
    first = await client.member(topic, Member(finish=False), "seat-1")
    await until(lambda: len(first.held) == topics.REQUEST_PARTITIONS, "it holds all")
    await written(producer, topic, [b"0", b"1", b"2", b"3"], 5)
    await until(lambda: len(first.records) == 4, "everything is read")
    first.consumer.store(5, 2)
    await first.consumer.close()
    again = await client.member(topic, Member(), "seat-1")
    await until(lambda: len(again.records) >= 2, "the unfinished come again")
    assert again.values() == [b"2", b"3"]


async def test_offsets_are_committed_while_running(broker: Broker, client: Client, producer: Producer) -> None:
    topic = _requests(broker)
    member = await client.member(topic, Member())
    await until(lambda: len(member.held) == topics.REQUEST_PARTITIONS, "it holds all")
    await written(producer, topic, [b"0", b"1"], 7)
    await until(lambda: len(member.records) == 2, "both are read")
    began = time.monotonic()
    while await committed(broker.settings, topic, 7) != 2:
        assert time.monotonic() - began < WITHIN_S


async def test_a_paused_member_reads_nothing_and_stays_a_member(
    broker: Broker, client: Client, producer: Producer
) -> None:
    topic = _requests(broker)
    member = await client.member(topic, Member())
    await until(lambda: len(member.held) == topics.REQUEST_PARTITIONS, "it holds all")
    member.consumer.pause()
    await turned(client)
    await written(producer, topic, [b"later"], 3)
    await asyncio.sleep(1.0)
    assert not member.records
    member.consumer.resume()
    await until(lambda: member.records, "it reads on")
    assert member.values() == [b"later"]
    assert len(member.assigned) == 1


async def test_a_pause_holds_for_partitions_that_come_back(broker: Broker, client: Client, producer: Producer) -> None:
    topic = _requests(broker)
    first = await client.member(topic, Member(), "seat-1")
    await until(lambda: len(first.held) == topics.REQUEST_PARTITIONS, "the first holds all")
    second = await client.member(topic, Member(), "seat-2")
    await until(lambda: len(first.held) == len(second.held) == 6, "half each")
    first.consumer.pause()
    first.consumer.pause([0])  # by name too; "all" covers it
    await turned(client)
    third = await client.member(topic, Member(), "seat-3")
    await until(lambda: len(third.held) == 4, "a third each")
    coming = sorted(frozenset(range(12)) - first.held)
    for partition in sorted(first.held):
        await written(producer, topic, [b"paused"], partition)
    for partition in coming:
        await written(producer, topic, [b"flows"], partition)
    await until(lambda: len(second.records) + len(third.records) == 8, "the others read on")
    assert not first.records
    first.consumer.resume()
    await until(lambda: len(first.records) == 4, "it reads what waited")


async def test_a_pause_does_not_outlive_a_resume_while_a_partition_was_away(
    broker: Broker, client: Client, producer: Producer
) -> None:
    topic = _requests(broker)
    first = await client.member(topic, Member(), "seat-1")
    await until(lambda: len(first.held) == topics.REQUEST_PARTITIONS, "the first holds all")
    first.consumer.pause()
    await turned(client)
    second = await client.member(topic, Member(), "seat-2")
    await until(lambda: len(first.held) == len(second.held) == 6, "half each")
    first.consumer.resume()
    await second.consumer.close()
    await until(lambda: len(first.held) == topics.REQUEST_PARTITIONS, "it holds all again", 60.0)
    for partition in range(topics.REQUEST_PARTITIONS):
        await written(producer, topic, [b"x"], partition)
    await until(lambda: len(first.records) == topics.REQUEST_PARTITIONS, "it reads all of them")


async def test_a_delivery_proves_that_the_broker_is_up(
    broker: Broker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "STATISTICS_INTERVAL_MS", 300)
    producer = client.producer()
    assert not client.kafka.up(), "nothing is known yet"
    topic = _response(broker)
    await written(producer, topic, [b"x"])
    await until(client.kafka.up, "a delivery proves it")
    assert client.states == [True]
    await until(lambda: client.statistics, "statistics are passed on")


async def test_every_thread_beats_and_is_gone_after_close(broker: Broker, client: Client, producer: Producer) -> None:
    topic = _requests(broker)
    tail = await client.tail({topic: End()}, list[Record]().extend)
    member = await client.member(topic, Member())
    await until(lambda: len(client.kafka.heartbeats()) == 3, "three threads beat")
    await turned(client)
    started = time.monotonic()
    await member.consumer.close()
    await tail.close()
    await producer.close()
    assert time.monotonic() - started < 30.0
    assert client.kafka.heartbeats() == {}
    await member.consumer.close()  # twice does no harm
    await tail.close()
    await producer.close()


async def test_a_callback_that_raises_is_fatal_and_not_silent(
    broker: Broker, client: Client, producer: Producer
) -> None:
    topic = _response(broker)

    def broken(records: object) -> None:
        raise ValueError("broken")

    await client.tail({topic: End()}, broken)
    producer.send(topic, b"x")
    await until(lambda: client.fatal, "the fatal hook")
    client.expected_fatal = ["kafka-tail-1: deliver raised ValueError('broken')"]


async def test_what_was_in_hand_comes_again_after_a_crash(broker: Broker, client: Client, producer: Producer) -> None:
    topic = _requests(broker)
    await written(producer, topic, [b"0", b"1", b"2"], 4)
    # A process of its own, killed: nothing is closed in order, nothing is committed but what it had stored.
    command = [
        sys.executable,
        "-m",
        "tests.kafka.crashing_member",
        json.dumps(broker.arguments()),
        topic,
        "4",
        "3",
        "1",
    ]
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert await asyncio.wait_for(child.stdout.readline(), 30.0) == b"read\n"
        await until_async(lambda: committed(broker.settings, topic, 4), 1)
    finally:
        child.kill()
        await child.wait()
    again = await client.member(topic, Member(), "seat-1")
    await until(lambda: len(again.records) >= 2, "the unfinished come again")
    assert again.values() == [b"1", b"2"]


async def test_rubbish_in_a_record_harms_nobody(broker: Broker, client: Client, producer: Producer) -> None:
    topic = _response(broker)
    got: list[Record] = []
    await client.tail({topic: End()}, got.extend)
    rubbish.write(broker.settings.bootstrap, topic)
    await written(producer, topic, [b"next"])
    await until(lambda: got and got[-1].value == b"next", "the record after the rubbish")
    assert [(record.value, record.headers) for record in got] == [
        (b"", ()),  # a null value
        (b"bad header name", ()),
        (b"null header", (("name", b""),)),
        (b"next", ()),
    ]
