"""A seat that hears nothing cannot know who is late: it votes no phase closed, and that time does not count."""

from dataclasses import replace

import pytest

from common.ids import Instant
from common.wire import codec
from common.wire.messages import Announce, CeremonyRecord, Envelope, PhaseVote
from signer_service.protocol import ceremony
from signer_service.protocol.ceremony_agenda import patience_ms
from signer_service.protocol.ceremony_state import CeremonyState, Event, Hears
from signer_service.protocol.log_state import Attempt
from signer_service.protocol.machine import Outgoing, Tick, ToLog
from tests import playbook
from tests.protocol.test_coming_back_late import state_of
from tests.protocol.test_old_shares import PausedWorld, with_key


def waiting_for_seat_three(world: PausedWorld) -> None:
    """A refresh is open, and seat 3's Announce does not come."""
    world.seats[3].tamper = lambda record, _: [] if isinstance(record, Announce) else [record]
    for index in world.seats:
        world.ask_refresh(index)
    world.run(lambda: world.key().attempt is not None and len(world.key().attempt.announced) == 2)  # type: ignore[union-attr]


def open_attempt(world: PausedWorld) -> Attempt:
    attempt = world.key().attempt
    assert attempt is not None
    return attempt


def votes(sent: tuple[Outgoing, ...]) -> int:
    return sum(isinstance(each, ToLog) and isinstance(each.message, PhaseVote) for each in sent)


def said(raw: bytes) -> CeremonyRecord:
    return codec.decode_ceremony(codec.decode(raw, Envelope).payload)


def test_patience_does_not_run_while_a_seat_is_deaf() -> None:
    world = with_key(2, 3)
    waiting_for_seat_three(world)
    state, attempt = state_of(world, 1), world.key().attempt
    assert attempt is not None
    patience, begun = patience_ms(state, attempt), state.soft.since[playbook.KEY].at

    def at(state: CeremonyState, event: Event, ms: int) -> tuple[CeremonyState, int]:
        done = ceremony.step(state, event, Instant(begun + ms), world.entropy)
        return done.state, votes(done.send)

    assert at(state, Tick(), patience)[1] == 1
    deaf, voted = at(state, Hears(False), patience - 1)
    for ms in (patience, 5 * patience):
        deaf, more = at(deaf, Tick(), ms)
        voted += more
    heard, more = at(deaf, Hears(True), 5 * patience)
    assert voted + more == 0
    # Nearly all of its patience was over before: what was said meanwhile has a while to arrive all the same.
    due = 5 * patience + world.timing.resend_ms
    again = ceremony.step(heard, Hears(True), Instant(begun + due - 1), world.entropy)
    assert votes(again.send) == 0
    assert again.wake_at == begun + due
    assert at(again.state, Tick(), due)[1] == 1


def test_a_phase_that_begins_while_a_seat_is_deaf_is_waited_for_in_full() -> None:
    world = with_key(2, 3)
    world.feed(1, Hears(False))
    waiting_for_seat_three(world)
    patience = patience_ms(state_of(world, 1), open_attempt(world))
    world.run_for(1_000)
    world.feed(1, Hears(True))
    assert state_of(world, 1).soft.since[playbook.KEY].at == world.now
    assert not votes(ceremony.step(state_of(world, 1), Tick(), Instant(world.now + patience - 1), world.entropy).send)


@pytest.mark.parametrize("apart", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("patience_is", ["longer than a resend", "as long as a resend"])
def test_short_deafness_again_and_again_puts_no_vote_off_for_ever(patience_is: str, apart: float) -> None:
    world = with_key(2, 3)
    waiting_for_seat_three(world)
    state, attempt = state_of(world, 1), open_attempt(world)
    patience, begun = patience_ms(state, attempt), state.soft.since[playbook.KEY].at
    if patience_is == "as long as a resend":
        state = replace(state, timing=replace(state.timing, resend_ms=patience))
    every, voted_at, now = int(patience * apart), None, int(begun)
    while voted_at is None and now < begun + 20 * patience:
        now += every
        for event, ms in ((Tick(), -1), (Hears(False), 0), (Hears(True), 20)):
            done = ceremony.step(state, event, Instant(now + ms), world.entropy)
            state = done.state
            voted_at = now if votes(done.send) else voted_at
    assert voted_at is not None
    assert begun + patience <= voted_at <= begun + 4 * patience


def test_who_is_deaf_for_long_says_so_once_each_time() -> None:
    world = with_key(2, 3)

    def told() -> int:
        return [note.name for note in world.seats[1].notes].count("hears-nothing")

    world.feed(1, Hears(False))
    world.run_for(world.timing.absent_holder_ms)
    assert told() == 0
    world.run_for(1)
    world.run_for(10 * world.timing.absent_holder_ms)
    assert told() == 1
    world.feed(1, Hears(True))
    world.feed(1, Hears(False))
    world.run_for(2 * world.timing.absent_holder_ms)
    assert told() == 2
    world.feed(1, Hears(True))
    world.feed(1, Hears(False))
    world.run_for(10)
    world.feed(1, Hears(True))
    world.run_for(2 * world.timing.absent_holder_ms)
    assert told() == 2


@pytest.mark.parametrize("told", [True, False])
def test_a_pause_of_the_broker_votes_nobody_out(told: bool) -> None:
    """All hear nothing for long. What they say meanwhile is written afterwards, that of the slowest last."""
    world = with_key(2, 3)
    waiting_for_seat_three(world)
    kept: list[tuple[int, CeremonyRecord]] = []

    def keep(index: int, record: CeremonyRecord) -> list[CeremonyRecord]:
        kept.append((index, record))
        return []

    for index, seat in world.seats.items():
        world.pause(index)
        seat.tamper = lambda record, _, index=index: keep(index, record)
        if told:
            world.feed(index, Hears(False))
    world.run_for(2 * world.timing.absent_holder_ms)
    for index in world.seats:
        world.go_on(index)
        if told:
            world.feed(index, Hears(True))
    for index, record in sorted(kept, key=lambda each: each[0]):
        world.say(index, record)
    world.run(lambda: world.agrees(2, (1, 2)))
    assert any(isinstance(record, PhaseVote) for record in map(said, world.log)) is not told
    assert world.holds(2) is told, "a refresh without a seat that was merely not heard has to heal it afterwards"
