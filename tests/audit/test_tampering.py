"""Whatever is done to a log, the audit says that it does not hold, what, and where."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.ids import Epoch, Offset
from common.wire import codec
from common.wire.messages import Deal, Envelope, Erased, HealRequest, KeyRecord, Ready, Roster
from signer_service.audit.facts import Problem, Report
from signer_service.protocol.fold import fold
from signer_service.protocol.log_state import LogState
from tests import playbook
from tests.audit.logs import audited, audited_records, logged, short_log
from tests.world import World

Log = tuple[bytes, ...]


def problem(report: Report) -> Problem:
    assert report.problem is not None
    return report.problem


@cache
def covered() -> int:
    """The last offset whose running hash a later record signs: what is done after it, the log alone cannot show."""
    return max(codec.decode(raw, Envelope).seen_offset for raw in short_log())


def place_of(kind: type) -> int:
    """Where the first record of this kind stands."""
    for offset, raw in enumerate(short_log()):
        if isinstance(codec.decode_ceremony(codec.decode(raw, Envelope).payload), kind):
            return offset
    raise AssertionError(kind)


def flipped(raw: bytes, at: int = -1) -> bytes:
    at %= len(raw)
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


@pytest.mark.parametrize("kind", [Deal, Ready, KeyRecord, Erased])
@pytest.mark.parametrize("at", [0, 200, -1])
def test_a_flipped_byte_in_the_middle_of_a_log_is_found_by_the_next_seat_that_signs(kind: type, at: int) -> None:
    place = place_of(kind)
    log = list(short_log())
    log[place] = flipped(log[place], at)
    found = problem(audited(log))
    assert found.code == "log-forked"
    assert found.offset is not None
    assert place < found.offset
    low, high = found.detail.split("records of offsets ")[1].split(" were")[0].split(" to ")
    assert int(low) <= place <= int(high)


@pytest.mark.parametrize("at", [0, 200, 525, -1])
def test_a_changed_commit_is_found_by_the_erased_that_follow_it_though_nobody_may_say_them_now(at: int) -> None:
    place = next(n for n in range(len(short_log()) - 1, 0, -1) if is_key_record(short_log()[n]))
    log = list(short_log()[: place + 1])
    state, trust = LogState(), playbook.House().trust
    for raw in log:
        state = fold(state, Offset(state.offset + 1), raw, trust).state
    log += [playbook.say(seat, Erased(playbook.KEY, Epoch(1)), state) for seat in (1, 2, 3)]
    assert audited(log).problem is None
    log[place] = flipped(log[place], at)
    found = problem(audited(log))
    assert (found.code, found.offset) == ("log-forked", place + 1)


@settings(max_examples=15)
@given(st.data())
def test_no_changed_byte_of_what_seats_have_signed_goes_unnoticed(data: st.DataObject) -> None:
    log = list(short_log())
    place = data.draw(st.integers(0, covered()))
    at = data.draw(st.integers(0, len(log[place]) - 1))
    bits = data.draw(st.integers(1, 255))
    log[place] = log[place][:at] + bytes([log[place][at] ^ bits]) + log[place][at + 1 :]
    problem(audited(log))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda log, at: (*log[:at], *log[at + 1 :]), id="left out"),
        pytest.param(lambda log, at: (*log[:at], log[at + 1], log[at], *log[at + 2 :]), id="swapped"),
        pytest.param(lambda log, at: (*log[:at], b"rubbish", *log[at:]), id="put in"),
        pytest.param(lambda log, at: (*log[:at], log[at], *log[at:]), id="repeated"),
    ],
)
@pytest.mark.parametrize("kind", [Deal, KeyRecord])
def test_records_left_out_moved_or_put_in_are_found_although_the_offsets_are_right(
    change: Callable[[Log, int], Log], kind: type
) -> None:
    assert problem(audited(change(short_log(), place_of(kind)))).code == "log-forked"


def test_an_offset_that_is_left_out_comes_again_or_too_late_is_named() -> None:
    records = logged(short_log())
    gap = problem(audited_records([*records[:10], *records[11:]]))
    assert (gap.code, gap.offset) == ("log-gap", 11)
    again = problem(audited_records([*records[:10], records[9], *records[10:]]))
    assert (again.code, again.offset) == ("log-order", 9)
    swapped = problem(audited_records([*records[:10], records[11], records[10], *records[12:]]))
    assert (swapped.code, swapped.offset) == ("log-gap", 11)
    cut = problem(audited_records(records[5:]))
    assert (cut.code, cut.offset) == ("log-start", 5)


def test_an_empty_log_and_one_without_a_roster_do_not_hold() -> None:
    assert problem(audited(())).code == "empty-log"
    assert problem(audited((b"rubbish",))).code == "no-roster"


def test_a_log_of_another_operator_does_not_hold() -> None:
    found = problem(audited(short_log(), operator="somebody else"))
    assert (found.code, found.offset) == ("no-roster", 0)
    assert "another operator" in found.detail


def test_a_seat_that_signs_another_history_is_named_with_its_offset() -> None:
    other = LogState(offset=LogState().offset + 3, running_hash=bytes([7]) * 64)  # type: ignore[arg-type]
    log = (*short_log(), playbook.say(2, Erased(playbook.KEY, Epoch(1)), other))
    found = problem(audited(log))
    assert (found.code, found.offset) == ("log-forked", len(log) - 1)
    assert found.detail.startswith("seat 2 has signed another running hash for offset 2")


def test_a_fork_that_the_operator_settled_is_told_and_held_against_nobody() -> None:
    other = LogState(offset=LogState().offset + 3, running_hash=bytes([7]) * 64)  # type: ignore[arg-type]
    log = (*short_log(), playbook.say(2, Erased(playbook.KEY, Epoch(1)), other))
    record = next(each for each in reversed(short_log()) if is_key_record(each))
    checkpoint = codec.decode(record, Envelope).payload
    raw = playbook.House().roster(2, (1, 2, 3), version=2, log_generation=2, checkpoints=(checkpoint,))
    report = audited((*log, playbook.say(1, codec.decode(raw, Roster), LogState())))
    assert report.problem is None
    (told,) = [each for each in report.remarks if each.what == "log-forked"]
    assert told.detail.endswith(f"settled by the operator at offset {len(log)}")
    assert [each.what for each in report.keys[0].epochs] == ["generate", "refresh", "checkpoint"]


def test_after_a_new_log_generation_seats_are_checked_against_the_hash_that_began_anew_with_it() -> None:
    trust = playbook.House().trust
    record = next(each for each in reversed(short_log()) if is_key_record(each))
    checkpoint = codec.decode(record, Envelope).payload
    raw = playbook.House().roster(2, (1, 2, 3), version=2, log_generation=2, checkpoints=(checkpoint,))
    log = [*short_log(), playbook.say(1, codec.decode(raw, Roster), LogState())]
    begun = len(log) - 1
    state = LogState()
    for raw in log:
        state = fold(state, Offset(state.offset + 1), raw, trust).state
    # What was before is another history to a seat that was shown something else; that is settled.
    shown_other = replace(state, offset=Offset(begun - 1), running_hash=bytes([7]) * 64)
    for seat, place in ((2, state), (3, shown_other)):
        log.append(playbook.say(seat, HealRequest(playbook.KEY, state.keys[playbook.KEY].epoch), place))
    report = audited(log)
    assert report.problem is None
    for raw in log[begun + 1 :]:
        state = fold(state, Offset(state.offset + 1), raw, trust).state
    assert (report.running_hash, state.forked) == (state.running_hash, False)
    log[begun + 1] = log[begun + 1][:-1] + bytes([log[begun + 1][-1] ^ 1])
    log.append(playbook.say(2, HealRequest(playbook.KEY, state.keys[playbook.KEY].epoch), state))
    found = problem(audited(log))
    assert (found.code, found.offset) == ("log-forked", len(log) - 1)
    assert f"records of offsets {begun}" in found.detail or f"records of offsets {begun + 1}" in found.detail


def is_key_record(raw: bytes) -> bool:
    return isinstance(codec.decode_ceremony(codec.decode(raw, Envelope).payload), KeyRecord)


def test_two_rosters_of_one_version_do_not_hold() -> None:
    raw = playbook.House().roster(3, (1, 2, 3), version=1)
    log = (*short_log(), playbook.say(1, codec.decode(raw, Roster), LogState()))
    found = problem(audited(log))
    assert (found.code, found.offset) == ("roster-alarm", len(log) - 1)
    assert "roster-conflict" in found.detail


def test_rules_that_this_program_does_not_know_are_not_guessed() -> None:
    raw = playbook.House().roster(2, (1, 2, 3), version=2, protocol_version=2)
    log = (*short_log(), playbook.say(1, codec.decode(raw, Roster), LogState()), b"rubbish")
    found = problem(audited(log))
    assert (found.code, found.offset) == ("protocol-version", len(log) - 2)


def test_a_key_record_of_another_history_that_anybody_would_believe_is_found() -> None:
    # The same seats, another log under the same name: its key record verifies wherever it is shown.
    other = World(2, 3, seed=5)
    other.start()
    other.run(lambda: other.holds(1))
    current = other.key().current
    assert current is not None
    log = (*short_log(), playbook.say(1, current.record, LogState()))
    found = problem(audited(log))
    assert (found.code, found.offset) == ("key-record-foreign", len(log) - 1)
    # Not signed by its group key, it is only rubbish.
    unsigned = replace(current.record, signature=bytes(64))
    assert audited((*short_log(), playbook.say(1, unsigned, LogState()))).problem is None


def test_a_key_record_of_a_fork_that_began_within_its_ceremony_is_found() -> None:
    # The Opens stand on both sides of the fork, and so the attempt has one name on both.
    world = World(2, 3, seed=3)
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(1_000)
    for index in world.seats:
        world.ask_refresh(index)
    world.run(lambda: world.key().attempt is not None)
    other = world.branch()
    other.random.seed(99)
    world.run(lambda: world.agrees(2))
    other.run(lambda: other.agrees(2))
    one, two = world.key().current, other.key().current
    assert one is not None
    assert two is not None
    assert one.record.open_id == two.record.open_id
    world.run_for(2_000)
    assert audited(tuple(world.log)).problem is None
    world.say(1, two.record)
    found = problem(audited(tuple(world.log)))
    assert (found.code, found.offset) == ("key-record-foreign", len(world.log) - 1)


def test_the_first_thing_that_does_not_hold_is_the_one_that_is_named() -> None:
    log = list(short_log())
    early, late = place_of(Deal), place_of(Erased)
    log[late] = flipped(log[late])
    one = problem(audited(log))
    log[early] = flipped(log[early])
    two = problem(audited(log))
    assert one.offset is not None
    assert two.offset is not None
    assert early < two.offset < late < one.offset
