"""A ceremony log whose reader alone sticks: beats are heard, signing goes on, and the seat is missing in ceremonies."""

from pathlib import Path

import pytest

from common.kafka.tail import RealTail
from common.wire import topics
from signer_service.protocol.machine import RefreshAsked
from signer_service.shell import unread
from signer_service.shell.unread import Unread
from tests.brokers import Broker, broker, until
from tests.shell.in_process import replicas
from tests.shell.road import DEFAULT, Pod, Signers
from tests.shell.test_erasure import may_refresh, refresh_request
from tests.system.replicas import provisioned

__all__ = ["broker"]


def test_a_reader_is_renewed_that_reads_nothing_from_one_look_to_the_next_although_there_is_something() -> None:
    looks = Unread()
    assert [looks.looked(7, 9), looks.looked(7, 9)] == [False, True]
    assert [looks.looked(7, 9), looks.looked(7, 12)] == [False, True], "a new client gets as much time"


def test_a_reader_is_left_alone_that_goes_on_or_has_read_all() -> None:
    looks = Unread()
    assert not any(looks.looked(offset, 100) for offset in range(50))
    assert not any(looks.looked(100, 100) for _ in range(9))
    assert not looks.looked(100, 101), "that one has come since the last look"
    assert not looks.looked(101, 102)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
@pytest.mark.anyio
async def test_a_replica_whose_reader_of_the_ceremony_log_alone_stands_still_takes_part_again(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "LOOK_S", 1.0)
    keys, state = provisioned(tmp_path / "keys", 3, 2), tmp_path / "state"
    broker.create(topics.all_topics(broker.prefix, 1, 3, 1))
    async with (
        replicas(broker, keys, state, (1, 2, 3)) as three,
        Pod(broker.settings, keys, Signers(broker, tmp_path)) as pod,
    ):
        await pod.until_serving(1, 2, 3)
        reader = three[3]._log
        assert isinstance(reader, RealTail)

        def stand_still() -> None:
            reader.consumer.unassign()  # asked for in the thread that it belongs to

        await reader.ask(stand_still, 20.0)
        await may_refresh(three[1])
        three[1]._ceremonies.feed(RefreshAsked(DEFAULT, refresh_request(keys)))
        await until(lambda: three[3]._ceremonies.state.log.keys[DEFAULT].epoch == 2, "the deaf seat sees it", 60.0)
