"""What a coordinator answers, when, and to whom; and what it never begins (promise P6)."""

import gc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import BadInput
from common.ids import BootId, Epoch, Index, Instant, KeyId, Offset
from common.wire.messages import (
    RESERVED_PREFIX,
    Accepted,
    AuditKind,
    Declined,
    DeclineReason,
    Mode,
    NonceBatch,
    NonceGrant,
    NonceRequest,
    RefusalCode,
    Refused,
    Share,
    SignatureShares,
    Signed,
    SignItem,
    SignPackage,
)
from signer_service.protocol import coordinator
from signer_service.protocol.blame import check_blame_evidence
from signer_service.protocol.machine import (
    Answer,
    Origin,
    PeerArrived,
    RecordDone,
    RefreshAsked,
    RequestArrived,
    RequestsDropped,
    Sender,
    Tick,
    ToAudit,
)
from signer_service.protocol.nonce_pool import POOL_SIZE
from signer_service.protocol.peers import FIRST_WINDOW, FORGET_MS, Candidate, PeerBook, PeerStats
from signer_service.protocol.sessions import Record, Session, Work
from signer_service.protocol.view import ViewChanged
from tests.protocol.signing_world import KEY, START, WIRE, Asked, Dice, Pod, Weather, World, honest_share
from tests.protocol.test_signing_world import change_shares, messages, plus_one, silent


@pytest.fixture
def world() -> World:
    world = World(3, 2)
    world.run(300)
    return world


def results(world: World) -> list[Signed | Refused | Accepted]:
    return [outcome.result for outcome in world.outcomes().values()]


def codes(world: World) -> set[tuple[RefusalCode, bool]]:
    return {(r.code, r.retryable) for r in results(world) if isinstance(r, Refused)}


# --- refusals --------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], RefusalCode, bool]] = {
    "unknown key": ({"key_id": KeyId("nobody")}, RefusalCode.UNKNOWN_KEY, False),
    "no key yet": ({"key_id": KeyId("later")}, RefusalCode.NO_KEY_YET, True),
    "reserved prefix": ({"message": RESERVED_PREFIX}, RefusalCode.RESERVED_PREFIX, False),
    "expired": ({"created_ms": Instant(START - 9_000), "deadline_ms": Instant(START)}, RefusalCode.EXPIRED, False),
    "too far": ({"deadline_ms": Instant(START + 40_000)}, RefusalCode.DEADLINE_TOO_FAR, False),
    "refresh": ({"mode": Mode.REFRESH, "message": b""}, RefusalCode.REFRESH_UNAVAILABLE, False),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_item_that_cannot_be_signed_is_refused_at_once_and_the_others_are_signed(world: World, name: str) -> None:
    change, code, retryable = REFUSED[name]
    view = world.view(Index(1), key_ids=(KEY, KeyId("later")))
    world.change_view(Index(1), view)
    world.ask(1, [world.pod.item(b"good", world.now), replace(world.pod.item(b"bad", world.now), **change)])
    refused_at_once = [outcome for *_, outcome in world.answers]
    assert [o.result.code for o in refused_at_once if isinstance(o.result, Refused)] == [code]
    assert world.done == []
    world.run_until_answered()
    if name != "expired":  # its answer can only come after its deadline
        assert codes(world) == {(code, retryable)}
        assert len(world.signed()) == 1
    assert len(world.done) == 1
    kinds = [entry.kind for _, entry in world.audit]
    assert sorted(kind.value for kind in kinds) == ["refused", "signed"]


def test_a_record_without_a_valid_edge_signature_is_refused_and_spoils_no_request_id(world: World) -> None:
    request, raw = world.pod.record([world.pod.item(b"true", world.now)])
    forged = raw[:-1] + bytes([raw[-1] ^ 1])
    process = world.up[Index(1)]
    world._feed(process, RequestArrived(Origin(0, 1), request, forged))
    (_, _, _, outcome) = world.answers.pop()
    assert isinstance(outcome.result, Refused)
    assert outcome.result.code is RefusalCode.BAD_EDGE_SIGNATURE
    world.asked[request.record_id] = Asked(request, raw, Index(1), Origin(0, 2), world.now)
    world._feed(process, RequestArrived(Origin(0, 2), request, raw))
    world.run_until_answered()
    assert len(world.signed()) == 1


def test_the_decision_about_a_refresh_is_handed_in() -> None:
    dice = Dice(3)
    seen: list[tuple[SignItem, bytes]] = []

    def decide(item: SignItem, raw: bytes, _view: object, _now: Instant) -> Accepted:
        seen.append((item, raw))
        return Accepted(item.key_id, Epoch(4))

    pod = Pod(dice)
    state = coordinator.start(Index(1), BootId(dice.uuid()), WIRE, decide_refresh=decide)
    view = replace(World(3, 2).view(Index(1)), edge_keys={pod.edge_key_id: pod.public})
    state = coordinator.step(state, ViewChanged(view), Instant(START), dice.entropy).state
    request, raw = pod.record([pod.item(b"", START, mode=Mode.REFRESH)])
    out = coordinator.step(state, RequestArrived(Origin(0, 0), request, raw), Instant(START), dice.entropy)
    asked, audit, answer, done = out.send
    assert asked == RefreshAsked(KEY, raw)
    assert isinstance(answer, Answer)
    assert isinstance(answer.outcomes[0].result, Accepted)
    assert isinstance(audit, ToAudit)
    assert audit.event.entries[0].kind is AuditKind.CEREMONY
    assert isinstance(done, RecordDone)
    assert seen == [(request.items[0], raw)]


# --- P6: one answer --------------------------------------------------------------------------------------------------


def test_p6_the_same_request_id_joins_and_gets_the_same_answer_without_a_second_session(world: World) -> None:
    item = world.pod.item(b"once", world.now)
    first = world.ask(1, [item])
    second = world.ask(1, [item])
    world.run_until_answered()
    third = world.ask(1, [item])
    assert third.done
    answers = {r.record_id: o for _, _, r, o in world.answers}
    assert set(answers) == {a.request.record_id for a in (first, second, third)}
    assert len(set(answers.values())) == 1
    packages = [s for _, s in world.sent if isinstance(s.message, SignPackage)]
    assert len(packages) == 1
    assert [entry.kind for _, entry in world.audit] == [AuditKind.SIGNED]


def test_p6_a_request_id_with_another_message_is_refused_and_not_answered_with_the_first_signature(
    world: World,
) -> None:
    item = world.pod.item(b"one", world.now)
    world.ask(1, [item])
    other = world.ask(1, [replace(item, message=b"two")])
    world.run_until_answered()
    (outcome,) = [o for _, _, r, o in world.answers if r.record_id == other.request.record_id]
    assert isinstance(outcome.result, Refused)
    assert outcome.result.code is RefusalCode.BAD_REQUEST


def test_p6_a_request_id_that_has_its_outcome_answers_no_other_message(world: World) -> None:
    item = world.pod.item(b"one", world.now)
    world.ask(1, [item])
    world.run_until_answered()
    others = (replace(item, message=b"two"), replace(item, key_id=KeyId("another")))
    for asked in [world.ask(1, [other]) for other in others]:
        assert asked.done
        (outcome,) = [o for _, _, r, o in world.answers if r.record_id == asked.request.record_id]
        assert isinstance(outcome.result, Refused)
        assert outcome.result.code is RefusalCode.BAD_REQUEST


def test_what_has_its_outcome_leaves_memory_at_once_without_the_collector(world: World) -> None:
    gc.collect()
    gc.disable()
    try:
        world.ask_messages(1, *(bytes([n]) * 64 * 1024 for n in range(4)))
        world.run_until_answered()
        state = world.up[Index(1)].coordinator
        found = [each for each in gc.get_objects() if isinstance(each, Work | Session)]
    finally:
        gc.enable()
    assert found == []
    kept = [subject for *_, subject in state.timers if isinstance(subject, Record)]
    assert [record.raw for record in kept] == [b""] * len(kept)
    assert [record.request.items for record in kept] == [()] * len(kept)


def test_p6_an_outcome_is_remembered_until_the_deadline_and_not_longer(world: World) -> None:
    world.ask_messages(1, *messages(5), for_ms=1_000)
    world.run_until_answered()
    state = world.up[Index(1)].coordinator
    assert (len(state.settled), state.works) == (5, {})
    world.run(2_100)
    assert (state.settled, state.settled_until) == ({}, {})
    assert state.records == set()
    assert state.sessions == {}


def test_p6_late_shares_repeated_shares_and_strangers_shares_change_nothing(world: World) -> None:
    world.ask_messages(1, *messages(3))
    process = world.up[Index(1)]
    caught: list[PeerArrived] = []
    feed = world._feed

    def watch(to: Any, event: Any) -> None:
        if isinstance(event, PeerArrived) and isinstance(event.message, SignatureShares):
            caught.append(event)
        feed(to, event)

    world._feed = watch  # type: ignore[method-assign, assignment]
    world.run_until_answered()
    world._feed = feed  # type: ignore[method-assign]
    before = len(world.answers)
    for event in caught:
        world._feed(process, event)
        world._feed(process, replace(event, sender=Sender(Index(3), event.sender.boot_id)))
        world._feed(process, replace(event, sender=Sender(Index(1), process.boot_id)))
    assert caught
    assert len(world.answers) == before
    assert world.noted("share_stray")


def test_p6_a_share_of_another_boot_than_the_commitments_is_not_taken(world: World) -> None:
    asked = world.ask_messages(1, b"m")
    process = world.up[Index(1)]
    (session,) = process.coordinator.sessions.values()
    (seat,) = session.missing
    share = SignatureShares((Share(session.id, bytes(32), session.round.hash),))
    stranger = Sender(seat, BootId(world.dice.uuid()))
    world._feed(process, PeerArrived(stranger, share, b""))
    assert session.missing == {seat}
    assert world.noted("share_stray")
    world.run_until_answered()
    assert asked.done
    assert len(world.signed()) == 1
    assert len([s for _, s in world.sent if isinstance(s.message, SignPackage)]) == 1


def test_p6_less_than_200_ms_before_the_deadline_nothing_is_begun(world: World) -> None:
    world.ask_messages(1, b"hurry", for_ms=199)
    assert codes(world) == {(RefusalCode.OVERLOADED, True)}
    world.ask_messages(1, b"enough", for_ms=210)
    world.run_until_answered()
    assert len(world.signed()) == 1


def test_p6_what_expired_while_shares_were_on_their_way_is_not_signed(world: World) -> None:
    asked = world.ask_messages(1, b"late")
    process = world.up[Index(1)]
    process.wake_at = None
    caught: list[Any] = []
    world._transmit = lambda _, send: caught.append(send)  # type: ignore[method-assign, assignment]
    world.run(10)
    (shares,) = [s for s in caught if isinstance(s.message, SignatureShares)]
    peer = world.up[Index(2)] if Index(2) in {seat for seat, s in world.sent if s is shares} else world.up[Index(3)]
    world.now = asked.at + 5_001
    world._feed(process, PeerArrived(Sender(peer.seat, peer.boot_id), shares.message, b""))
    (_, _, _, outcome) = world.answers[-1]
    assert isinstance(outcome.result, Refused)
    assert outcome.result.code is RefusalCode.EXPIRED


def test_p6_fresh_work_goes_before_redelivered_work() -> None:
    world = World(3, 2)
    world.weather = Weather(drop=1.0)
    world.run(10)
    old = world.ask(1, [world.pod.item(b"old", world.now)], redelivered=True)
    new = world.ask(1, [world.pod.item(b"new", world.now)])
    world.weather = Weather()
    world.run_until_answered()
    order = [send.message.groups for _, send in world.sent if isinstance(send.message, SignPackage)]
    raws = [group.request for groups in order for group in groups]
    assert raws.index(new.raw) < raws.index(old.raw)


# --- partitions ------------------------------------------------------------------------------------------------------


def test_revoked_partitions_begin_nothing_and_what_runs_is_finished(world: World) -> None:
    process = world.up[Index(1)]
    running = world.ask_messages(1, b"running")
    world.weather = Weather(drop=1.0)
    for pool in process.coordinator.stocks.pools[world.committee.keys[Index(1)].scope].values():
        pool.clear()
    waiting = world.ask_messages(1, b"waiting")
    assert process.coordinator.in_flight == 2
    world._feed(process, RequestsDropped(frozenset({running.origin.partition})))
    assert process.coordinator.in_flight == 1
    world.weather = Weather()
    world.run_until_answered(6_000)
    assert running.done
    assert not waiting.done
    assert process.coordinator.in_flight == 0
    # Its new owner may be ourselves again.
    again = world.ask(1, waiting.request.items)
    world.run(100)
    assert again.done or world.now > waiting.at + 5_000


def test_a_revoked_request_whose_session_fails_is_left_to_its_new_owner(world: World) -> None:
    process = world.up[Index(1)]
    world.weather = Weather(drop=1.0)
    asked = world.ask_messages(1, b"failing")
    world._feed(process, RequestsDropped(frozenset({asked.origin.partition})))
    world.run(6_000)
    assert world.answers == []
    assert process.coordinator.in_flight == 0
    assert process.coordinator.sessions == {}
    assert process.coordinator.works == {}


# --- participants ----------------------------------------------------------------------------------------------------


def test_more_sessions_than_its_window_are_never_outstanding_with_one_participant() -> None:
    world = World(2, 2)
    world.run(300)
    for _ in range(6):
        world.ask_messages(1, *messages(64))
        world.run(30)
    stats = world.up[Index(1)].coordinator.peers[Index(2)]
    window = stats.window
    assert FIRST_WINDOW < window <= POOL_SIZE, "whoever answers quickly may owe more"
    # It goes on giving nonces but answers no package: only the credit holds us back.
    world.adversaries[2] = silent
    most = 0
    for k in range(10):
        world.ask_messages(1, *messages(60, str(k)))
        most = max(most, stats.outstanding)
        world.run(9)
    assert most == window
    world.adversaries.clear()
    world.run_until_answered()
    world.run(FORGET_MS)
    assert stats.outstanding == 0


def test_a_peers_silence_is_late_after_four_times_p99_between_100_ms_and_a_second() -> None:
    stats = PeerStats()
    assert stats.timeout_ms() == 400
    for _ in range(64):
        stats.answered(5)
    assert stats.timeout_ms() == 100
    assert stats.timeout_ms(256) == 4 * 5 * (16 + 256) // 16, "a long queue takes longer than short ones did"
    stats.answered(40)
    assert stats.timeout_ms() == 160
    stats.answered(900)
    assert stats.timeout_ms() == 1_000


def test_a_late_peer_is_preferred_less_for_a_second_doubling_to_thirty() -> None:
    stats = PeerStats()
    now, waits = 0, []
    for _ in range(8):
        stats.late(Instant(now))
        stats.late(Instant(now))
        waits.append(stats.late_until - now)
        now = stats.late_until
    assert waits == [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]
    stats.answered(5)
    stats.late(Instant(now))
    assert stats.late_until - now == 1_000


def test_the_least_bad_are_used_when_nobody_better_is_left() -> None:
    book = PeerBook()
    book[Index(2)].aside_until = Instant(100)
    book[Index(3)].late_until = Instant(100)
    everybody = [Candidate(Index(seat), 5, 0, False) for seat in (2, 3, 4)]
    assert book.choose(everybody, 1, Instant(0)) == (4,)
    assert book.choose(everybody, 2, Instant(0)) == (4, 3)
    assert book.choose(everybody, 3, Instant(0)) == (4, 3, 2)
    assert book.choose(everybody, 4, Instant(0)) is None


def test_a_worse_seat_is_not_used_while_a_better_one_waits_for_nonces() -> None:
    book = PeerBook()
    book[Index(2)].aside_until = Instant(100)
    assert book.choose([Candidate(Index(2), 5, 0, False), Candidate(Index(3), 0, 0, False)], 1, Instant(0)) is None


def test_a_batch_for_another_boot_of_ours_is_not_stocked(world: World) -> None:
    process = world.up[Index(1)]
    before = process.coordinator.nonces_left
    peer = world.up[Index(2)]
    grant = NonceGrant(world.committee.keys[Index(1)].scope, Index(1), BootId(world.dice.uuid()), 999, (bytes(64),))
    event = PeerArrived(Sender(peer.seat, peer.boot_id), NonceBatch((grant,)), b"")
    world._feed(process, event)
    world._feed(process, replace(event, message=NonceBatch((replace(grant, coordinator=Index(3)),))))
    assert process.coordinator.nonces_left == before
    assert len(world.noted("nonce_batch_stray")) == 2


def test_stocks_are_made_ahead_of_need_and_void_at_a_new_epoch(world: World) -> None:
    process = world.up[Index(1)]
    assert process.coordinator.nonces_left == 32
    view = world.views[Index(1)]
    keys = view.current[KEY]
    scope = replace(keys.scope, commit_offset=Offset(keys.scope.commit_offset + 1))
    world.sent.clear()
    world.change_view(Index(1), replace(view, current={KEY: replace(keys, epoch=Epoch(2), scope=scope)}))
    assert process.coordinator.nonces_left == 0
    asked = {s.seat: s.message.wants[0].scope for _, s in world.sent if isinstance(s.message, NonceRequest)}
    assert asked == {2: scope, 3: scope}


def test_the_queue_is_seen_from_outside() -> None:
    world = World(3, 2, weather=Weather(drop=1.0))
    world.ask_messages(1, *messages(3))
    state = world.up[Index(1)].coordinator
    world.run(40)
    assert state.in_flight == 3
    assert state.queue_wait_ms(Instant(world.now)) == 40


# --- blame -----------------------------------------------------------------------------------------------------------


def accusation() -> tuple[World, Any]:
    world = World(3, 2, adversaries={2: change_shares(plus_one), 3: change_shares(plus_one)})
    world.run(300)
    world.ask_messages(1, *messages(2))
    world.run_until_answered()
    return world, next(entry for _, entry in world.audit if entry.kind is AuditKind.BLAME)


def test_evidence_convinces_a_third_party_only_if_every_record_of_it_is_there_and_signed() -> None:
    world, entry = accusation()
    keys, public = world.identity_keys, world.committee.public
    culprit = entry.signers[0]
    assert check_blame_evidence(entry, WIRE, keys, public) == culprit
    for position in range(3):
        changed = bytearray(entry.evidence[position])
        changed[len(changed) // 2] ^= 1
        evidence = [*entry.evidence]
        evidence[position] = bytes(changed)
        with pytest.raises(BadInput):
            check_blame_evidence(replace(entry, evidence=tuple(evidence)), WIRE, keys, public)
    for other in (entry.evidence[:2], entry.evidence[::-1], (), entry.evidence * 2):
        with pytest.raises(BadInput):
            check_blame_evidence(replace(entry, evidence=other), WIRE, keys, public)
    with pytest.raises(BadInput):
        check_blame_evidence(replace(entry, kind=AuditKind.SIGNED), WIRE, keys, public)


def test_an_honest_seat_cannot_be_accused_with_its_own_good_share() -> None:
    world = World(3, 2)
    world.run(300)
    seat, evidence = honest_share(world)
    _, entry = accusation()
    with pytest.raises(BadInput, match="every one of them is good"):
        check_blame_evidence(
            replace(entry, signers=(seat,), evidence=evidence), WIRE, world.identity_keys, world.committee.public
        )


def test_when_all_others_lie_the_request_is_refused_in_time() -> None:
    world, _ = accusation()
    assert codes(world) == {(RefusalCode.QUORUM_LOST, True)}
    blamed = {entry.signers for _, entry in world.audit if entry.kind is AuditKind.BLAME}
    assert blamed == {(2,), (3,)}


# --- total -----------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    st.lists(
        st.one_of(
            st.builds(Share, st.integers(0, 6), st.binary(max_size=40), st.binary(max_size=40)),
            st.builds(Declined, st.integers(0, 6), st.sampled_from(DeclineReason)),
        ),
        max_size=6,
    ).map(tuple),
    st.integers(0, 4),
)
def test_p7_no_answer_makes_a_coordinator_raise(answers: Any, seat: int) -> None:
    world = World(3, 2)
    world.run(300)
    world.ask_messages(1, *messages(3))
    boot = world.up[Index(seat)].boot_id if seat in world.up else BootId("x")
    world._feed(world.up[Index(1)], PeerArrived(Sender(Index(seat), boot), SignatureShares(answers), b""))
    world.run_until_answered()
    assert len(world.signed()) == 3


def test_a_tick_at_any_time_is_harmless(world: World) -> None:
    world.ask_messages(1, *messages(3))
    for _ in range(50):
        world._feed(world.up[Index(1)], Tick())
        world.run(7)
    assert len(world.signed()) == 3


def test_events_of_one_poll_make_one_package_per_participant() -> None:
    world = World(2, 2)
    world.run(300)
    records = [world.pod.record([world.pod.item(b"m", world.now)]) for _ in range(4)]
    events = tuple(RequestArrived(Origin(0, k), *record) for k, record in enumerate(records))
    world.sent.clear()
    world._feed(world.up[Index(1)], coordinator.Batch(events))
    packages = [s for _, s in world.sent if isinstance(s.message, SignPackage)]
    assert len(packages) == 1
    assert isinstance(packages[0].message, SignPackage)
    assert len(packages[0].message.groups) == 4
