"""P3: after a refresh nothing on disk or in the process can open what was erased.

Real replicas, on one event loop. Everything that any of them ever boxed as a secret is known to the test; afterwards it
looks for it in their state directories (opened with their own sealing keys, as whoever steals both would), in what
their objects lead to, among the boxes that merely nobody freed yet, and in the ceremony log, which is kept for ever.
"""

import asyncio
import gc
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from common import ed25519
from common.ids import BootId, Instant, RecordId, RequestId
from common.kafka.client import KafkaClient
from common.kafka.port import Hooks, Record, Start
from common.secret import Secret
from common.wire import topics
from common.wire.envelope import edge_key_id, sign_request
from common.wire.messages import Mode, MsgToSign, SignItem
from signer_service.protocol.ceremony_opening import refusal
from signer_service.protocol.ceremony_view import unerased
from signer_service.protocol.machine import RefreshAsked
from signer_service.shell.runner import Replica
from tests.brokers import Broker, broker, until
from tests.memory import Boxes, Dump, boxes_watched, masked
from tests.shell.in_process import replicas
from tests.shell.road import DEFAULT, Pod, Signers
from tests.system.replicas import provisioned
from tests.system.secret_forms import of_state

__all__ = ["broker"]

THREE = (1, 2, 3)


def shares(running: Mapping[int, Replica]) -> dict[int, set[int]]:
    """Masked shares of the seats, by epoch."""
    found: dict[int, set[int]] = {}
    for replica in running.values():
        for held in replica.parts.ceremonies.state.of_key(DEFAULT).held:
            found.setdefault(held.epoch, set()).add(masked(held.share.expose()))
    return found


def nonces(running: Mapping[int, Replica]) -> set[int]:
    """Masked secret nonces in the seats' pools now."""
    pools = [replica.parts.signing.participant.nonces._reserved for replica in running.values()]
    pairs = [
        pair
        for pool in pools
        for boots in pool.values()
        for reserved in boots.values()
        for _, pair in reserved.pairs.values()
    ]
    return {masked(each.expose()) for pair in pairs for each in (pair.hiding, pair.binding)}


def refresh_request(keys: Path, edge: Secret[bytes] | None = None) -> bytes:
    right = Secret((keys / "edge.key").read_bytes())
    label, now = BootId("5f2f8f6e-5b35-4b7e-9b3e-000000000000"), Instant(int(time.time() * 1000))
    item = SignItem(RequestId(label), DEFAULT, Mode.REFRESH, b"", "anonymous", now, Instant(now + 5_000))
    request = MsgToSign(RecordId(label), (item,), "signer.v1.resp0", label, edge_key_id(ed25519.public_key(right)))
    return sign_request(request, edge or right)


async def may_refresh(replica: Replica) -> None:
    """Wait until the replica would not refuse: it has heard enough holders, and the last refresh is long enough ago."""
    await until(
        lambda: refusal(replica.parts.ceremonies.state, DEFAULT, Instant(int(time.time() * 1000))) is None,
        "it may refresh",
    )


def on_disk(keys: Path, state: Path) -> set[int]:
    """Masked secrets in the share files, opened with the seats' own sealing keys."""
    return {masked(int.from_bytes(raw, "little")) for raw in of_state(keys, state).values()}


async def read_log(broker: Broker) -> list[Record]:
    """The whole ceremony log, as anybody with a Kafka credential can keep it."""
    records: list[Record] = []
    name = topics.ceremony(broker.prefix).name
    tail = KafkaClient(broker.settings, Hooks()).tail({name: Start()}, records.extend)
    await tail.start()
    end = tail.end_at_start(name)
    await until(lambda: records and records[-1].offset >= end - 1, "the ceremony log")
    await tail.close()
    return records


@pytest.mark.anyio
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
async def test_p3_nothing_on_disk_or_in_memory_opens_an_epoch_that_was_erased(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, state = provisioned(tmp_path / "keys", 3, 2), tmp_path / "state"
    broker.create(topics.all_topics(broker.prefix, 1, 3, 1))
    with boxes_watched(monkeypatch) as boxes:
        async with Pod(broker.settings, keys, Signers(broker, tmp_path)) as pod:
            async with replicas(broker, keys, state, THREE):
                await pod.until_serving(*THREE)
            pod.beats.clear()
            # What a process reads from its disk at start is in more hands than what it makes itself.
            async with replicas(broker, keys, state, THREE) as running:
                await pod.until_serving(*THREE)
                await _one_epoch(pod, boxes, broker, running, keys, state)
                await _one_epoch(pod, boxes, broker, running, keys, state)


async def _one_epoch(
    pod: Pod, boxes: Boxes, broker: Broker, running: Mapping[int, Replica], keys: Path, state: Path
) -> None:
    own = asyncio.current_task()
    for replica in running.values():
        # A refused request must not keep what there was when it came.
        replica.parts.ceremonies.feed(RefreshAsked(DEFAULT, refresh_request(keys, Secret(os.urandom(32)))))
    for partition in range(0, 12, 3):
        await pod.sign([b"before %d" % partition, b"too"], partition)
    await until(lambda: len(nonces(running)) >= 12, "stocks of nonces")
    before = shares(running)
    (epoch,) = before
    old = nonces(running)
    dump = Dump(running.values(), without=[own, own and own.get_coro()])
    # The search can fail: what is held now is found in each of the three places.
    assert dump.holds(before[epoch]) == before[epoch]
    assert dump.holds(old) == old
    assert before[epoch] <= on_disk(keys, state)
    assert before[epoch] | old <= boxes.alive()
    known = set(boxes.made)
    gc.collect()  # of the replicas that ran before, which a real process takes with it when it ends
    gc.disable()  # nothing may depend on when the collector comes by
    try:
        for replica in running.values():
            await may_refresh(replica)
        for replica in running.values():
            replica.parts.ceremonies.feed(RefreshAsked(DEFAULT, refresh_request(keys)))
        await until(lambda: shares(running).keys() == {epoch + 1}, "the next epoch alone")
        await until(
            lambda: all(not unerased(each.parts.ceremonies.state)[DEFAULT] for each in running.values()),
            "Erased of all",
        )
        await pod.sign([b"after", b"too"], epoch % 12)
        await asyncio.sleep(0)
        allowed = shares(running)[epoch + 1] | nonces(running)
        gone = set(boxes.made) - allowed - _keys_of(keys)
        assert len(gone - known) > 3 * 4, "transport keys, polynomials, sub-shares of the ceremony itself"
        after = Dump(running.values(), without=[own, own and own.get_coro()])
    finally:
        gc.enable()
    assert not boxes.alive() & gone
    assert not after.numbers & gone
    ceremony = gone - old
    assert not after.holds(ceremony)
    assert not on_disk(keys, state) & gone
    log = Dump([_files(state), *(record.value for record in await read_log(broker))])
    assert not log.holds(ceremony | allowed)


def _files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def _keys_of(keys: Path) -> set[int]:
    return {masked(int.from_bytes(path.read_bytes(), "little")) for path in keys.rglob("*.key")}
