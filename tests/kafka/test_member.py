"""A member of the group whose client library does its worst."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import cast

import pytest
from confluent_kafka import KafkaError

from common.kafka import group, owner
from common.kafka.embedded import EmbeddedBroker
from common.kafka.port import Producer
from common.kafka.settings import KafkaSettings
from common.wire import topics
from tests.brokers import Broker, until
from tests.kafka.members import Client, Member, turned, written
from tests.kafka.scripted import Message, Scripted, Step

pytestmark = pytest.mark.anyio

HEARTBEAT, UNKNOWN_MEMBER = 12, 25
GRACE_S = 0.05


def does(act: Callable[[Scripted], None], message: Message | None = None) -> Step:
    """A poll in which something happens, and then nothing or a record comes."""

    def step(consumer: Scripted) -> Message | None:
        act(consumer)
        return message

    return step


@pytest.fixture
async def scripted(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """A process whose member has a scripted client, and whose broker answers."""
    monkeypatch.setattr(owner, "Consumer", Scripted)
    monkeypatch.setattr(Scripted, "made", [])
    Scripted.steps.clear()
    client = Client(KafkaSettings("127.0.0.1:1", "test"))
    client.kafka._connection.tell("somebody", True)
    yield client
    Scripted.steps.clear()
    await client.close()
    assert client.fatal == client.expected_fatal


async def test_a_record_that_comes_in_the_poll_in_which_its_partition_went_and_came_back_is_delivered(
    scripted: Client,
) -> None:
    def back_at_once(consumer: Scripted) -> None:
        consumer.lose(3)
        consumer.assign(3)

    # A static member is let in again within milliseconds, and the first record is there before the poll is over.
    Scripted.steps.extend([does(lambda it: it.assign(3)), does(back_at_once, Message(3, 7))])
    member = await scripted.member("signer.v1", Member())
    await until(lambda: member.records, "it is not fetched a second time")
    assert (member.assigned, member.lost) == ([frozenset({3})] * 2, [frozenset({3})])


async def test_a_record_of_a_partition_that_goes_behind_it_in_its_batch_is_not_delivered(
    scripted: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loses_the_first(consumer: Scripted, count: int, timeout: float) -> list[Message]:
        consumer.lose(3)
        return [Message(4, 0)]

    monkeypatch.setattr(Scripted, "consume", loses_the_first)
    Scripted.steps.extend([does(lambda it: it.assign(3, 4)), does(lambda _: None, Message(3, 7))])
    member = await scripted.member("signer.v1", Member())
    await until(lambda: member.records, "the other one")
    assert [record.partition for record in member.records] == [4]


async def test_who_does_not_let_go_within_the_grace_is_told_that_it_is_gone_before_it_comes_again(
    scripted: Client,
) -> None:
    Scripted.steps.extend(does(act) for act in (lambda it: it.assign(3), lambda it: it.revoke(3)))
    member = Member()
    member.never_lets_go = True
    await scripted.member("signer.v1", member, grace_s=GRACE_S)
    await until(lambda: member.lost == [frozenset({3})], "it is told")
    assert member.revoked == [frozenset({3})]
    assert not member.held
    Scripted.steps.append(does(lambda it: it.assign(3)))
    await until(lambda: len(member.assigned) == 2, "it comes again")
    await turned(scripted)
    assert member.held == {3}, "what was given up does not take it away"


async def test_nothing_is_delivered_after_a_close_that_gave_up_on_a_client_which_does_not_end(scripted: Client) -> None:
    fetched = threading.Event()

    def late(consumer: Scripted) -> Message:
        assert fetched.wait(20.0)
        return Message(3, 0)

    member = await scripted.member("signer.v1", Member())
    real = cast("group.RealGroup", member.consumer)
    Scripted.steps.extend([does(lambda it: it.assign(3)), late])
    await until(lambda: not Scripted.steps, "it waits in the client library")
    real._close_s = 0.0
    await real.close()
    fetched.set()
    await until(real._ended.is_set, "the thread ends after all")
    assert not member.records


@pytest.mark.parametrize("way", [Scripted.lose, Scripted.revoke])
async def test_who_resumes_while_a_partition_is_away_reads_it_when_it_comes_back(
    scripted: Client, way: Callable[..., None]
) -> None:
    member = await scripted.member("signer.v1", Member())
    Scripted.steps.append(does(lambda it: it.assign(3, 4)))
    await until(lambda: member.assigned, "it holds both")
    member.consumer.pause()
    await turned(scripted)
    Scripted.steps.append(does(lambda it: way(it, 3)))
    await until(lambda: member.held == {4}, "one goes")
    assert Scripted.made[0].paused == {4}
    member.consumer.resume()
    await turned(scripted)
    Scripted.steps.append(does(lambda it: it.assign(3)))
    await until(lambda: member.held == {3, 4}, "it comes back")
    assert Scripted.made[0].paused == set()


async def test_what_is_finished_of_a_topic_that_was_made_again_is_stored_and_nothing_of_the_one_before(
    scripted: Client, caplog: pytest.LogCaptureFixture
) -> None:
    member = await scripted.member("signer.v1", Member(finish=False))
    Scripted.steps.extend([does(lambda it: it.assign(3)), does(lambda _: None, Message(3, 40))])
    await until(lambda: member.records, "the first topic is read")
    member.consumer.store(3, 41)
    await turned(scripted)
    Scripted.steps.append(does(lambda _: None, Message(3, 41)))
    Scripted.steps.append(does(lambda _: None, Message(3, 0)))  # no rebalance tells of it
    await until(lambda: len(member.records) == 3, "the second topic is read")
    member.consumer.store(3, 42)
    await turned(scripted)
    member.consumer.store(3, 1)
    await turned(scripted)
    assert Scripted.made[0].stored == [(3, 41), (3, 1)]
    assert "signer.v1 was made again, or cut: partition 3 goes on from 0, and was read up to 42" in caplog.text


class Joins:
    """When the member joined, on a clock that each ``wait`` puts on by half a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.at = 0.0, list[float]()
        monkeypatch.setattr(group, "time", SimpleNamespace(monotonic=lambda: self.now))
        opening = group.RealGroup.opening

        def noted(member: group.RealGroup) -> None:
            self.at.append(round(self.now))
            opening(member)

        monkeypatch.setattr(group.RealGroup, "opening", noted)

    def wait(self, consumer: Scripted) -> None:
        self.now += 0.5


async def test_a_member_that_is_not_let_in_joins_anew_each_time_later_and_its_own_echo_does_not_end_it(
    scripted: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    joins = Joins(monkeypatch)
    # Nothing was ever lost: a broker that goes while somebody joins for the first time makes it as silent.
    Scripted.steps.extend([does(joins.wait)] * 200)
    fenced = KafkaError(KafkaError._FATAL, "Static consumer fenced by other consumer", fatal=True)
    Scripted.steps.extend([lambda _: Message(0, 0, fenced), does(lambda it: it.assign(3))])
    member = await scripted.member("signer.v1", Member())
    await until(lambda: member.held == {3} or scripted.fatal, "it is let in")
    assert not scripted.fatal, "the client that was given up had asked, too"
    assert joins.at == [0, 20, 60, 100]


async def test_a_member_of_which_nothing_is_heard_after_it_gave_a_partition_away_joins_anew(
    scripted: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    joins = Joins(monkeypatch)
    Scripted.steps.extend([does(lambda it: it.assign(3, 4)), *[does(joins.wait)] * 100, does(lambda it: it.revoke(3))])
    Scripted.steps.extend([*[does(joins.wait)] * 41, does(lambda it: it.assign(3, 4))])
    member = await scripted.member("signer.v1", Member())
    await until(lambda: len(member.assigned) == 2, "it is let in again")
    assert joins.at == [0, 70]
    assert (member.revoked, member.lost) == ([frozenset({3})], [frozenset({4})])


@pytest.fixture
def broker() -> Iterator[Broker]:
    """In place of the one that runs on both: this one forgets a member on demand."""
    with EmbeddedBroker() as made:
        made.create_topics(topics.all_topics("", 1, 1))
        yield Broker(made.settings("test"), made)


async def test_what_is_resumed_while_all_was_lost_is_read_by_the_real_client(
    broker: Broker, client: Client, producer: Producer
) -> None:
    name = topics.requests("").name
    member = await client.member(name, Member())
    await until(lambda: len(member.held) == topics.REQUEST_PARTITIONS, "it holds all")
    member.consumer.pause()
    await turned(client)
    assert broker.embedded is not None
    broker.embedded.push_errors(HEARTBEAT, [UNKNOWN_MEMBER])
    await until(lambda: member.lost, "the loss")
    member.consumer.resume()
    await until(lambda: len(member.held) == topics.REQUEST_PARTITIONS, "it holds all again")
    await written(producer, name, [b"x"], 5)
    await until(lambda: member.records, "it reads")
