"""A replica with an empty disk begins to read at the newest key record, or where it must if that leads nowhere."""

import shutil
from pathlib import Path

import pytest

from common.wire import topics
from signer_service.protocol import ceremony_place
from signer_service.protocol.ceremony_view import status
from signer_service.protocol.machine import RefreshAsked
from tests.brokers import Broker, broker, until
from tests.shell.in_process import replicas
from tests.shell.road import DEFAULT, GARBAGE, Pod, Signers
from tests.shell.test_erasure import may_refresh, refresh_request
from tests.system.replicas import provisioned

__all__ = ["broker"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.parametrize("broker", ["embedded"], indirect=True),
]


class Said:
    """What was logged, printed or handed to the standard library: that depends on what ran before in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
        self._capsys, self._caplog = capsys, caplog
        self._printed: list[str] = []

    def forget(self) -> None:
        self._capsys.readouterr()
        self._caplog.clear()
        self._printed.clear()

    def holds(self, word: str) -> bool:
        self._printed.extend(self._capsys.readouterr())
        return any(word in each for each in [*self._printed, self._caplog.text])


@pytest.mark.anyio
async def test_a_replica_with_an_empty_disk_begins_at_the_newest_key_record_says_what_it_lacks_and_is_healed(
    broker: Broker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = Said(capsys, caplog)
    keys, state = provisioned(tmp_path / "keys", 3, 2), tmp_path / "state"
    broker.create(topics.all_topics(broker.prefix, 1, 3, 1))
    async with (
        replicas(broker, keys, state, (1, 2), heal_delay_ms=1_500) as two,
        Pod(broker.settings, keys, Signers(broker, tmp_path)) as pod,
    ):
        async with replicas(broker, keys, state, (3,)):
            await pod.until_serving(1, 2, 3)
            await may_refresh(two[1])
            two[1].parts.ceremonies.feed(RefreshAsked(DEFAULT, refresh_request(keys)))
            await pod.until(lambda: pod.records[DEFAULT].epoch == 2, "the second epoch")
        pod.producer.send(topics.keys(broker.prefix).name, GARBAGE, key=DEFAULT.encode(), partition=0)
        for provable in (True, False):
            monkeypatch.setattr(ceremony_place, "_DOUBT", 2 if provable else 0)
            epoch = pod.records[DEFAULT].epoch
            place = pod.records[DEFAULT].log_offset
            shutil.rmtree(state / "3")
            said.forget()
            async with replicas(broker, keys, state, (3,)) as alone:
                late = alone[3]
                await until(late.parts.ceremonies.caught_up.is_set, "all was read")
                begins = {
                    tail.begin_at_start(topics.ceremony(broker.prefix).name) for tail in late.parts.readers._tails[2:]
                }
                assert begins == ({place + 1} if provable else {0})
                (fact,) = status(late.parts.ceremonies.state)
                assert (fact.epoch, fact.holds_share) == (epoch, False)
                assert not late.readiness().ok
                assert "holds no share of epoch" in str(late.readiness())
                await until(lambda: said.holds("share-missing"), "it says so")
                await until(lambda late=late: status(late.parts.ceremonies.state)[0].holds_share, "it is healed")  # type: ignore[misc]
                await until(lambda late=late: late.readiness().ok, "it is ready")  # type: ignore[misc]
            await pod.until(lambda epoch=epoch: pod.records[DEFAULT].epoch == epoch + 1, "the next epoch")
