"""A ceremony log that was deleted, alone or with all else: signing goes on, and another log with the same key."""

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common import ed25519
from common.wire import codec, topics
from common.wire.messages import Signed
from tests.brokers import Broker, apache, broker, made_again, until
from tests.shell.road import DEFAULT, Pod, Signers, signers

__all__ = ["apache", "broker", "signers"]

SEATS = (1, 2, 3)
RARELY = {"SIGNER_SERVICE_REFRESH_INTERVAL_MS": "3600000"}
OFTEN = {"SIGNER_SERVICE_REFRESH_INTERVAL_MS": "1000", "SIGNER_SERVICE_MIN_INTERVAL_MS": "1000"}
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.parametrize("broker", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True),
]


def alarm(signers: Signers, seat: int, name: str) -> bool:
    try:
        page = signers.page(seat, "/metrics")[1]
    except OSError:
        return False
    return re.search(rf'^signer_flow_alarm{{alarm="{name}"}} 1', page, re.MULTILINE) is not None


def goes_by(signers: Signers, seat: int, epoch: int) -> bool:
    """Whether the seat is in this epoch and serves."""
    try:
        return (
            signers.page(seat, "/readyz")[0] == 200
            and re.search(
                rf"^signer_flow_key_epoch{{.*}} {epoch}(\.0)?$", signers.page(seat, "/metrics")[1], re.MULTILINE
            )
            is not None
        )
    except OSError:
        return False


def stop(signers: Signers) -> None:
    for seat in list(signers.processes):
        signers.terminate(seat)


def ours(signers: Signers, *arguments: str, seat: int = 1) -> subprocess.CompletedProcess[str]:
    """Run a command of the signer where that seat runs."""
    command = [sys.executable, "-m", "signer_service", *arguments]
    environment = signers.environment(seat)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def inspected(signers: Signers, seat: int) -> str:
    where = ("--state-dir", str(signers.state / str(seat)), "--seat-dir", str(signers.keys / "seats" / str(seat)))
    done = ours(signers, "inspect", *where, "--operator-pub", str(signers.keys / "operator.pub"), seat=seat)
    assert done.returncode == 0, done.stderr
    return done.stdout


def begin_a_new_log(broker: Broker, signers: Signers, records: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What the runbook says: a roster that goes on from what ``key-records`` printed. May be asked again."""
    path = folder / "key-records"
    path.write_text(records)
    go_on = ("--signers", "3", "--threshold", "2", "--out", str(signers.keys), "--key-records", str(path))
    done = ours(signers, "provision", *go_on, "--topic-prefix", broker.prefix)
    assert done.returncode == 0, done.stderr
    return done


async def made_key(pod: Pod) -> bytes:
    """The public key that the committee has made, once all seats serve."""
    await pod.until_serving(*SEATS)
    return pod.records[DEFAULT].public_key


async def signs(pod: Pod, public: bytes, partition: int = 0) -> None:
    (outcome,) = await pod.sign([b"hello"], partition, within_s=60.0)
    assert isinstance(outcome.result, Signed), outcome
    assert ed25519.verify(public, b"hello", outcome.result.signature)


async def refreshes(pod: Pod, public: bytes) -> None:
    """Ceremonies are held on the new log, and the key is what it was."""
    await pod.until(lambda: pod.records[DEFAULT].epoch > 1, "a refresh on the new log", 120.0)
    assert pod.records[DEFAULT].public_key == public
    await signs(pod, public)


async def go_on_with_another_log(broker: Broker, signers: Signers, pod: Pod, public: bytes, folder: Path) -> None:
    """What the runbook says, and that it mends."""
    told = ours(signers, "key-records")
    assert told.returncode == 0, told.stderr
    assert f"{DEFAULT}: epoch 1" in told.stderr
    assert f"{DEFAULT}: seat 1 is in epoch 1, seat 2 is in epoch 1, seat 3 is in epoch 1" in told.stderr
    begin_a_new_log(broker, signers, told.stdout, folder)
    again = begin_a_new_log(broker, signers, told.stdout, folder)
    assert "version 2 is up to date" in again.stdout, "the same again is nothing new"

    assert ours(signers, "key-records", "--own-state").returncode == 4, "the replica runs"
    stop(signers)
    stopped = ours(signers, "key-records", "--own-state")
    assert stopped.stdout.split()[1:] == told.stdout.split()[1:], stopped.stderr
    signers.extra = OFTEN
    signers.start(*SEATS)
    pod.beats.clear()
    await pod.until_serving(*SEATS, within_s=120.0)
    assert not any(alarm(signers, seat, "ceremony_log_lost") for seat in SEATS)
    await refreshes(pod, public)


async def test_a_deleted_ceremony_log_is_replaced_by_one_that_goes_on_with_the_same_key(
    broker: Broker, signers: Signers, tmp_path: Path
) -> None:
    signers.extra = RARELY
    signers.start(*SEATS)
    async with Pod(broker.settings, signers.keys, signers) as pod:
        public = await made_key(pod)
        await made_again(broker, topics.ceremony(broker.prefix, 1))
        await pod.until(lambda: all(alarm(signers, seat, "ceremony_log_lost") for seat in SEATS), "the alarm", 120.0)
        await signs(pod, public)
        await go_on_with_another_log(broker, signers, pod, public, tmp_path)


async def test_a_broker_that_lost_everything_costs_no_key_pods_learn_it_from_the_shares_that_are_left(
    broker: Broker, signers: Signers, tmp_path: Path
) -> None:
    signers.extra = RARELY
    signers.start(*SEATS)
    async with Pod(broker.settings, signers.keys, signers) as pod:
        public = await made_key(pod)
    stop(signers)
    await asyncio.gather(*(made_again(broker, spec, 120.0) for spec in topics.all_topics(broker.prefix, 1, 3, 1)))
    signers.start(*SEATS)
    # A pod that starts on the new broker: nothing that was there before helps it.
    async with Pod(broker.settings, signers.keys, signers) as pod:
        await pod.until_serving(*SEATS, within_s=120.0)
        assert pod.records[DEFAULT].public_key == public
        assert all(alarm(signers, seat, "ceremony_log_lost") for seat in SEATS)
        await signs(pod, public)
        await go_on_with_another_log(broker, signers, pod, public, tmp_path)


async def leave_two_seats_with_shares_of_epoch_1(broker: Broker, signers: Signers) -> tuple[bytes, int]:
    """Seat 3 is away while the others refresh, so they keep the shares of epoch 1; then seat 2 loses its disk.

    Returns:
        The public key, and the epoch of which seat 1 alone has a share. Nobody runs.
    """
    signers.extra = RARELY
    signers.start(*SEATS)
    async with Pod(broker.settings, signers.keys, signers) as pod:
        public = await made_key(pod)
        stop(signers)
        signers.extra = OFTEN
        signers.start(1, 2)
        await pod.until(lambda: pod.records[DEFAULT].epoch > 1, "a refresh of two", 120.0)
        stop(signers)
        newest = pod.records[DEFAULT]
    # What compaction leaves after some hours.
    await made_again(broker, topics.keys(broker.prefix, 1))
    async with Pod(broker.settings, signers.keys, signers) as pod:
        pod.producer.send(topics.keys(broker.prefix).name, codec.encode(newest), key=DEFAULT.encode(), partition=0)
        await pod.until(lambda: DEFAULT in pod.records, "the newest record", 60.0)
    shutil.rmtree(signers.state / "2")
    return public, newest.epoch


async def seats_say_what_they_hold(signers: Signers, epoch: int) -> None:
    """By alarms and lines while they run, and on their disks when they do not."""
    signers.extra = RARELY
    signers.start(*SEATS)
    await until(lambda: all(alarm(signers, seat, "old_epoch_held") for seat in (1, 3)), "the alarms", 60.0)
    assert re.search(rf'"about": ?"{DEFAULT}: shares of epochs 1, {epoch}', signers.log(1).read_text())
    assert re.search(rf'"about": ?"{DEFAULT}: shares of epochs 1"', signers.log(3).read_text())
    stop(signers)
    assert f"shares on this disk: of epochs [1, {epoch}" in inspected(signers, 1)
    assert "no share on this disk" in inspected(signers, 2)
    assert "shares on this disk: of epochs [1]\n" in inspected(signers, 3)


async def record_of_epoch_1(broker: Broker, signers: Signers, epoch: int, saved: Path) -> str:
    """It stands on the ceremony log alone, or, where that is gone as well, in what ``audit`` saved of it."""
    kafka = ("--kafka", broker.settings.bootstrap, "--topic-prefix", broker.prefix, "--save", str(saved))
    held = ours(signers, "audit", "--operator-pub", str(signers.keys / "operator.pub"), *kafka)
    assert held.returncode == 0, held.stderr
    last = ours(signers, "key-records")
    told = ours(signers, "key-records", "--epoch", f"{DEFAULT}:1", "--own-state")
    assert told.returncode == 0, told.stderr
    assert f"{DEFAULT}: epoch 1, " in told.stderr
    assert f"{DEFAULT}: NOT the newest: there is a record of epoch {epoch}" in told.stderr
    assert f"{DEFAULT}: 2 of the seats 1 2 3 have to hold their shares of epoch 1" in told.stderr
    assert f"{DEFAULT}: shares on this disk: of epochs [1, {epoch}" in told.stderr
    assert told.stdout != last.stdout

    await made_again(broker, topics.ceremony(broker.prefix, 1))
    gone = ours(signers, "key-records", "--epoch", f"{DEFAULT}:1")
    assert gone.returncode == 2
    assert "there is no record of epoch 1" in gone.stderr
    again = ours(signers, "key-records", "--epoch", f"{DEFAULT}:1", "--log", str(saved))
    assert again.stdout == told.stdout, again.stderr
    return told.stdout


async def test_where_too_few_hold_the_current_epoch_an_older_one_that_t_still_hold_is_gone_back_to(
    broker: Broker, signers: Signers, tmp_path: Path
) -> None:
    public, epoch = await leave_two_seats_with_shares_of_epoch_1(broker, signers)
    await seats_say_what_they_hold(signers, epoch)
    begin_a_new_log(broker, signers, await record_of_epoch_1(broker, signers, epoch, tmp_path / "saved-log"), tmp_path)
    signers.start(*SEATS)
    # Nobody writes an older record over a newer one: that topic is made anew, too, and read by who starts then.
    await until(lambda: all(goes_by(signers, seat, 1) for seat in (1, 3)), "epoch 1 on the new log", 120.0)
    await made_again(broker, topics.keys(broker.prefix, 1))
    stop(signers)
    signers.start(*SEATS)
    async with Pod(broker.settings, signers.keys, signers) as pod:
        await pod.until(lambda: DEFAULT in pod.records, "the key record", 120.0)
        assert (pod.records[DEFAULT].epoch, pod.records[DEFAULT].public_key) == (1, public)
        await pod.until(lambda: all(goes_by(signers, seat, 1) for seat in (1, 3)), "they serve", 60.0)
        await pod.until(lambda: 1 in pod.beats and pod.beats[1][0].partitions, "requests that seat 1 takes")
        await signs(pod, public, pod.beats[1][0].partitions[0])
        stop(signers)
        signers.extra = OFTEN
        signers.start(*SEATS)
        await refreshes(pod, public)
