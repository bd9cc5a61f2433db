"""A ceremony log whose reader alone sticks: beats are heard, signing goes on, and the seat is missing in ceremonies."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest

from common.kafka.port import TailConsumer, Watermarks
from common.kafka.tail import RealTail
from common.wire import topics
from signer_service.protocol.machine import RefreshAsked
from signer_service.shell import unread
from signer_service.shell.runner import Replica
from signer_service.shell.unread import Sight, Unread
from tests.brokers import Broker, apache, broker, made_again, until
from tests.shell.in_process import replicas
from tests.shell.road import DEFAULT, Pod, Signers
from tests.shell.test_erasure import may_refresh, refresh_request
from tests.system.replicas import provisioned

__all__ = ["apache", "broker"]


def test_a_reader_is_renewed_that_reads_nothing_from_one_look_to_the_next_although_there_is_something() -> None:
    looks = Unread()
    assert [looks.looked(7, 9), looks.looked(7, 9)] == [Sight.WELL, Sight.STUCK]
    assert [looks.looked(7, 9), looks.looked(7, 12)] == [Sight.WELL, Sight.STUCK], "a new client gets as much time"


def test_a_reader_is_left_alone_that_goes_on_or_has_read_all() -> None:
    looks = Unread()
    assert {looks.looked(offset, 100) for offset in range(50)} == {Sight.WELL}
    assert {looks.looked(100, 100) for _ in range(9)} == {Sight.WELL}
    assert looks.looked(100, 101) is Sight.WELL, "that one has come since the last look"
    assert looks.looked(101, 102) is Sight.WELL


def test_a_log_that_is_shorter_than_what_was_read_of_it_at_two_looks_is_another_one() -> None:
    looks = Unread()
    assert [looks.looked(60, 0), looks.looked(60, 0)] == [Sight.WELL, Sight.LOST]
    again = Unread()
    assert [again.looked(60, 59), again.looked(60, 60), again.looked(60, 59)] == [Sight.WELL] * 3, "it was late"


class Asker:
    """A client that answers at once where the log ends, while its reader reads on."""

    def __init__(self, ends: list[int], meanwhile: Callable[[], None] = lambda: None) -> None:
        self.ends = ends
        self.meanwhile = meanwhile
        self.asked_for_more = asyncio.Event()

    async def watermarks(self, topic: str, partition: int = 0) -> Watermarks:
        if not self.ends:
            self.asked_for_more.set()
            await asyncio.Event().wait()
        self.meanwhile()
        return Watermarks(0, self.ends.pop(0))


async def watched(asker: Asker, next_offset: Callable[[], int]) -> list[str]:
    """What is told until all answers of ``asker`` are given; nobody may stop looking before."""
    told: list[str] = []
    looking = asyncio.create_task(
        unread.watch(
            cast("TailConsumer", asker),
            "log",
            next_offset,
            lambda: told.append("stuck"),
            lambda at, end: told.append(f"lost at {at}, ends at {end}"),
            0.001,
        )
    )
    enough = asyncio.create_task(asker.asked_for_more.wait())
    await asyncio.wait((looking, enough), return_when=asyncio.FIRST_COMPLETED)
    assert not looking.done(), "a task that ends is a dead replica to the liveness probe"
    looking.cancel()
    return told


@pytest.mark.anyio
async def test_a_lost_log_is_told_and_looked_at_on_so_that_the_replica_lives_and_signs() -> None:
    assert await watched(Asker([9, 0, 0, 0]), lambda: 9) == ["lost at 9, ends at 0"] * 2


@pytest.mark.anyio
async def test_what_is_read_while_the_answer_is_under_way_does_not_make_the_log_shorter() -> None:
    read = [0]

    def one_more() -> None:
        read[0] += 1

    assert await watched(Asker([0, 1, 2, 3, 4], one_more), lambda: read[0]) == []


async def silence(replica: Replica) -> None:
    """Its reader of the ceremony log reads no more, and says nothing."""
    reader = replica.parts.readers._log
    assert isinstance(reader, RealTail)

    def stand_still() -> None:
        reader.consumer.unassign()  # asked for in the thread that it belongs to

    await reader.ask(stand_still, 20.0)


@pytest.fixture
async def three(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[int, Replica]]:
    """A committee that serves and looks each second; the third seat's reader of the ceremony log is silent."""
    monkeypatch.setattr(unread, "LOOK_S", 1.0)
    keys, state = provisioned(tmp_path / "keys", 3, 2), tmp_path / "state"
    broker.create(topics.all_topics(broker.prefix, 1, 3, 1))
    async with (
        replicas(broker, keys, state, (1, 2, 3)) as running,
        Pod(broker.settings, keys, Signers(broker, tmp_path)) as pod,
    ):
        await pod.until_serving(1, 2, 3)
        await silence(running[3])
        yield running


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
@pytest.mark.anyio
async def test_a_replica_whose_reader_of_the_ceremony_log_alone_stands_still_takes_part_again(
    three: dict[int, Replica], tmp_path: Path
) -> None:
    await may_refresh(three[1])
    three[1].parts.ceremonies.feed(RefreshAsked(DEFAULT, refresh_request(tmp_path / "keys")))
    await until(lambda: three[3].parts.ceremonies.state.log.keys[DEFAULT].epoch == 2, "the deaf seat sees it", 60.0)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("broker", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True)
@pytest.mark.anyio
async def test_a_log_that_was_made_again_is_lost_although_its_reader_says_nothing(
    broker: Broker, three: dict[int, Replica]
) -> None:
    await made_again(broker, topics.ceremony(broker.prefix, 1))
    await until(lambda: three[3].parts.ceremonies.state.soft.lost, "it is told by where the log ends", 60.0)
    alive = three[3].liveness()
    assert alive.ok, alive.checks
