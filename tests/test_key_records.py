"""What another ceremony log goes on from: key records, held against the roster, each other and what the seats say."""

import base64
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from common.errors import BadInput, Unavailable
from common.ids import Epoch, Index, Instant, KeyId, Offset, OpenId
from common.trust import newer, read_roster
from common.wire import codec, topics
from common.wire.envelope import Signer, seal
from common.wire.messages import KeyPresence, KeyRecord, Presence, ReplicaState, Role, Roster
from signer_service import key_records
from signer_service.key_records import LEAVES, choose, found_in, parse_epoch, read_file
from signer_service.new_log import NewLog
from signer_service.provision import Plan, provision
from signer_service.seats_word import SeatsWord
from tests.playbook import KEY, TOPIC, House, boot, private, public
from tests.protocol.crash_world import again, beginning

PREFIX = TOPIC.removesuffix(topics.ceremony("").name)


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
