"""What a broker can do to us, injected into the embedded one."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError

from common.errors import Bug, Unavailable
from common.kafka import options, owner
from common.kafka.embedded import EmbeddedBroker
from common.kafka.group import RealGroup
from common.kafka.owner import Owner
from common.kafka.port import At, Delivery, End, OnLost, Producer, Record, Start, Watermarks
from common.wire import topics
from tests.brokers import Broker, until, until_async
from tests.kafka.members import Client, Member, turned, written

pytestmark = pytest.mark.anyio

LIST_OFFSETS, HEARTBEAT, INIT_PRODUCER_ID = 2, 12, 22
NOT_LEADER, REQUEST_TIMED_OUT, COORDINATOR_LOADING, UNKNOWN_MEMBER, CLUSTER_DENIED = 6, 7, 14, 25, 31
FENCED = 82


@pytest.fixture
def cluster() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as made:
        made.create_topics(topics.all_topics("", 1, 1))
        yield made


@pytest.fixture
def broker(cluster: EmbeddedBroker) -> Broker:
    """In place of the one that runs on both: faults can only be injected here."""
    return Broker(cluster.settings("test"), cluster)


RESPONSES = topics.responses("", 0).name
REQUESTS = topics.requests("").name


async def test_a_broker_that_goes_is_said_and_one_that_returns_is_used_again(
    cluster: EmbeddedBroker, client: Client, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[Record] = []
    await client.tail({RESPONSES: End()}, got.extend)
    await written(producer, RESPONSES, [b"before"])
    await until(lambda: client.states == [True], "up")
    cluster.set_down()
    await until(lambda: client.states == [True, False], "down")
    assert not client.kafka.up()
    outcomes: list[Delivery] = []
    producer.send(RESPONSES, b"meanwhile", on_delivery=outcomes.append)
    cluster.set_up()
    await until(lambda: client.states == [True, False, True], "up again")
    await until(lambda: len(got) == 2 and outcomes, "what was sent meanwhile")
    assert outcomes[0].error is None
    assert [record.value for record in got] == [b"before", b"meanwhile"]


async def test_an_idle_client_learns_from_statistics_that_the_broker_is_back(
    cluster: EmbeddedBroker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "STATISTICS_INTERVAL_MS", 300)
    await client.tail({RESPONSES: End()}, list[Record]().extend)
    await until(client.kafka.up, "up")
    cluster.set_down()
    await until(lambda: not client.kafka.up(), "down")
    cluster.set_up()
    await until(client.kafka.up, "up, with no record and no delivery")


async def test_an_outage_is_an_error_within_the_message_timeout(
    cluster: EmbeddedBroker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "MESSAGE_TIMEOUT_MS", 1500)
    producer = client.producer()
    await written(producer, RESPONSES, [b"x"])
    cluster.set_down()
    outcomes: list[Delivery] = []
    producer.send(RESPONSES, b"lost", on_delivery=outcomes.append)
    began = time.monotonic()
    await until(lambda: outcomes, "the outcome")
    assert "_MSG_TIMED_OUT" in str(outcomes[0].error)
    assert time.monotonic() - began < 20.0
    cluster.set_up()

    # An idempotent producer that gave up on a record has to find a new sequence, not end. Until it has found the broker
    # again, which may take longer than its records live here, it gives up on others.
    async def goes_on() -> bool:
        again: list[Delivery] = []
        producer.send(RESPONSES, b"after", on_delivery=again.append)
        await until(lambda: again, "the outcome of a later one")
        return again[0].error is None

    await until_async(goes_on, True)


async def test_a_full_queue_is_backpressure_and_flush_and_close_are_bounded(
    cluster: EmbeddedBroker, client: Client, producer: Producer
) -> None:
    await written(producer, RESPONSES, [b"x"])
    cluster.set_down()
    outcomes: list[Delivery] = []

    def fill() -> None:
        for _ in range(10_000):
            producer.send(RESPONSES, bytes(100_000), on_delivery=outcomes.append)

    with pytest.raises(Unavailable) as full:
        fill()
    accepted = producer.outstanding()
    assert full.value.code == "producer-full"
    assert full.value.retry_after_s is not None
    assert 300 < accepted < 400, "32 MiB of 100 kB"
    began = time.monotonic()
    assert await producer.flush(0.3) == accepted
    assert time.monotonic() - began < 10.0
    await producer.close()
    assert time.monotonic() - began < 20.0
    assert len(outcomes) == accepted
    assert all(outcome.error is not None for outcome in outcomes)


async def test_a_topic_without_leader_yet_is_waited_for(cluster: EmbeddedBroker, client: Client) -> None:
    cluster.push_errors(LIST_OFFSETS, [NOT_LEADER] * 3)
    tail = await client.tail({RESPONSES: End()}, list[Record]().extend)
    assert tail.end_at_start(RESPONSES) == 0


async def test_a_coordinator_that_is_loading_does_not_stop_a_producer(cluster: EmbeddedBroker, client: Client) -> None:
    cluster.push_errors(INIT_PRODUCER_ID, [COORDINATOR_LOADING] * 2)
    await written(client.producer(), RESPONSES, [b"x"])


async def test_a_fatal_producer_error_ends_the_process_and_sends_nothing_more(
    cluster: EmbeddedBroker, client: Client
) -> None:
    cluster.push_errors(INIT_PRODUCER_ID, [CLUSTER_DENIED] * 2)
    producer = client.producer()
    producer.send(RESPONSES, b"x")
    await until(lambda: client.fatal, "the fatal hook")
    assert "CLUSTER_AUTHORIZATION_FAILED" in client.fatal[0]
    client.expected_fatal = client.fatal
    with pytest.raises(Unavailable) as refused:
        producer.send(RESPONSES, b"x")
    assert refused.value.code == "producer-fatal"
    assert await producer.flush(5.0) == 0, "whoever waits for an outcome gets one"


async def test_start_gives_up_when_nobody_is_there(
    cluster: EmbeddedBroker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.kafka.tail.START_S", 1.0)
    cluster.set_down()
    with pytest.raises(Unavailable) as refused:
        await client.tail({RESPONSES: End()}, list[Record]().extend)
    assert refused.value.code == "broker-unreachable"
    assert client.kafka.heartbeats() == {}, "its thread is gone too"


async def test_of_a_lost_partition_nothing_is_committed(
    cluster: EmbeddedBroker, client: Client, producer: Producer
) -> None:
    member = await client.member(REQUESTS, Member(finish=False))
    await until(lambda: len(member.held) == topics.REQUEST_PARTITIONS, "it holds all")
    await written(producer, REQUESTS, [b"0", b"1"], 2)
    await until(lambda: len(member.records) == 2, "both are read")
    cluster.push_errors(HEARTBEAT, [UNKNOWN_MEMBER])
    await until(lambda: member.lost, "the loss")
    member.consumer.store(2, 2)
    assert not member.revoked
    await until(lambda: len(member.held) == topics.REQUEST_PARTITIONS, "it holds all again")
    await until(lambda: len(member.records) == 4, "both come again: nobody has committed them")


async def test_a_member_that_lost_its_partitions_and_does_not_come_back_joins_with_a_new_client(
    cluster: EmbeddedBroker,
    client: Client,
    producer: Producer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("common.kafka.group.REJOIN_S", 1.0)
    member = await client.member(REQUESTS, Member())
    await until(lambda: len(member.held) == topics.REQUEST_PARTITIONS, "it holds all")
    real = cast("RealGroup", member.consumer)

    def forget_the_group() -> None:
        # What was seen of the client library after a restart of the broker: the loss is told, and no more is asked.
        lost = frozenset(real._held)
        real._outside_s = 0.0
        real._let_go(lost)
        real.connection.post(real._tell_lost, lost)
        real.consumer.unsubscribe()

    await real.ask(forget_the_group, 20.0)
    await until(lambda: member.lost and not member.held, "the loss")
    await until(lambda: len(member.held) == topics.REQUEST_PARTITIONS, "it holds all again", 60.0)
    assert "the group says nothing" in caplog.text
    await written(producer, REQUESTS, [b"x"], 3)
    await until(lambda: member.records, "a record")


async def back_after_a_loss(cluster: EmbeddedBroker, client: Client) -> Member:
    """A member that the group forgot, so that it lost its partitions, and that has them again."""
    member = await client.member(REQUESTS, Member())
    await until(lambda: len(member.held) == topics.REQUEST_PARTITIONS, "it holds all")
    cluster.push_errors(HEARTBEAT, [UNKNOWN_MEMBER])
    await until(lambda: member.lost, "the loss")
    await until(lambda: len(member.held) == topics.REQUEST_PARTITIONS, "it holds all again")
    await until(lambda: cast("RealGroup", member.consumer)._lost_at is not None, "the loss is no longer a recent one")
    return member


async def test_who_is_fenced_after_he_lost_his_partitions_joins_anew_and_who_is_fenced_again_ends(
    cluster: EmbeddedBroker, client: Client, producer: Producer
) -> None:
    member = await back_after_a_loss(cluster, client)
    cluster.push_errors(HEARTBEAT, [FENCED])
    await until(lambda: len(member.lost) >= 2, f"the second loss, after {member.lost}")
    await until(lambda: len(member.held) == topics.REQUEST_PARTITIONS, "it holds all for the third time")
    await written(producer, REQUESTS, [b"x"], 4)
    await until(lambda: member.records, "a record")
    assert not client.fatal
    cluster.push_errors(HEARTBEAT, [FENCED])
    await until(lambda: client.fatal, "it is told that it is fenced")
    assert "fenced" in client.fatal[0]
    client.expected_fatal = client.fatal


class _Late(Consumer):
    """A Consumer whose fetch of what came with a record takes until it is told that it is fenced."""

    waits = threading.Event()
    as_error: Any = None

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Any]:
        got = list(super().consume(num_messages, timeout))
        bound = time.monotonic() + 20.0
        while self.waits.is_set() and time.monotonic() < bound:
            got += super().consume(num_messages, 0.1)
            if any((error := each.error()) is not None and error.code() == KafkaError._FATAL for each in got):
                # librdkafka 2.16 tells a consumer of it by this message alone, a producer by error_cb alone.
                _Late.as_error(KafkaError(FENCED, "Static consumer fenced", fatal=True))
                self.waits.clear()
        return got


async def test_who_is_told_twice_of_one_fence_behind_a_record_joins_anew(
    cluster: EmbeddedBroker, client: Client, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "Consumer", _Late)
    member = await back_after_a_loss(cluster, client)
    monkeypatch.setattr(_Late, "as_error", cast("RealGroup", member.consumer)._on_error)
    _Late.waits.set()
    await written(producer, REQUESTS, [b"x"], 4)
    cluster.push_errors(HEARTBEAT, [FENCED])
    await until(lambda: not _Late.waits.is_set(), "it is told, twice", 30.0)
    await until(lambda: member.records or client.fatal, "the record, by a new client", 30.0)
    assert not client.fatal
    await until(lambda: len(member.held) == topics.REQUEST_PARTITIONS, "it holds all for the third time")
    await written(producer, REQUESTS, [b"y"], 4)
    await until(lambda: member.records[-1].value == b"y", "and it is still that client")
    assert not client.fatal


async def test_a_position_that_is_gone_goes_on_from_the_first_kept(
    cluster: EmbeddedBroker, client: Client, producer: Producer
) -> None:
    for number in range(5):
        await written(producer, RESPONSES, [b"%d" % number])  # a batch each: retention drops whole batches
    cluster.delete_records(RESPONSES, 0, 3)
    got: list[Record] = []
    await client.tail({RESPONSES: At(1)}, got.extend)
    await until(lambda: len(got) == 2, "what is kept")
    assert [record.value for record in got] == [b"3", b"4"]
    replay = await client.tail({RESPONSES: Start()}, list[Record]().extend)
    assert (replay.begin_at_start(RESPONSES), replay.end_at_start(RESPONSES)) == (3, 5)


async def test_a_position_that_is_gone_is_said_where_silence_would_mean_another_history(
    cluster: EmbeddedBroker, client: Client, producer: Producer
) -> None:
    await written(producer, RESPONSES, [b"0"])
    got: list[Record] = []
    lost: list[str] = []
    await client.tail(
        {RESPONSES: At(7)}, got.extend, OnLost.ERROR, lambda topic, detail: lost.append(f"{topic} {detail}")
    )
    await until(lambda: lost, "the reset error")
    assert lost[0].startswith(f"{RESPONSES} _AUTO_OFFSET_RESET")
    await written(producer, RESPONSES, [b"1"])
    await turned(client)
    assert not got


async def test_the_reader_does_not_run_ahead_of_a_busy_event_loop(
    cluster: EmbeddedBroker, client: Client, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(producer, RESPONSES, [b"%d" % number for number in range(5000)])
    handed: list[int] = []
    undelivered: list[int] = []
    count = {"handed": 0, "done": 0}
    hand_over = Owner._hand_over

    def counted(self: Owner, records: Sequence[Record]) -> bool:
        done = hand_over(self, records)
        count["handed"] += 1
        handed.append(count["handed"])
        return done

    def slow(records: Sequence[Record]) -> None:
        time.sleep(0.15)  # the loop is to be busy
        undelivered.append(count["handed"] - count["done"])
        count["done"] += 1

    monkeypatch.setattr(Owner, "_hand_over", counted)
    monkeypatch.setattr(owner, "BATCH", 200)
    await client.tail({RESPONSES: Start()}, slow)
    await until(lambda: count["done"] >= 15, "enough batches")
    assert max(undelivered) <= owner.MAX_BATCHES


class SpyingConsumer(Consumer):
    """Writes down in which thread each of its methods is called."""

    calls: list[tuple[int, str, str]] = []  # noqa: RUF012 - one list for all, on purpose

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("__"):
            SpyingConsumer.calls.append((id(self), name, threading.current_thread().name))
        return super().__getattribute__(name)


async def test_a_consumer_is_only_touched_by_its_owner_thread(
    cluster: EmbeddedBroker, client: Client, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "Consumer", SpyingConsumer)
    SpyingConsumer.calls.clear()
    tail = await client.tail({RESPONSES: End()}, list[Record]().extend)
    await tail.watermarks(RESPONSES)
    first = await client.member(REQUESTS, Member())
    await until(lambda: first.held, "a member")
    await written(producer, REQUESTS, [b"x"], 1)
    await until(lambda: first.records, "a record")
    first.consumer.pause()
    await turned(client)
    first.consumer.resume([1])
    second = await client.member(REQUESTS, Member())
    await until(lambda: second.held, "a rebalance")
    await client.close()
    touched = sorted({(consumer, thread) for consumer, _, thread in SpyingConsumer.calls}, key=lambda pair: pair[1])
    assert [thread for _, thread in touched] == ["kafka-group-1", "kafka-group-2", "kafka-tail-1"]
    assert len({consumer for consumer, _ in touched}) == 3
    called = {name for _, name, _ in SpyingConsumer.calls}
    assert {"poll", "consume", "assign", "subscribe", "pause", "resume", "store_offsets", "commit", "close"} <= called


async def test_a_question_that_a_running_reader_gets_no_answer_to_is_asked_again(
    cluster: EmbeddedBroker, client: Client
) -> None:
    tail = await client.tail({RESPONSES: End()}, list[Record]().extend)
    cluster.push_errors(LIST_OFFSETS, [REQUEST_TIMED_OUT] * 30)
    assert await tail.watermarks(RESPONSES) == Watermarks(0, 0)


async def test_a_consumer_refuses_any_other_thread(cluster: EmbeddedBroker, client: Client) -> None:
    tail = await client.tail({RESPONSES: End()}, list[Record]().extend)
    assert isinstance(tail, Owner)
    with pytest.raises(Bug, match="owner thread"):
        _ = tail.consumer


async def test_a_thread_that_dies_says_so(
    cluster: EmbeddedBroker, client: Client, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(message: object) -> Record:
        raise ValueError("a bug")

    monkeypatch.setattr(owner, "_record", broken)
    await client.tail({RESPONSES: End()}, list[Record]().extend)
    producer.send(RESPONSES, b"x")
    await until(lambda: client.fatal, "the fatal hook")
    client.expected_fatal = ["kafka-tail-1: ValueError('a bug')"]
    beat = client.kafka.heartbeats()["kafka-tail-1"]
    await asyncio.sleep(0.3)
    assert client.kafka.heartbeats()["kafka-tail-1"] == beat, "liveness sees that it no longer turns"


async def test_the_embedded_broker_makes_no_topics_for_others(broker: Broker, client: Client) -> None:
    admin = client.admin()
    there = topics.all_topics("", 1, 1)
    ensured = await admin.ensure(there)
    assert ensured.created == ()
    assert ensured.differences == ()
    with pytest.raises(Unavailable) as refused:
        await admin.ensure([topics.responses("", 5)])
    assert refused.value.code == "topic-missing"
    assert [difference.what for difference in await admin.describe([topics.responses("", 5)])] == ["existence"]


def test_a_closed_embedded_broker_says_so() -> None:
    made = EmbeddedBroker()
    made.close()
    made.close()
    with pytest.raises(Bug, match="closed"):
        made.create_topic("x", 1)


def test_a_topic_is_made_once(cluster: EmbeddedBroker) -> None:
    with pytest.raises(Unavailable) as refused:
        cluster.create_topic(REQUESTS, 12)
    assert refused.value.code == "topic-create"
