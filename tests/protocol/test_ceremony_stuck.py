"""What one bad seat, a wrong clock or a careless hand must not bring about: a crash, a standstill, a lost safeguard."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from common.ids import Index, Instant, Offset, RecordId, RequestId
from common.wire import codec
from common.wire.envelope import edge_key_id, sign_request
from common.wire.messages import CeremonyRecord, Erased, Mode, MsgToSign, Open, OpenReason, Ready, SignItem
from common.wire.signatures import ENVELOPE_DOMAIN, SIGNATURE_BYTES, sign_bytes
from signer_service.protocol import ceremony
from signer_service.protocol.ceremony_disk import durable, restore
from signer_service.protocol.ceremony_opening import next_due
from signer_service.protocol.ceremony_state import CaughtUp, LogLost, LogRecord
from signer_service.protocol.fold import fold
from signer_service.protocol.log_state import LogState
from signer_service.protocol.machine import RefreshAsked, Tick, ToLog
from tests import playbook
from tests.world import World


def folded(log: Iterable[bytes]) -> LogState:
    state = LogState()
    for raw in log:
        state = fold(state, Offset(state.offset + 1), raw, playbook.House().trust).state
    return state


def with_key(threshold: int = 2, size: int = 3) -> World:
    world = World(threshold, size)
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(2_500)
    return world


def padded(raw: bytes, payload: bytes, name: str) -> bytes:
    """The same envelope with thousands of bytes more: Avro libraries read an integer with zeros before it."""
    body = raw[:-SIGNATURE_BYTES]
    at = body.index(payload)
    length = bytearray()
    number = 2 * len(payload)
    while number:
        length.append(number % 128 | 128)
        number //= 128
    assert body[:at].endswith(bytes(length[:-1]) + bytes([length[-1] & 127]))
    longer = body[: at - len(length)] + bytes(length) + b"\x80" * 20_000 + b"\x00" + payload
    return sign_bytes(ENVELOPE_DOMAIN, longer + bytes(SIGNATURE_BYTES), playbook.private(name))


def test_a_bloated_envelope_of_a_ready_neither_counts_nor_makes_the_key_record_too_large() -> None:
    world = with_key()

    def bloat(record: CeremonyRecord, world: World) -> Iterable[CeremonyRecord]:
        state = world.seats[1].state
        if not isinstance(record, Ready) or state is None:
            return [record]
        raw = playbook.say(1, record, state.log)
        payload = world.trust.wire.encode_record(record)
        world.append(padded(raw, payload, "seat 1"))
        return []

    world.seats[1].tamper = bloat
    world.ask_refresh(2)
    world.run(lambda: world.agrees(2, (2, 3)))
    current = world.key().current
    assert current is not None
    assert Index(1) not in current.ready
    playbook.every_subset_signs(world.keys_at(seats=(2, 3)))


# --- rosters ---------------------------------------------------------------------------------------------------------


def test_a_roster_file_of_the_version_in_force_but_with_other_bytes_is_an_alarm() -> None:
    world = World(2, 3)
    world.start()
    world.run(lambda: world.holds(1))
    world.stop(3)
    # Somebody signed twice: seat 3 finds the other one when it starts, before it has read any of the log.
    world.seats[3].disk = None
    world.seats[3].roster = world.house.roster(2, (1, 2, 3), edge_keys=(playbook.public("another edge"),))
    world.start(3)
    world.run_for(1_000)
    assert [note.fields["code"] for note in world.seats[3].notes if note.name == "roster-alarm"] == ["roster-conflict"]


def test_an_identity_key_that_a_leaver_hands_to_another_seat_counts_once() -> None:
    world = with_key()
    log = folded(world.log)
    moved = world.house.roster(2, (2, 3), version=2, names={2: "seat 1"})
    log = fold(log, Offset(log.offset + 1), playbook.say(3, codec.decode_ceremony(moved), log), world.trust).state
    for seat in (1, 2):
        raw = playbook.say(seat, playbook.reshare_open(1, 1, 2), log, name="seat 1")
        log = fold(log, Offset(log.offset + 1), raw, world.trust).state
    assert len(log.keys[playbook.KEY].opens) == 1
    assert log.keys[playbook.KEY].attempt is None


# --- erasing ---------------------------------------------------------------------------------------------------------


def test_a_machine_that_took_over_a_seat_does_not_vouch_for_what_the_one_before_erased() -> None:
    world = with_key()
    world.lose_disk(3)
    world.seats[3].name = "new seat 3"
    world.give_roster(world.house.roster(2, (1, 2, 3), version=2, names={3: "new seat 3"}))
    world.start(3)
    world.run(lambda: world.agrees(2))
    world.run_for(3_000)
    past = world.key().past[-1]
    assert set(past.erased) == {1, 2}
    said = len(world.log)
    world.run_for(10_000)
    assert len(world.log) == said, "it does not try for ever"
    world.say(3, Erased(playbook.KEY, past.epoch), name="new seat 3")
    world.run_for(100)
    assert set(world.key().past[-1].erased) == {1, 2}


def test_a_checkpoint_erases_no_old_share_unless_enough_seats_attest_the_new_one() -> None:
    world = with_key()
    world.ask_refresh(1)
    world.run(lambda: (attempt := world.key().attempt) is not None and Index(3) in attempt.announced)
    world.stop(3)
    world.run(lambda: world.agrees(2, (1, 2)))
    world.run_for(2_000)
    current = world.key().current
    assert current is not None
    fresh = World(2, 3, seed=9)
    fresh.generation = 2
    checkpoint = codec.encode(current.record)
    raw = fresh.house.roster(2, (1, 2, 3), version=2, log_generation=2, checkpoints=(checkpoint,))
    for index, seat in fresh.seats.items():
        seat.roster, seat.disk = raw, world.seats[index].disk
    fresh.start(1, 2)
    fresh.run(lambda: fresh.holds(2, (1, 2)))
    fresh.run_for(3_000)
    for index in (1, 2):
        state = fresh.seats[index].state
        assert state is not None
        assert [held.epoch for held in state.of_key(playbook.KEY).held] == [1, 2]
    # With the third there are enough, after a refresh at the latest: it lost what it announced with the log.
    fresh.seats[3].disk = None
    fresh.start(3)
    fresh.run(lambda: fresh.agrees(3))
    fresh.run_for(3_000)
    state = fresh.seats[1].state
    assert state is not None
    assert [held.epoch for held in state.of_key(playbook.KEY).held] == [3]


# --- clocks ----------------------------------------------------------------------------------------------------------


def test_a_clock_that_was_ahead_and_is_right_again_delays_nothing() -> None:
    world = with_key()
    state = world.seats[1].state
    assert state is not None
    year = 365 * 86_400_000
    later = Instant(world.now + year)
    # One record was sent, one Open made, while the clock was a year ahead; then it was set right.
    asked = RefreshAsked(playbook.KEY, playbook.refresh_request(playbook.KEY, later))
    ahead = ceremony.step(state, asked, later, world.entropy)
    assert any(isinstance(each, ToLog) and isinstance(each.message, Open) for each in ahead.send)
    ticked = ceremony.step(ahead.state, Tick(), Instant(world.now), world.entropy).state
    started = restore(durable(ahead.state), Index(1), world.trust, world.timing)
    started = ceremony.step(started, CaughtUp(), Instant(world.now), world.entropy).state
    for after in (ticked, started):
        assert after.opened[playbook.KEY] <= world.now
        due = ceremony.step(after, Tick(), Instant(world.now + world.timing.resend_ms), world.entropy)
        again = [each.message for each in due.send if isinstance(each, ToLog)]
        assert [each for each in again if isinstance(each, Open)]


def test_an_epoch_that_began_while_the_clock_was_ahead_is_refreshed_by_schedule() -> None:
    world = with_key()
    state = world.seats[1].state
    assert state is not None
    state = replace(state, committed={playbook.KEY: Instant(world.now + 10**12)})
    after = ceremony.step(state, Tick(), Instant(world.now), world.entropy).state
    assert next_due(after, after.log.keys[playbook.KEY]) <= world.now + 2 * world.timing.refresh_interval_ms


# --- work ------------------------------------------------------------------------------------------------------------


def test_a_large_open_of_one_bad_seat_is_read_once_and_not_at_each_step() -> None:
    world = with_key()
    items = tuple(
        SignItem(RequestId(playbook.boot(str(i))), playbook.KEY, Mode.SIGN, bytes(7_000), "a", Instant(1), Instant(2))
        for i in range(64)
    )
    boot = playbook.boot("pod")
    request = MsgToSign(RecordId(boot), items, "signer.v1.resp0", boot, edge_key_id(playbook.public("edge")))
    evidence = sign_request(request, playbook.private("edge"))
    world.say(3, replace(playbook.reshare_open(1, 1, 1), reason=OpenReason.REQUEST, evidence=evidence))
    world.run_for(200)
    state = world.seats[1].state
    assert state is not None
    assert state.log.keys[playbook.KEY].opens, "it stands there until others come"
    read: list[bytes] = []

    def decode(raw: bytes) -> MsgToSign:
        read.append(raw)
        return codec.decode(raw, MsgToSign)

    counting = replace(state.trust, wire=replace(state.trust.wire, decode_request=decode))
    state = replace(state, trust=counting)
    for _ in range(20):
        state = ceremony.step(state, Tick(), Instant(world.now), world.entropy).state
    assert len(read) == 1


# --- the broker's word -----------------------------------------------------------------------------------------------


def test_a_broker_that_lies_about_the_time_does_not_bring_one_refresh_after_another() -> None:
    world = World(2, 3, timing=replace(playbook.QUICK, refresh_interval_ms=60_000))
    world.written = Instant(1)
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(30_000)
    assert world.key().epoch == 1


def test_nothing_is_folded_once_the_log_was_lost() -> None:
    world = with_key()
    state = world.seats[1].state
    assert state is not None
    lost = ceremony.step(state, LogLost(), Instant(world.now), world.entropy).state
    # Another log stands in the place of the one that was lost, and has grown past where this seat was.
    strange = LogRecord(Offset(state.log.offset + 1), b"of another log", None)
    assert ceremony.step(lost, strange, Instant(world.now), world.entropy).state.log == state.log


# --- opening ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threshold", "size"), [(2, 3), (3, 5)])
def test_one_bad_seat_can_neither_hinder_healing_nor_turn_it_into_a_storm(threshold: int, size: int) -> None:
    # Seat 1 always opens first, for no reason to heal, so that its Open and an honest one to heal would be t.
    world = with_key(threshold, size)
    world.seats[1].tamper = lambda record, _: (
        [] if isinstance(record, Open) and record.reason is not OpenReason.HEAL else [record]
    )

    def race() -> None:
        key = world.key()
        if key.attempt is None and all(seat != 1 for seat, _ in key.opens):
            world.say(1, playbook.reshare_open(key.epoch, key.ended + 1, 1))
        world.at(5, race)

    world.lose_disk(size)
    world.start(size)
    race()
    world.run(lambda: world.agrees(2), 60_000)
    assert world.key().epoch == 2
    world.run_for(10_000)
    assert world.key().epoch == 2


def test_a_seat_that_wants_a_refresh_may_still_join_those_who_want_to_heal() -> None:
    world = with_key(3, 5)
    world.lose_disk(5)
    world.start(5)
    # Four seats say that it is time, but two of these Opens get lost for long: no t of one mind.
    late = {3, 4}
    for index in late:
        world.seats[index].tamper = lambda record, _: (
            [] if isinstance(record, Open) and record.reason is not OpenReason.HEAL else [record]
        )
    world.run_for(1_000)
    for index in (1, 2):
        world.say(index, playbook.reshare_open(1, 1, 1))
    world.run(lambda: world.agrees(2), 60_000)
    playbook.every_subset_signs(world.keys_at())
