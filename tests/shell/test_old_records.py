"""Going back to an epoch of which t seats still hold shares: its key record is nowhere but on the ceremony log."""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest

from common.errors import BadInput
from common.ids import OpenId
from common.wire import codec, topics
from common.wire.envelope import Signer, seal
from common.wire.messages import Envelope, KeyRecord, Role
from signer_service import key_records, old_records
from signer_service.app import make_log_trust
from signer_service.audit import log_file
from signer_service.audit.facts import DoesNotHold
from signer_service.key_records import choose, found_in
from signer_service.old_records import OldRecords
from signer_service.settings import Settings
from tests import playbook
from tests.audit.logs import logged
from tests.playbook import KEY, TOPIC, boot, private, public
from tests.protocol.crash_world import again, beginning
from tests.protocol.test_lying_broker import current, held
from tests.protocol.test_new_generations import next_log, refresh
from tests.world import World

PREFIX = TOPIC.removesuffix(topics.ceremony("").name)


@cache
def on_disks_and_log() -> World:
    """Seat 3 was away while 1 and 2 refreshed to epoch 4, and seat 2 lost its disk: fewer than t hold that epoch."""
    world, _ = again(beginning(2, 3))
    world.stop(3)
    for epoch in (2, 3, 4):
        for index in (1, 2):
            world.ask_refresh(index)
        world.run(partial(world.agrees, epoch, (1, 2)))
        world.run_for(5_000)
    world.lose_disk(2)
    world.start(3)
    world.run_for(5_000)
    for index in (1, 3):
        world.stop(index)
    return world


def looked_up(log: list[bytes], epoch: int, operator: str = "operator", begin: int = 0) -> list[bytes]:
    old = OldRecords({KEY: epoch}, PREFIX, public(operator))
    for each in logged(log)[begin:]:
        old.take(each)
    return old.found()


def key_records_of(log: list[bytes]) -> dict[int, tuple[int, KeyRecord]]:
    """By epoch: offset and record."""
    found = {}
    for offset, raw in enumerate(log):
        record = codec.decode_ceremony(codec.decode(raw, Envelope).payload)
        if isinstance(record, KeyRecord):
            found[int(record.epoch)] = (offset, record)
    return found


def said(record: KeyRecord, seat: int = 1) -> bytes:
    """As a record of the log, at whatever offset."""
    raw = codec.decode(on_disks_and_log().log[-1], Envelope)
    sender = Signer(Role.SIGNER, seat, boot(f"seat {seat}"), private(f"seat {seat}"))
    return seal(sender, TOPIC, codec.encode(record), raw.seen_offset, raw.seen_hash)


def test_the_record_of_an_older_epoch_is_taken_from_the_log_and_t_seats_sign_with_their_old_shares() -> None:
    world = on_disks_and_log()
    newest = codec.encode(key_records_of(world.log)[4][1])
    topic = found_in([newest], public("operator"), PREFIX)
    with pytest.raises(BadInput, match="no record of epoch 1 of key default; found were epochs: 4"):
        choose(topic, {KEY: 1}, {})
    (raw,) = looked_up(world.log, 1)
    found = found_in([newest, raw], public("operator"), PREFIX)
    assert choose(found, {KEY: 1}, {}) == {KEY: raw}
    back = next_log(world, codec.decode(raw, KeyRecord))
    back.start()
    back.run(lambda: back.agrees(1, (1, 3)))
    assert {1, 3} <= {index for index, epochs in held(back).items() if 1 in epochs}
    back.run_for(1_000)
    playbook.every_subset_signs({index: key for index, key in back.keys_at().items() if index in {1, 3}})
    refresh(back)
    assert set(held(back)) == {1, 2, 3}
    assert current(back, 1).record.public_key == codec.decode(raw, KeyRecord).public_key


def test_no_record_is_taken_of_another_operator_of_an_epoch_that_never_was_or_out_of_rubbish() -> None:
    log = on_disks_and_log().log
    assert looked_up(log, 1, "somebody else") == []
    assert looked_up(log, 9) == []
    assert looked_up([], 1) == []
    offset, record = key_records_of(log)[2]
    forged = said(replace(record, signature=bytes(64)))
    assert looked_up([b"rubbish", log[0][:-1], forged], 2) == []
    # What is left of a log that was lost in part will do: a record stands for itself.
    assert [codec.decode(raw, KeyRecord) for raw in looked_up(log, 2, begin=offset)] == [record]


def test_a_copy_of_the_record_is_the_same_and_of_two_that_differ_the_committed_one_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = list(on_disks_and_log().log)
    offset, record = key_records_of(log)[2]
    assert [codec.decode(raw, KeyRecord) for raw in looked_up([*log, said(record, 2)], 2)] == [record]
    # Nobody here can sign another record with the group key: what this one says for itself is taken as read.
    uncommitted = replace(record, open_id=OpenId(bytes(64)))
    whole = [*log[:offset], said(uncommitted), *log[offset:]]
    believing = make_log_trust(PREFIX, public("operator"))
    check = believing.wire.check_key_record

    def believe(raw: bytes) -> KeyRecord:
        found = codec.decode(raw, KeyRecord)
        return found if found == uncommitted else check(raw)

    trusting = replace(believing, wire=replace(believing.wire, check_key_record=believe))
    monkeypatch.setattr(old_records, "make_log_trust", lambda *_: trusting)
    late, early = [*log, said(uncommitted)], [*log[:offset], said(uncommitted), *log[offset:]]
    for whole in (late, early):
        assert [codec.decode(raw, KeyRecord) for raw in looked_up(whole, 2)] == [record]
    # Without its beginning nobody can say what was committed.
    with pytest.raises(BadInput, match=f"different records of epoch 2 of key default, at offsets {offset}, {len(log)}"):
        looked_up(late, 2, begin=offset)


def test_a_saved_log_is_read_as_far_as_it_goes_and_another_systems_is_refused(tmp_path: Path) -> None:
    log = on_disks_and_log().log
    path = tmp_path / "log"
    with log_file.saving(path, TOPIC) as writer:
        for each in logged(log):
            writer.add(each)
    settings = Settings(index=1, kafka_bootstrap="localhost:1", topic_prefix=PREFIX)
    taken: list[bytes] = []
    key_records._read_log(settings, path, lambda each: taken.append(each.value))
    assert taken == list(log)
    path.write_bytes(path.read_bytes()[:-300])
    taken.clear()
    with pytest.raises(DoesNotHold, match="log-file-cut"):
        key_records._read_log(settings, path, lambda each: taken.append(each.value))
    assert taken == list(log[: len(taken)])
    assert looked_up(taken, 1)
    other = Settings(index=1, kafka_bootstrap="localhost:1", topic_prefix="other.")
    with pytest.raises(BadInput, match="is the log of the topic"):
        key_records._read_log(other, path, lambda _: None)
