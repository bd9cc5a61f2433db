"""A ceremony log that was deleted, alone or with all else: signing goes on, and another log with the same key."""

import asyncio
import base64
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from common import ed25519
from common.errors import BadInput, Unavailable
from common.ids import Epoch, Index, Instant, KeyId, Offset, OpenId
from common.trust import newer, read_roster
from common.wire import codec, topics
from common.wire.envelope import Signer, seal
from common.wire.messages import KeyPresence, KeyRecord, Presence, ReplicaState, Role, Roster, Signed
from signer_service import key_records
from signer_service.key_records import LEAVES, choose, found_in, parse_epoch, read_file
from signer_service.new_log import NewLog
from signer_service.provision import Plan, provision
from signer_service.seats_word import SeatsWord
from tests.brokers import Broker, apache, broker, made_again, until
from tests.playbook import KEY, TOPIC, House, boot, private, public
from tests.protocol.crash_world import again, beginning
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


async def signs(pod: Pod, public: bytes, partition: int = 0) -> None:
    (outcome,) = await pod.sign([b"hello"], partition, within_s=60.0)
    assert isinstance(outcome.result, Signed), outcome
    assert ed25519.verify(public, b"hello", outcome.result.signature)


async def go_on_with_another_log(broker: Broker, signers: Signers, pod: Pod, public: bytes, folder: Path) -> None:
    """What the runbook says, and that it mends: ceremonies are held again, and the key is what it was."""
    told = ours(signers.environment(1), "key-records")
    assert told.returncode == 0, told.stderr
    records = folder / "key-records"
    records.write_text(told.stdout)
    assert f"{DEFAULT}: epoch 1" in told.stderr
    assert f"{DEFAULT}: seat 1 is in epoch 1, seat 2 is in epoch 1, seat 3 is in epoch 1" in told.stderr
    go_on = ("--signers", "3", "--threshold", "2", "--out", str(signers.keys), "--key-records", str(records))
    done = ours(signers.environment(1), "provision", *go_on, "--topic-prefix", broker.prefix)
    assert done.returncode == 0, done.stderr
    again = ours(signers.environment(1), "provision", *go_on, "--topic-prefix", broker.prefix)
    assert "version 2 is up to date" in again.stdout, "the same again is nothing new"

    assert ours(signers.environment(1), "key-records", "--own-state").returncode == 4, "the replica runs"
    for seat in SEATS:
        signers.terminate(seat)
    stopped = ours(signers.environment(1), "key-records", "--own-state")
    assert stopped.stdout.split()[1:] == told.stdout.split()[1:], stopped.stderr
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


def inspected(signers: Signers, seat: int) -> str:
    where = ("--state-dir", str(signers.state / str(seat)), "--seat-dir", str(signers.keys / "seats" / str(seat)))
    done = ours(signers.environment(seat), "inspect", *where, "--operator-pub", str(signers.keys / "operator.pub"))
    assert done.returncode == 0, done.stderr
    return done.stdout


def stop(signers: Signers) -> None:
    for seat in list(signers.processes):
        signers.terminate(seat)


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.timeout(500)
@pytest.mark.parametrize("broker", ["apache"], indirect=True)
@pytest.mark.anyio
async def test_where_too_few_hold_the_current_epoch_an_older_one_that_t_still_hold_is_gone_back_to(
    broker: Broker, tmp_path: Path
) -> None:
    broker.create(topics.all_topics(broker.prefix, 1, 3, 1))
    never = {"SIGNER_SERVICE_REFRESH_INTERVAL_MS": "3600000"}
    often = {"SIGNER_SERVICE_REFRESH_INTERVAL_MS": "1000", "SIGNER_SERVICE_MIN_INTERVAL_MS": "1000"}
    signers = Signers(broker, tmp_path, **never)
    signers.provision(3, 2)
    try:
        signers.start(*SEATS)
        async with Pod(broker.settings, signers.keys, signers) as pod:
            await pod.until_serving(*SEATS)
            public = pod.records[DEFAULT].public_key
            stop(signers)
            # Seat 3 is away while the others refresh, so they keep the shares of epoch 1; then seat 2 loses its disk.
            signers._extra = often
            signers.start(1, 2)
            await pod.until(lambda: pod.records[DEFAULT].epoch > 1, "a refresh of two", 120.0)
            stop(signers)
            newest = pod.records[DEFAULT]
            epoch = newest.epoch
        # What compaction leaves after some hours.
        await made_again(broker, topics.keys(broker.prefix, 1))
        async with Pod(broker.settings, signers.keys, signers) as pod:
            pod.producer.send(topics.keys(broker.prefix).name, codec.encode(newest), key=DEFAULT.encode(), partition=0)
            await pod.until(lambda: DEFAULT in pod.records, "the newest record", 60.0)
        shutil.rmtree(signers.state / "2")
        signers._extra = never
        signers.start(*SEATS)
        await until(lambda: all(alarm(signers, seat, "old_epoch_held") for seat in (1, 3)), "the alarms", 60.0)
        assert re.search(rf'"about": ?"{DEFAULT}: shares of epochs 1, {epoch}', signers.log(1).read_text())
        assert re.search(rf'"about": ?"{DEFAULT}: shares of epochs 1"', signers.log(3).read_text())
        stop(signers)
        assert f"shares on this disk: of epochs [1, {epoch}" in inspected(signers, 1)
        assert "no share on this disk" in inspected(signers, 2)
        assert "shares on this disk: of epochs [1]\n" in inspected(signers, 3)

        saved = tmp_path / "saved-log"
        kafka = ("--kafka", broker.settings.bootstrap, "--topic-prefix", broker.prefix)
        held = ours(
            signers.environment(1),
            "audit",
            "--operator-pub",
            str(signers.keys / "operator.pub"),
            *kafka,
            "--save",
            str(saved),
        )
        assert held.returncode == 0, held.stderr
        last = ours(signers.environment(1), "key-records")
        told = ours(signers.environment(1), "key-records", "--epoch", f"{DEFAULT}:1", "--own-state")
        assert told.returncode == 0, told.stderr
        assert f"{DEFAULT}: epoch 1, " in told.stderr
        assert f"{DEFAULT}: NOT the newest: there is a record of epoch {epoch}" in told.stderr
        assert f"{DEFAULT}: 2 of the seats 1 2 3 have to hold their shares of epoch 1" in told.stderr
        assert f"{DEFAULT}: shares on this disk: of epochs [1, {epoch}" in told.stderr
        assert told.stdout != last.stdout
        records = tmp_path / "key-records"
        records.write_text(told.stdout)

        # The log is gone as well: the saved one has the record.
        await made_again(broker, topics.ceremony(broker.prefix, 1))
        gone = ours(signers.environment(1), "key-records", "--epoch", f"{DEFAULT}:1")
        assert gone.returncode == 2
        assert "there is no record of epoch 1" in gone.stderr
        again = ours(signers.environment(1), "key-records", "--epoch", f"{DEFAULT}:1", "--log", str(saved))
        assert again.stdout == told.stdout, again.stderr

        go_on = ("--signers", "3", "--threshold", "2", "--out", str(signers.keys), "--key-records", str(records))
        done = ours(signers.environment(1), "provision", *go_on, "--topic-prefix", broker.prefix)
        assert done.returncode == 0, done.stderr
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
            signers._extra = often
            signers.start(*SEATS)
            await pod.until(lambda: pod.records[DEFAULT].epoch > 1, "a refresh on the new log", 120.0)
            assert pod.records[DEFAULT].public_key == public
            await signs(pod, public)
    finally:
        signers.close()


@cache
def records() -> tuple[bytes, bytes]:
    """The key records of epochs 1 and 2, as three seats committed them."""
    world, _ = again(beginning(2, 3))
    for index in world.seats:
        world.ask_refresh(index)
    world.run(lambda: world.key().epoch == 2)
    current = world.key().current
    assert current is not None
    return codec.encode(beginning(2, 3).record), codec.encode(current.record)


def record() -> bytes:
    return records()[0]


def folder(tmp_path: Path, seats: tuple[int, ...] = (1, 2, 3), keys: tuple[str, ...] = (KEY,)) -> Path:
    """What the operator has: his key, and the roster in force."""
    tmp_path.mkdir(exist_ok=True)
    tmp_path.chmod(0o700)
    for name, content in (("operator.key", private("operator").expose()), ("operator.pub", public("operator"))):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "roster.avro").write_bytes(House().roster(2, seats, version=4, keys=keys))
    return tmp_path


def go_on(out: Path, new_log: NewLog, signers: int = 3) -> Roster:
    return provision(out, Plan(signers, 2, new_log=new_log), os.urandom).roster


def test_a_new_log_is_a_roster_of_the_next_generation_that_names_the_records_and_changes_nothing_else(
    tmp_path: Path,
) -> None:
    old = read_roster(House().roster(2, (1, 2, 3), version=4), public("operator"))
    new = go_on(folder(tmp_path), NewLog(1, (record(),)))
    assert (new.version, new.log_generation, new.checkpoints) == (5, 2, (record(),))
    assert (new.seats, new.keys, new.edge_keys) == (old.seats, old.keys, old.edge_keys)
    assert newer(old, new) == new
    assert go_on(tmp_path, NewLog(1, (record(),))) == new, "the same file again is nothing new"
    assert provision(tmp_path, Plan(3, 2), os.urandom).roster == new, "and later runs keep it"


def test_a_new_log_that_is_lost_before_its_first_commit_is_replaced_by_another_from_the_same_records(
    tmp_path: Path,
) -> None:
    # The records are the same as before then: that they are says nothing of whether the log is there.
    second = go_on(folder(tmp_path), NewLog(1, (record(),)))
    third = go_on(tmp_path, NewLog(2, (record(),)))
    assert (third.version, third.log_generation, third.checkpoints) == (6, 3, (record(),))
    assert newer(second, third) == third


def test_records_that_were_printed_for_another_generation_than_the_rosters_are_refused(tmp_path: Path) -> None:
    first, later = records()
    with pytest.raises(BadInput, match="leave the log of generation 2, and this roster is of 1: bring the roster"):
        go_on(folder(tmp_path), NewLog(2, (first,)))
    go_on(tmp_path, NewLog(1, (later,)))
    with pytest.raises(BadInput, match="at 2 already, begun from others"):
        go_on(tmp_path, NewLog(1, (first,)))


def test_a_new_log_is_refused_without_a_roster_with_another_committee_and_without_the_record_of_a_key(
    tmp_path: Path,
) -> None:
    new_log = NewLog(1, (record(),))
    (tmp_path / "empty").mkdir(mode=0o700)
    with pytest.raises(BadInput, match="no roster to go on from"):
        go_on(tmp_path / "empty", new_log)
    two = folder(tmp_path / "two", keys=(KEY, "other"))
    with pytest.raises(BadInput, match="no record of other: on a new log it would be lost"):
        go_on(two, new_log)
    one = folder(tmp_path / "one")
    before = (one / "roster.avro").read_bytes()
    with pytest.raises(BadInput, match="with the committee as it is: change that afterwards"):
        go_on(one, new_log, signers=4)
    assert (one / "roster.avro").read_bytes() == before


def test_a_key_that_was_never_made_stops_no_new_log_once_that_is_said(tmp_path: Path) -> None:
    two = folder(tmp_path / "two", keys=(KEY, "other"))
    new = go_on(two, NewLog(1, (record(),), frozenset({KeyId("other")})))
    assert (new.log_generation, new.checkpoints) == (2, (record(),))
    assert [key.key_id for key in new.keys] == [KEY, "other"]
    one = folder(tmp_path / "one")
    with pytest.raises(BadInput, match=f"there is a record of {KEY}: it was made"):
        go_on(one, NewLog(1, (record(),), frozenset({KEY})))
    with pytest.raises(BadInput, match="the roster has no key othre"):
        go_on(one, NewLog(1, (record(),), frozenset({KeyId("othre")})))


def test_of_each_key_the_newest_record_counts_and_what_cannot_be_believed_is_passed_by() -> None:
    first, later = records()
    found = found_in([b"rubbish", later, first, later, first[:-1]], public("operator"), PREFIX)
    assert found == {KEY: {1: first, 2: later}}
    assert choose(found, {}, {}) == {KEY: later}
    assert choose(found, {KEY: 1}, {}) == {KEY: first}, "an older one if that is asked for"
    with pytest.raises(BadInput, match="no record of epoch 3 of key default; found were epochs: 1, 2"):
        choose(found, {KEY: 3}, {})
    assert found_in([first], public("somebody else"), PREFIX) == {}
    assert found_in([first], public("operator"), "another.") == {}, "attested on the log of another system"


def test_records_of_one_epoch_that_differ_are_refused_unless_only_who_signed_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = codec.decode(record(), KeyRecord)
    # Nobody here can sign another record with the group key: what each says for itself is taken as read.
    monkeypatch.setattr(key_records, "check_key_record", lambda raw, *_, **__: codec.decode(raw, KeyRecord))
    signed_again = codec.encode(replace(raw, signature=bytes(64)))
    assert found_in([record(), signed_again], public("operator"), PREFIX) == {KEY: {1: record()}}
    forked = codec.encode(replace(raw, open_id=OpenId(bytes(64))))
    with pytest.raises(BadInput, match="two different records of epoch 1"):
        found_in([record(), forked], public("operator"), PREFIX)
    foreign = codec.encode(replace(raw, epoch=Epoch(2), public_key=public("another key")))
    with pytest.raises(BadInput, match="records of two systems"):
        found_in([record(), foreign], public("operator"), PREFIX)


def test_records_older_than_what_a_seat_says_are_refused_until_that_epoch_is_asked_for() -> None:
    first, later = records()
    stale = found_in([first], public("operator"), PREFIX)
    behind = {KEY: {Index(1): 1, Index(2): 2, Index(3): 2}}
    with pytest.raises(Unavailable, match="seat 2 is in epoch 2, seat 3 is in epoch 2, and the newest record found"):
        choose(stale, {}, behind)
    assert choose(stale, {KEY: 1}, behind) == {KEY: first}
    assert choose(found_in([first, later], public("operator"), PREFIX), {}, behind) == {KEY: later}
    with pytest.raises(Unavailable, match="key other: seat 1 is in epoch 5, and the newest record found is of epoch 0"):
        choose(stale, {}, {KeyId("other"): {Index(1): 5}})


def beat(seat: int, epoch: int, name: str = "", topic: str = "signer.v1.presence") -> bytes:
    key = KeyPresence(KEY, Epoch(epoch), epoch > 0, "", 0, (), Instant(0), Instant(0), Offset(0), bytes(64))
    said = Presence(Instant(1), 1, Instant(1), ReplicaState.READY, False, 1, (), 0, 0, 0, (key,), 0)
    name = name or f"seat {seat}"
    return seal(Signer(Role.SIGNER, seat, boot(name), private(name)), topic, codec.encode(said), Offset(-1), b"")


def test_what_a_seat_says_is_the_newest_epoch_of_its_beats_and_nobody_speaks_for_another() -> None:
    roster = read_roster(House().roster(2, (1, 2, 3)), public("operator"))
    word = SeatsWord("signer.v1.presence", roster)
    for raw in (beat(1, 1), beat(1, 3), beat(1, 2), beat(2, 0), b"rubbish"):
        word.take(raw)
    for forged in (beat(3, 9, name="seat 1"), beat(4, 9), beat(2, 9, topic="another.signer.v1.presence")):
        word.take(forged)
    assert word.said == {KEY: {1: 3}}


def test_an_epoch_is_named_with_its_key() -> None:
    assert parse_epoch("default:7") == (KEY, 7)
    for text in ("7", "default:", "default:x", "default:-1", ":7", "default:9999999999"):
        with pytest.raises(BadInput):
            parse_epoch(text)


def test_a_file_of_key_records_is_taken_only_if_every_line_can_be_believed(tmp_path: Path) -> None:
    path = tmp_path / "key-records"
    line = base64.b64encode(record()).decode()
    path.write_text(f"{LEAVES}3\n{line}\n")
    assert read_file(path, public("operator"), PREFIX, [KeyId("other")]) == NewLog(
        3, (record(),), frozenset({KeyId("other")})
    )
    for said, text in (
        ("its first line is missing", f"{line}\n"),
        ("its first line is missing", ""),
        ("its first line is missing", f"{LEAVES}x\n{line}\n"),
        ("is not what", f"{LEAVES}1\nnonsense!"),
        ("not to be believed", f"{LEAVES}1\n" + base64.b64encode(b"no record").decode()),
        ("must have one record of each key, and has 0", f"{LEAVES}1\n"),
        ("must have one record of each key, and has 2", f"{LEAVES}1\n{line}\n{line}\n"),
    ):
        path.write_text(text)
        with pytest.raises(BadInput, match=said):
            read_file(path, public("operator"), PREFIX)
    with pytest.raises(BadInput, match="cannot be read"):
        read_file(tmp_path / "nowhere", public("operator"), PREFIX)
    path.write_text(f"{LEAVES}1\n{line}")
    with pytest.raises(BadInput, match="not to be believed"):
        read_file(path, public("somebody else"), PREFIX)
