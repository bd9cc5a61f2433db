"""A member of the group that holds its partitions and reads nothing, and all that only looks like it."""

from collections.abc import Iterator
from typing import cast

import pytest

from common.kafka import owner, standstill
from common.kafka import producer as real_producer
from common.kafka.embedded import EmbeddedBroker
from common.kafka.group import RealGroup
from common.kafka.port import Producer
from common.kafka.standstill import LOOK_MOST_S, LOOK_S, Standstill
from common.wire import topics
from tests.brokers import Broker, until
from tests.kafka.members import Client, Member, turned, written

REQUESTS = topics.requests("").name
ONE = frozenset({3})


def looks(watched: Standstill, *stands_at: int | None) -> list[bool]:
    """Each time that it is due, partition 3 is found in the next of these places."""
    shown = []
    for at in stands_at:
        while watched.due(1.0, ONE) is None:
            pass
        shown.append(watched.looked(3, at))
    return shown


def test_a_partition_that_stands_before_records_at_two_looks_in_a_row_is_stuck() -> None:
    assert looks(Standstill(), 7, 7) == [False, True]
    assert looks(Standstill(), 7, 8, 9) == [False] * 3, "it goes on"
    assert looks(Standstill(), None, None, 7, None, 7) == [False] * 5, "there was nothing to read in between"


def test_two_looks_are_far_apart_and_further_with_each_client_until_the_partition_is_read() -> None:
    watched = Standstill()
    took: list[float] = []
    for _ in range(8):
        seconds = 0.0
        stuck = False
        while not stuck:
            seconds += 1.0
            if watched.due(1.0, ONE) == 3:
                stuck = watched.looked(3, 7)
        took.append(seconds)
        watched.disturbed()
    # The first second is that in which it comes.
    assert took == [1 + 2 * min(LOOK_S * 2**number, LOOK_MOST_S) for number in range(8)]
    watched.read(4)
    assert watched.due(2 * LOOK_S, ONE) is None, "another partition shows nothing of this one"
    watched.read(3)
    assert watched.due(LOOK_S, ONE) == 3


def test_each_partition_has_its_look_however_many_there_are() -> None:
    watched, all_ = Standstill(), frozenset(range(12))
    due = [watched.due(LOOK_S / 4, all_) for _ in range(4)]
    assert due == [None] * 4, "none has been there for long"
    seen = []
    for _ in range(12):
        number = watched.due(LOOK_S / 4, all_)
        assert number is not None
        watched.looked(number, None)
        seen.append(number)
    assert sorted(seen) == sorted(all_)


@pytest.mark.parametrize("what", ["a pause", "a rebalance", "a record"])
def test_what_happens_between_two_looks_begins_the_looking_anew(what: str) -> None:
    watched = Standstill()
    assert looks(watched, 7) == [False]
    if what == "a pause":
        watched.disturbed()
    elif what == "a rebalance":
        watched.due(0.1, frozenset())
    else:
        watched.read(3)
    assert looks(watched, 7, 7) == [False, True]


@pytest.fixture
def broker() -> Iterator[Broker]:
    """The embedded one: here a member is let in again within a second."""
    with EmbeddedBroker() as made:
        made.create_topics(topics.all_topics("", 1, 1))
        yield Broker(made.settings("test"), made)


async def reading(client: Client, producer: Producer) -> Member:
    """A member that holds all partitions, and has read what was written to one."""
    member = await client.member(REQUESTS, Member())
    await until(lambda: len(member.held) == topics.REQUEST_PARTITIONS, "it holds all")
    await written(producer, REQUESTS, [b"read"], 3)
    await until(lambda: member.records, "it reads")
    return member


@pytest.mark.anyio
async def test_a_member_whose_client_sticks_while_it_holds_its_partitions_reads_on_with_a_new_one(
    broker: Broker,
    client: Client,
    producer: Producer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(standstill, "LOOK_S", 0.3)
    member = await reading(client, producer)
    real = cast("RealGroup", member.consumer)

    def stick() -> None:
        # Asked for behind the back of the member: its client fetches no more, and says nothing.
        real.consumer.pause([real._at(number) for number in range(topics.REQUEST_PARTITIONS)])

    await real.ask(stick, 20.0)
    await written(producer, REQUESTS, [b"waits"], 3)  # of this one something was read before
    await written(producer, REQUESTS, [b"waits"], 5)
    await until(lambda: sorted(member.values()) == [b"read", b"waits", b"waits"], "what waits is read", 60.0)
    assert "has records, and none came for long" in caplog.text
    assert not client.fatal


@pytest.mark.anyio
async def test_a_member_that_is_paused_or_has_read_all_keeps_its_client(
    broker: Broker,
    client: Client,
    producer: Producer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(owner, "POLL_S", 0.01)
    monkeypatch.setattr(real_producer, "_POLL_S", 0.01)
    member = await reading(client, producer)
    monkeypatch.setattr(standstill, "LOOK_S", 0.0)  # a look at each turn
    for _ in range(2 * topics.REQUEST_PARTITIONS):
        await turned(client)
    member.consumer.pause()
    await written(producer, REQUESTS, [b"waits"], 3)
    for _ in range(2 * topics.REQUEST_PARTITIONS):
        await turned(client)
    monkeypatch.setattr(standstill, "LOOK_S", LOOK_S)
    member.consumer.resume()
    await until(lambda: member.values() == [b"read", b"waits"], "it reads on")
    assert not member.lost
    assert "with a new client" not in caplog.text
