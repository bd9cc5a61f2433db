"""Only a finished prefix is committed, whatever the order in which records finish."""

from hypothesis import given
from hypothesis import strategies as st

from common.kafka.port import Record
from signer_service.protocol.machine import Origin
from signer_service.shell.offsets import OffsetBook
from signer_service.shell.records import RecordBook


@given(st.data())
def test_what_is_committed_is_exactly_the_finished_prefix(data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1, max_size=20)))
    order = data.draw(st.permutations(offsets))
    begun = data.draw(st.integers(1, len(offsets)))
    book = OffsetBook()
    for offset in offsets[:begun]:
        assert book.begin(3, offset)
    finished: set[int] = set()
    committed = -1
    for offset in order:
        if offset in offsets[begun:]:
            continue
        moved = book.finish(3, offset)
        finished.add(offset)
        prefix = [each for each in offsets[:begun] if all(o in finished for o in offsets[:begun] if o <= each)]
        expected = prefix[-1] + 1 if prefix else -1
        if moved is None:
            assert expected == committed
        else:
            assert moved == expected > committed
            committed = moved
        assert book.unfinished(3) == begun - len(finished)
    for offset in offsets[begun:]:
        assert book.begin(3, offset)


def test_a_record_that_is_read_twice_is_begun_once() -> None:
    book = OffsetBook()
    assert book.begin(0, 5)
    assert not book.begin(0, 5)
    assert book.finish(0, 5) == 6
    assert not book.begin(0, 5)
    assert book.finish(0, 5) is None
    assert book.begin(0, 6)


def test_a_partition_that_went_away_moves_no_more_and_may_come_back_at_an_older_offset() -> None:
    book = OffsetBook()
    book.begin(1, 9)
    book.forget(1)
    assert book.finish(1, 9) is None
    assert book.begin(1, 9)
    assert book.finish(1, 9) == 10


def record(offset: int, partition: int = 0) -> Record:
    return Record("signer.v1", partition, offset, None, None, b"")


def test_the_stages_of_a_record_are_timed_from_the_coordinator_to_the_last_report() -> None:
    now = 10.0
    stages: list[tuple[str, float]] = []
    book = RecordBook(lambda *_: None)
    book.clock, book.on_stage = lambda: now, lambda stage, seconds: stages.append((stage, seconds))
    book.begin(record(7))
    book.taken(Origin(0, 7), 3)
    reported = book.sending(0, 7)
    now = 10.5
    book.answered(0, 7)
    assert stages == [("round", 0.5)]
    now = 12.5
    reported()
    assert stages == [("round", 0.5), ("answer", 2.0)]
    book.begin(record(8))
    book.answered(0, 8)
    assert len(stages) == 2, "what no coordinator had was in no round"


def test_an_offset_waits_for_the_reports_on_everything_that_was_sent() -> None:
    stored: list[tuple[int, int]] = []
    book = RecordBook(lambda partition, offset: stored.append((partition, offset)))
    book.begin(record(7))
    book.taken(Origin(0, 7), 3)
    assert book.items == 3
    audit, answer = book.sending(0, 7), book.sending(0, 7)
    book.answered(0, 7)
    assert book.items == 0
    answer()
    assert stored == []
    assert book.deliveries({0}) == 1
    audit()
    assert stored == [(0, 8)]


def test_a_report_from_before_a_rebalance_does_not_finish_the_record_of_now() -> None:
    stored: list[tuple[int, int]] = []
    book = RecordBook(lambda partition, offset: stored.append((partition, offset)))
    book.begin(record(7))
    old = book.sending(0, 7)
    book.answered(0, 7)
    book.forget({0})
    book.begin(record(7))
    book.taken(Origin(0, 7), 1)
    old()
    assert stored == []
    assert book.items == 1
    book.answered(0, 7)
    assert stored == [(0, 8)]


def test_what_is_unknown_changes_nothing() -> None:
    book = RecordBook(lambda *_: None)
    book.answered(0, 1)
    book.sending(0, 1)()
    book.taken(Origin(0, 1), 5)
    assert book.items == 0
    assert book.record(Origin(0, 1)) is None
