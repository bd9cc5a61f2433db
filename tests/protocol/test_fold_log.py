"""The fold of the ceremony log: the same everywhere, total, and nobody's word but the right seat's."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.ids import Epoch, Index, Offset
from common.wire import codec
from common.wire.envelope import Signer, seal
from common.wire.messages import (
    CeremonyKind,
    Erased,
    HealRequest,
    Open,
    OpenReason,
    Role,
)
from common.wire.transcript import LOG_START_HASH, next_log_hash
from signer_service.protocol.findings import Folded
from signer_service.protocol.fold import fold
from signer_service.protocol.log_state import HASH_PREFIX, WINDOW, LogState
from signer_service.protocol.snapshot import pack, unpack
from tests import playbook
from tests.world import CALM, HOSTILE, World

HOUSE = playbook.House()


def folded(log: Sequence[bytes], state: LogState | None = None) -> LogState:
    state = state or LogState()
    for raw in log:
        state = fold(state, Offset(state.offset + 1), raw, HOUSE.trust).state
    return state


def add(state: LogState, raw: bytes) -> Folded:
    return fold(state, Offset(state.offset + 1), raw, HOUSE.trust)


def names(found: Folded) -> list[str]:
    return [finding.note.name for finding in found.findings]


@cache
def hostile_log() -> tuple[bytes, ...]:
    """A key generation under the worst weather, two refreshes, and what came in between."""
    world = World(2, 3, 11, HOSTILE)
    world.start()
    world.run(lambda: world.holds(1))
    for epoch in (2, 3):
        world.run_for(1_500)
        for index in world.seats:
            world.ask_refresh(index)
        world.run(lambda epoch=epoch: world.agrees(epoch))  # type: ignore[misc]
    world.weather = CALM
    world.run_for(3_000)
    return tuple(world.log)


def opening(attempt: int = 1, version: int = 1, seat: int = 1, **changes: object) -> Open:
    said = Open(
        playbook.KEY,
        CeremonyKind.GENERATE,
        Epoch(0),
        attempt,
        version,
        OpenReason.NO_KEY,
        playbook.seed(f"open {seat} {attempt}"),
        b"",
    )
    return replace(said, **changes)  # type: ignore[arg-type]


def begun(*lines: bytes) -> LogState:
    roster = codec.decode_ceremony(HOUSE.roster(2, (1, 2, 3)))
    return folded([playbook.say(1, roster, LogState()), *lines])


def test_the_same_log_gives_the_same_state() -> None:
    log = hostile_log()
    assert folded(log) == folded(log)
    assert folded(log).keys[playbook.KEY].epoch >= 3


def test_a_journal_taken_at_any_offset_goes_on_to_the_same_state() -> None:
    log = hostile_log()
    whole = folded(log)
    state = LogState()
    for at, raw in enumerate(log):
        state = unpack(LogState, pack(LogState, state))
        state = fold(state, Offset(at), raw, HOUSE.trust).state
    assert state == whole
    assert pack(LogState, state) == pack(LogState, whole)


def test_the_running_hash_is_over_everything_garbage_included() -> None:
    log, expected = hostile_log(), LOG_START_HASH
    for offset, raw in enumerate(log):
        expected = next_log_hash(expected, Offset(offset), raw)
    assert folded(log).running_hash == expected


def test_a_record_that_was_folded_already_changes_nothing() -> None:
    log = hostile_log()
    state = folded(log)
    for offset in (0, 3, len(log) - 1):
        assert fold(state, Offset(offset), log[offset], HOUSE.trust).state is state


def test_the_journal_does_not_grow_with_past_epochs() -> None:
    world = World(2, 3)
    world.start()
    world.run(lambda: world.holds(1))
    sizes = []
    for epoch in range(2, 9):
        world.run_for(1_500)
        world.ask_refresh(1)
        world.run(lambda epoch=epoch: world.agrees(epoch))  # type: ignore[misc]
        world.run_for(1_000)
        state = replace(folded(world.log), window=b"")
        sizes.append(len(pack(LogState, state)))
    assert max(sizes) - min(sizes) < 64
    assert len(folded(world.log).window) <= WINDOW * HASH_PREFIX


@settings(max_examples=20)
@given(st.data())
def test_whatever_stands_in_the_log_the_fold_goes_on(data: st.DataObject) -> None:
    log = hostile_log()
    at = data.draw(st.integers(0, len(log)))
    state = folded(log[:at])
    raw = bytearray(data.draw(st.sampled_from(log)))
    for _ in range(data.draw(st.integers(0, 3))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    after = fold(state, Offset(at), bytes(raw), HOUSE.trust).state
    assert after.offset == at
    assert unpack(LogState, pack(LogState, after)) == after


@given(st.binary(max_size=300))
def test_noise_counts_in_the_hash_and_nowhere_else(noise: bytes) -> None:
    before = begun()
    found = add(before, noise)
    assert names(found) == ["garbage-on-log"]
    assert replace(found.state, offset=before.offset, running_hash=before.running_hash, window=before.window) == before


# --- who may say what ------------------------------------------------------------------------------------------------


def test_t_equal_opens_of_different_seats_open_an_attempt() -> None:
    state = begun()
    state = add(state, playbook.say(1, opening(seat=1), state)).state
    again = add(state, playbook.say(1, opening(seat=9), state)).state
    assert again.keys[playbook.KEY].attempt is None
    state = add(again, playbook.say(3, opening(seat=3), again)).state
    attempt = state.keys[playbook.KEY].attempt
    assert attempt is not None
    assert (attempt.number, attempt.generate) == (1, True)


@pytest.mark.parametrize(
    "wrong",
    [
        opening(attempt=2),
        opening(version=2),
        opening(kind=CeremonyKind.RESHARE),
        opening(from_epoch=Epoch(1)),
    ],
)
def test_an_open_that_is_not_the_next_one_counts_for_nothing(wrong: Open) -> None:
    state = begun()
    for seat in (1, 2, 3):
        state = add(state, playbook.say(seat, wrong, state)).state
    assert not state.keys[playbook.KEY].opens
    assert state.keys[playbook.KEY].attempt is None


def test_what_somebody_without_the_seats_key_says_counts_for_nothing() -> None:
    state = begun()
    forged = playbook.say(1, opening(), state, name="seat 2")
    elsewhere = playbook.say(1, opening(), state, topic="signer.v1.audit")
    pod = seal(Signer(Role.API, 1, playbook.boot("pod"), playbook.private("edge")), playbook.TOPIC, b"x")
    for raw, said in ((forged, "unknown-sender"), (elsewhere, "garbage-on-log"), (pod, "garbage-on-log")):
        found = add(state, raw)
        assert names(found) == [said]
        assert not found.state.keys[playbook.KEY].opens


def test_a_sender_that_has_seen_another_log_raises_the_alarm() -> None:
    state = begun()
    other = replace(state, running_hash=bytes(64))
    found = add(state, playbook.say(1, opening(), other))
    assert found.state.forked
    assert "log-forked" in names(found)
    # Alarm stays, and the fold goes on the same way as where nobody noticed.
    assert found.state.keys[playbook.KEY].opens


def test_a_sender_that_has_seen_what_is_still_to_come_raises_the_alarm() -> None:
    state = begun()
    assert add(state, playbook.say(1, opening(), replace(state, offset=Offset(9)))).state.forked


def test_a_record_from_long_ago_does_not_count_and_is_no_alarm() -> None:
    state = begun()
    raw = playbook.say(1, opening(), state)
    for _ in range(WINDOW + 1):
        state = add(state, b"noise").state
    found = add(state, raw)
    assert names(found) == ["stale-record"]
    assert not found.state.forked
    assert not found.state.keys[playbook.KEY].opens


# --- rosters ---------------------------------------------------------------------------------------------------------


def bring(state: LogState, raw: bytes, seat: int = 1) -> Folded:
    return add(state, playbook.say(seat, codec.decode_ceremony(raw), state))


def test_a_roster_by_another_operator_counts_for_nothing() -> None:
    mallory = playbook.House("mallory")
    state = begun()
    found = bring(state, mallory.roster(2, (1, 2, 3), version=9))
    assert names(found) == ["foreign-roster"]
    assert found.state.roster == state.roster


def test_a_roster_counts_whoever_brings_it() -> None:
    state = begun()
    found = bring(state, HOUSE.roster(2, (1, 2, 3, 4), version=2), seat=4)
    assert found.state.roster is not None
    assert found.state.roster.version == 2


def test_a_second_copy_of_a_roster_ends_nothing() -> None:
    state = begun()
    for seat in (1, 2):
        state = add(state, playbook.say(seat, opening(seat=seat), state)).state
    for seat in (1, 2, 3):
        state = bring(state, HOUSE.roster(2, (1, 2, 3)), seat).state
    assert state.keys[playbook.KEY].attempt is not None


def test_a_newer_roster_ends_every_open_ceremony() -> None:
    state = begun()
    for seat in (1, 2):
        state = add(state, playbook.say(seat, opening(seat=seat), state)).state
    found = bring(state, HOUSE.roster(2, (1, 2, 3), version=2))
    assert "ceremony-ended" in names(found)
    key = found.state.keys[playbook.KEY]
    assert (key.attempt, key.ended, key.opens) == (None, 1, ())


def test_two_rosters_of_one_version_are_an_alarm_and_the_first_counts() -> None:
    state = begun()
    found = bring(state, HOUSE.roster(2, (1, 2)))
    assert "roster-alarm" in names(found)
    assert found.state.roster == state.roster


def test_an_older_roster_changes_nothing() -> None:
    state = bring(begun(), HOUSE.roster(2, (1, 2, 3), version=3)).state
    assert bring(state, HOUSE.roster(2, (1, 2, 3), version=2)).state.roster == state.roster


def test_a_roster_of_rules_that_we_do_not_know_stops_the_fold_before_it() -> None:
    state = begun()
    found = bring(state, HOUSE.roster(2, (1, 2, 3), version=2, protocol_version=2))
    assert found.state.halted_by == 2
    assert found.state.offset == state.offset
    assert add(found.state, b"more").state.offset == state.offset


def test_only_a_roster_of_a_new_log_generation_ends_the_alarm_of_a_fork() -> None:
    log = hostile_log()
    state = replace(folded(log), forked=True)
    current = state.keys[playbook.KEY].current
    assert current is not None
    newer = bring(state, HOUSE.roster(2, (1, 2, 3), version=2)).state
    assert newer.forked
    checkpoint = codec.encode(current.record)
    fresh = bring(newer, HOUSE.roster(2, (1, 2, 3), version=3, log_generation=2, checkpoints=(checkpoint,))).state
    assert not fresh.forked
    after = fresh.keys[playbook.KEY].current
    assert after is not None
    assert (after.record, after.offset) == (current.record, fresh.offset)


def test_a_checkpoint_that_does_not_stand_for_itself_is_refused() -> None:
    log = hostile_log()
    state = folded(log)
    current = state.keys[playbook.KEY].current
    assert current is not None
    forged = codec.encode(replace(current.record, signature=bytes(64)))
    found = bring(state, HOUSE.roster(2, (1, 2, 3), version=2, log_generation=2, checkpoints=(forged,)))
    assert "checkpoint-refused" in names(found)
    assert found.state.keys[playbook.KEY].current is None


# --- after a commit --------------------------------------------------------------------------------------------------


def test_a_second_key_record_that_differs_in_its_signature_is_nobodys_fault() -> None:
    state = folded(hostile_log())
    current = state.keys[playbook.KEY].current
    assert current is not None
    found = add(state, playbook.say(2, replace(current.record, signature=bytes(64)), state))
    assert not found.findings
    assert found.state.keys == state.keys


def test_erased_counts_once_for_a_holder_and_never_for_a_stranger() -> None:
    state = folded(hostile_log())
    key = state.keys[playbook.KEY]
    epoch = key.past[-1].epoch
    assert set(key.past[-1].erased) == {1, 2, 3}
    after = add(state, playbook.say(1, Erased(playbook.KEY, epoch), state)).state
    after = add(after, playbook.say(9, Erased(playbook.KEY, epoch), after)).state
    assert after.keys[playbook.KEY] == key


def test_a_heal_request_of_another_epoch_does_not_stand() -> None:
    state = folded(hostile_log())
    epoch = state.keys[playbook.KEY].epoch
    after = add(state, playbook.say(2, HealRequest(playbook.KEY, Epoch(epoch - 1)), state)).state
    assert not after.keys[playbook.KEY].heals
    after = add(after, playbook.say(2, HealRequest(playbook.KEY, epoch), after)).state
    assert set(after.keys[playbook.KEY].heals) == {Index(2)}
