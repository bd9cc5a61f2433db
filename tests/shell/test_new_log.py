"""A ceremony log that was deleted, alone or with all else: signing goes on, and another log with the same key."""

import asyncio
import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common import ed25519
from common.errors import BadInput
from common.trust import newer, read_roster
from common.wire import codec, topics
from common.wire.messages import Roster, Signed
from signer_service.key_records import newest, read_file
from signer_service.provision import Plan, provision
from tests.brokers import Broker, apache, broker, made_again
from tests.playbook import KEY, TOPIC, House, private, public
from tests.protocol.crash_world import beginning
from tests.shell.road import DEFAULT, Pod, Signers

__all__ = ["apache", "broker"]

SEATS = (1, 2, 3)
PREFIX = TOPIC.removesuffix(topics.ceremony("").name)


def ours(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "signer_service", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def alarm(signers: Signers, seat: int, name: str) -> bool:
    try:
        page = signers.page(seat, "/metrics")[1]
    except OSError:
        return False
    return re.search(rf'^signer_flow_alarm{{alarm="{name}"}} 1', page, re.MULTILINE) is not None


async def signs(pod: Pod, public: bytes) -> None:
    (outcome,) = await pod.sign([b"hello"], 0, within_s=60.0)
    assert isinstance(outcome.result, Signed), outcome
    assert ed25519.verify(public, b"hello", outcome.result.signature)


async def go_on_with_another_log(broker: Broker, signers: Signers, pod: Pod, public: bytes, folder: Path) -> None:
    """What the runbook says, and that it mends: ceremonies are held again, and the key is what it was."""
    told = ours(signers.environment(1), "key-records")
    assert told.returncode == 0, told.stderr
    records = folder / "key-records"
    records.write_text(told.stdout)
    assert f"{DEFAULT}: epoch 1" in told.stderr
    go_on = ("--signers", "3", "--threshold", "2", "--out", str(signers.keys), "--key-records", str(records))
    done = ours(signers.environment(1), "provision", *go_on, "--topic-prefix", broker.prefix)
    assert done.returncode == 0, done.stderr
    again = ours(signers.environment(1), "provision", *go_on, "--topic-prefix", broker.prefix)
    assert "version 2 is up to date" in again.stdout, "the same again is nothing new"

    for seat in SEATS:
        signers.terminate(seat)
    for seat in SEATS:
        signers._extra = {
            "SIGNER_SERVICE_REFRESH_INTERVAL_MS": "1000",
            "SIGNER_SERVICE_MIN_INTERVAL_MS": "1000",
        }
        signers.start(seat)
    pod.beats.clear()
    await pod.until_serving(*SEATS, within_s=120.0)
    assert not any(alarm(signers, seat, "ceremony_log_lost") for seat in SEATS)
    await pod.until(lambda: pod.records[DEFAULT].epoch > 1, "a refresh on the new log", 120.0)
    assert pod.records[DEFAULT].public_key == public
    await signs(pod, public)


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.timeout(400)
@pytest.mark.parametrize("broker", ["apache"], indirect=True)
@pytest.mark.anyio
async def test_a_deleted_ceremony_log_is_replaced_by_one_that_goes_on_with_the_same_key(
    broker: Broker, tmp_path: Path
) -> None:
    broker.create(topics.all_topics(broker.prefix, 1, 3, 1))
    signers = Signers(broker, tmp_path, SIGNER_SERVICE_REFRESH_INTERVAL_MS="3600000")
    signers.provision(3, 2)
    try:
        signers.start(*SEATS)
        async with Pod(broker.settings, signers.keys, signers) as pod:
            await pod.until_serving(*SEATS)
            public = pod.records[DEFAULT].public_key
            await made_again(broker, topics.ceremony(broker.prefix, 1))
            await pod.until(
                lambda: all(alarm(signers, seat, "ceremony_log_lost") for seat in SEATS), "the alarm", 120.0
            )
            await signs(pod, public)
            await go_on_with_another_log(broker, signers, pod, public, tmp_path)
    finally:
        signers.close()


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.timeout(500)
@pytest.mark.parametrize("broker", ["apache"], indirect=True)
@pytest.mark.anyio
async def test_a_broker_that_lost_everything_costs_no_key_pods_learn_it_from_the_shares_that_are_left(
    broker: Broker, tmp_path: Path
) -> None:
    everything = topics.all_topics(broker.prefix, 1, 3, 1)
    broker.create(everything)
    signers = Signers(broker, tmp_path, SIGNER_SERVICE_REFRESH_INTERVAL_MS="3600000")
    signers.provision(3, 2)
    try:
        signers.start(*SEATS)
        async with Pod(broker.settings, signers.keys, signers) as pod:
            await pod.until_serving(*SEATS)
            public = pod.records[DEFAULT].public_key
        for seat in SEATS:
            signers.terminate(seat)
        await asyncio.gather(*(made_again(broker, spec, 120.0) for spec in everything))
        signers.start(*SEATS)
        # A pod that starts on the new broker: nothing that was there before helps it.
        async with Pod(broker.settings, signers.keys, signers) as pod:
            await pod.until_serving(*SEATS, within_s=120.0)
            assert pod.records[DEFAULT].public_key == public
            assert all(alarm(signers, seat, "ceremony_log_lost") for seat in SEATS)
            await signs(pod, public)
            await go_on_with_another_log(broker, signers, pod, public, tmp_path)
    finally:
        signers.close()


def record() -> bytes:
    """A key record as three seats commit it."""
    return codec.encode(beginning(2, 3).record)


def folder(tmp_path: Path, seats: tuple[int, ...] = (1, 2, 3), keys: tuple[str, ...] = (KEY,)) -> Path:
    """What the operator has: his key, and the roster in force."""
    tmp_path.chmod(0o700)
    for name, content in (("operator.key", private("operator").expose()), ("operator.pub", public("operator"))):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "roster.avro").write_bytes(House().roster(2, seats, version=4, keys=keys))
    return tmp_path


def go_on(out: Path, *records: bytes, signers: int = 3) -> Roster:
    return provision(out, Plan(signers, 2, key_records=records), os.urandom).roster


def test_a_new_log_is_a_roster_of_the_next_generation_that_names_the_records_and_changes_nothing_else(
    tmp_path: Path,
) -> None:
    old = read_roster(House().roster(2, (1, 2, 3), version=4), public("operator"))
    new = go_on(folder(tmp_path), record())
    assert (new.version, new.log_generation, new.checkpoints) == (5, 2, (record(),))
    assert (new.seats, new.keys, new.edge_keys) == (old.seats, old.keys, old.edge_keys)
    assert newer(old, new) == new
    assert go_on(tmp_path, record()) == new, "the same again is nothing new"
    assert provision(tmp_path, Plan(3, 2), os.urandom).roster == new, "and later runs keep it"


def test_a_new_log_is_refused_without_a_roster_with_another_committee_and_without_the_record_of_a_key(
    tmp_path: Path,
) -> None:
    (tmp_path / "empty").mkdir(mode=0o700)
    with pytest.raises(BadInput, match="no roster to go on from"):
        go_on(tmp_path / "empty", record())
    (tmp_path / "two").mkdir(mode=0o700)
    two = folder(tmp_path / "two", keys=(KEY, "other"))
    with pytest.raises(BadInput, match="no record of other: on a new log it would be lost"):
        provision(two, Plan(3, 2, key_records=(record(),)), os.urandom)
    (tmp_path / "one").mkdir(mode=0o700)
    one = folder(tmp_path / "one")
    before = (one / "roster.avro").read_bytes()
    with pytest.raises(BadInput, match="with the committee as it is: change that afterwards"):
        go_on(one, record(), signers=4)
    assert (one / "roster.avro").read_bytes() == before


def test_of_each_key_the_newest_record_counts_and_what_cannot_be_believed_is_passed_by() -> None:
    raw = record()
    assert newest([b"rubbish", raw, raw[:-1]], public("operator"), PREFIX) == {KEY: raw}
    assert newest([raw], public("somebody else"), PREFIX) == {}
    assert newest([raw], public("operator"), "another.") == {}, "attested on the log of another system"


def test_a_file_of_key_records_is_taken_only_if_every_line_can_be_believed(tmp_path: Path) -> None:
    path = tmp_path / "key-records"
    line = base64.b64encode(record()).decode()
    path.write_text(line + "\n")
    assert read_file(path, public("operator"), PREFIX) == (record(),)
    for said, text in (
        ("is not what", "nonsense!"),
        ("not to be believed", base64.b64encode(b"no record").decode()),
        ("must have one record of each key, and has 0", ""),
        ("must have one record of each key, and has 2", f"{line}\n{line}\n"),
    ):
        path.write_text(text)
        with pytest.raises(BadInput, match=said):
            read_file(path, public("operator"), PREFIX)
    with pytest.raises(BadInput, match="cannot be read"):
        read_file(tmp_path / "nowhere", public("operator"), PREFIX)
    path.write_text(line)
    with pytest.raises(BadInput, match="not to be believed"):
        read_file(path, public("somebody else"), PREFIX)
