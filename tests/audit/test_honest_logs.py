"""What an audit tells of logs that hold."""

from collections.abc import Iterable
from dataclasses import replace

from common.ids import Epoch
from common.wire import codec
from common.wire.messages import (
    NO_SIGNATURE,
    CeremonyRecord,
    Deal,
    Envelope,
    Erased,
    KeyRecord,
    Ready,
)
from common.wire.transcript import verification_hash
from signer_service.audit.report import as_json, as_lines
from signer_service.protocol.log_state import LogState
from tests import playbook
from tests.audit.logs import BEGIN_MS, audited, epochs, long_log, short_log
from tests.protocol.test_ceremony_lies import dealing, flip_sealed, wrong_sub_share
from tests.protocol.test_fold_log import hostile_log
from tests.world import World


def said(log: Iterable[bytes]) -> list[tuple[int, CeremonyRecord]]:
    envelopes = [codec.decode(raw, Envelope) for raw in log]
    return [(each.index, codec.decode_ceremony(each.payload)) for each in envelopes]


def test_an_honest_log_of_generate_refresh_heal_grow_and_shrink_holds() -> None:
    report = audited(long_log())
    assert report.problem is None
    found = epochs(report)
    assert [(each.epoch, each.what) for each in found] == [
        (1, "generate"),
        (2, "refresh"),
        (3, "heal"),
        (4, "grow"),
        (5, "shrink"),
    ]
    assert [(each.threshold, each.seats) for each in found[2:]] == [
        (2, (1, 2, 3)),
        (3, (1, 2, 3, 4)),
        (2, (1, 2, 3)),
    ]
    assert [each.reasons for each in found[:3]] == [("no-key",), ("request",), ("heal",)]
    assert found[2].qualified == (1, 2)
    assert [(each.seat, each.why) for each in found[2].no_deal] == [(3, "is healed: it held no share")]
    assert [(each.seat, each.why) for each in found[3].no_deal] == [(4, "joins: it held no share")]
    assert len({each.public_key for each in found}) == 1
    assert [sorted(each.erased) for each in found] == [[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3, 4], []]
    assert not any(each.can_be_stolen for each in found[:-1])
    assert [(each.version, each.seats) for each in report.rosters] == [
        (1, (1, 2, 3)),
        (2, (1, 2, 3, 4)),
        (3, (1, 2, 3)),
    ]


def test_what_an_audit_tells_of_an_epoch_is_what_its_records_say() -> None:
    report = audited(long_log())
    records = said(long_log())
    for each in epochs(report):
        record = records[each.committed][1]
        assert isinstance(record, KeyRecord)
        assert record.epoch == each.epoch
        assert {share.index: share.element for share in record.verification_shares} == each.verification_shares
        assert each.verification_hash == verification_hash(each.verification_shares)
        ready = [said for _, said in records if isinstance(said, Ready) and said.open_id == record.open_id]
        assert {said.transcript_hash for said in ready} == {each.transcript_hash}
        assert each.written_ms == BEGIN_MS + 1_000 * each.committed
        dealt = {seat for seat, said in records if isinstance(said, Deal) and said.open_id == record.open_id}
        # A seat that leaves may deal too late: it is not waited for.
        assert dealt & set(each.seats) <= set(each.qualified) <= dealt
        for seat, offset in each.erased.items():
            assert records[offset] == (seat, Erased(playbook.KEY, each.epoch))


def test_a_log_written_under_the_worst_weather_holds_and_its_rubbish_is_counted() -> None:
    report = audited(hostile_log())
    assert report.problem is None
    assert epochs(report)[-1].epoch >= 3
    assert report.counts["garbage-on-log"] > 0
    assert report.counts["late-record"] > 0


def test_a_dealer_that_was_put_out_is_named_with_the_reason_and_the_place() -> None:
    world = World(2, 3)
    world.seats[1].tamper = dealing(wrong_sub_share)
    world.start()
    world.run(lambda: world.holds(1))
    report = audited(world.log)
    assert report.problem is None
    (epoch,) = epochs(report)
    assert epoch.qualified == (2, 3)
    (out,) = epoch.no_deal
    assert (out.seat, out.why) == (1, "convicted by a complaint: what it sealed does not fit")
    assert out.offset is not None
    assert said(world.log)[out.offset][0] == 3, "the complaint of seat 3 convicts it"
    assert any("seat 1 is not among the dealers: convicted by a complaint" in line for line in as_lines(report))


def test_a_seat_that_was_away_is_named_and_so_is_the_erasure_that_is_missing() -> None:
    world = World(2, 3)
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(2_500)
    world.stop(3)
    world.ask_refresh(1)
    world.run(lambda: world.agrees(2, (1, 2)))
    world.run_for(2_500)
    report = audited(world.log)
    assert report.problem is None
    first, second = epochs(report)
    assert [(each.seat, each.why) for each in second.no_deal] == [(3, "did not announce in time")]
    # Nobody has erased: r is 3 of 3.
    assert first.missing == (1, 2, 3)
    assert first.can_be_stolen
    lines = list(as_lines(report))
    assert "epoch 1: 2 of its shares may still exist: seats 1 2 3" in lines
    assert any(line.endswith("missing 1 2 3") for line in lines)


def test_an_attempt_that_came_to_nothing_is_told_with_who_was_blamed() -> None:
    world = World(2, 3)
    for index in (1, 2):
        world.seats[index].tamper = dealing(lambda deal, world: flip_sealed(deal, 3) if first(world) else deal)
    world.start()
    world.run(lambda: world.holds(1))
    report = audited(world.log)
    assert report.problem is None
    (key,) = report.keys
    (ended,) = key.ended
    assert (ended.number, ended.phase, ended.reason) == (1, "verdict", "too few deals")
    assert {each.seat for each in ended.blamed} == {1, 2}
    assert key.epochs[0].attempt == 2


def first(world: World) -> bool:
    attempt = world.key().attempt
    return attempt is not None and attempt.number == 1


def test_a_log_that_ends_in_the_middle_of_a_ceremony_holds_as_far_as_it_goes() -> None:
    for length in range(1, len(short_log()), 5):
        report = audited(short_log()[:length])
        assert report.problem is None, length
    assert any(audited(short_log()[:length]).keys[0].phase for length in range(4, 10))


def test_an_erased_that_is_not_there_is_missing_and_an_erased_before_its_time_does_not_count() -> None:
    records = said(short_log())
    erased = [offset for offset, (_, record) in enumerate(records) if isinstance(record, Erased)]
    report = audited(short_log()[: erased[-1]])
    assert report.problem is None
    assert len(epochs(report)[0].missing) == 1
    world = World(2, 3)
    world.start()
    world.run(lambda: world.holds(1))
    world.say(1, Erased(playbook.KEY, Epoch(1)))
    world.run_for(100)
    (epoch,) = epochs(audited(world.log))
    assert not epoch.erased


def test_rubbish_at_the_end_of_a_log_is_told_and_holds_nobody_up() -> None:
    stranger = playbook.say(1, Erased(playbook.KEY, Epoch(1)), LogState(), name="somebody else")
    foreign = playbook.House("another operator").roster(2, (1, 2, 3), version=9)
    roster = playbook.say(1, codec.decode_ceremony(foreign), LogState())
    report = audited((*short_log(), b"rubbish", stranger, roster))
    assert report.problem is None
    told = {each.what: each.offset for each in report.remarks}
    end = len(short_log())
    assert told == {"garbage-on-log": end, "unknown-sender": end + 1, "foreign-roster": end + 2}


def test_the_json_says_what_the_table_says() -> None:
    report = audited(long_log())
    shown = as_json(report)
    assert shown["holds"] is True
    assert shown["problem"] is None
    (key,) = shown["keys"]
    assert key["epoch"] == 5
    assert [each["what"] for each in key["epochs"]] == ["generate", "refresh", "heal", "grow", "shrink"]
    assert key["epochs"][0]["time"] == "2023-11-14T22:13:38Z"
    assert key["epochs"][2]["did_not_deal"] == [{"seat": 3, "why": "is healed: it held no share", "offset": None}]
    lines = "\n".join(as_lines(report))
    assert key["public_key"] in lines
    assert key["epochs"][1]["transcript_hash"][:16] in lines
    assert shown["running_hash"] in lines


def test_a_log_goes_on_from_the_key_records_that_the_operator_names() -> None:
    old = World(2, 3)
    old.start()
    old.run(lambda: old.holds(1))
    current = old.key().current
    assert current is not None
    fresh = World(2, 3, seed=1)
    checkpoint = codec.encode(current.record)
    raw = fresh.house.roster(2, (1, 2, 3), version=2, log_generation=2, checkpoints=(checkpoint,))
    fresh.generation = 2
    for index, seat in fresh.seats.items():
        seat.roster, seat.disk = raw, old.seats[index].disk
    fresh.start()
    fresh.run(lambda: fresh.holds(1))
    fresh.run_for(2_500)
    fresh.ask_refresh(1)
    fresh.run(lambda: fresh.agrees(2))
    report = audited(fresh.log)
    assert report.problem is None
    assert [(each.epoch, each.what) for each in epochs(report)] == [(1, "checkpoint"), (2, "refresh")]
    # Its key record is one that anybody can check; one that is not, is refused.
    forged = codec.encode(replace(current.record, signature=NO_SIGNATURE))
    bad = fresh.house.roster(2, (1, 2, 3), version=3, log_generation=3, checkpoints=(forged,))
    report = audited([playbook.say(1, codec.decode_ceremony(bad), LogState())])
    assert report.problem is not None
    assert report.problem.code == "checkpoint-refused"
