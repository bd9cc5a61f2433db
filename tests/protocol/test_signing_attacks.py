"""What a bad seat, a lying broker or bad luck could do to signing: each a way that was tried."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from common.errors import BadInput
from common.ids import BootId, Epoch, Index, Instant
from common.wire import codec
from common.wire.messages import (
    MAX_DEADLINE_MS,
    AuditKind,
    Mode,
    NonceBatch,
    NonceGrant,
    NonceRequest,
    NonceWant,
    RefusalCode,
    Refused,
    SignPackage,
)
from signer_service.frost.nonces import commit
from signer_service.protocol import coordinator, participant
from signer_service.protocol.blame import check_blame_evidence
from signer_service.protocol.machine import (
    Answer,
    Origin,
    Outgoing,
    Peer,
    PeerArrived,
    PeersChanged,
    RequestArrived,
    RequestsDropped,
    Sender,
    Tick,
    ToPeer,
)
from signer_service.protocol.nonce_pool import POOL_SIZE
from signer_service.protocol.view import SigningView, ViewChanged
from tests.protocol.signing_world import KEY, START, WIRE, Dice, Pod, Weather, World, deal, honest_share
from tests.protocol.test_signing_world import change_shares, messages, plus_one

LAST_COUNT = 2**53 - 1
"""The largest counter that a record can hold."""


# --- liars -----------------------------------------------------------------------------------------------------------


def test_p6_a_batch_whose_counters_leave_the_records_bounds_stops_nobody() -> None:
    def last_counter(send: ToPeer) -> Iterable[ToPeer]:
        if not isinstance(send.message, NonceBatch):
            return [send]
        grants = tuple(replace(grant, first_counter=LAST_COUNT) for grant in send.message.grants)
        return [replace(send, message=NonceBatch(grants))]

    world = World(3, 2, adversaries={2: last_counter})
    world.run(300)
    world.ask_messages(1, *messages(8))
    world.run_until_answered()
    assert len(world.signed()) == 8


def test_p6_commitments_that_nobody_asked_for_are_not_even_looked_at() -> None:
    world = World(3, 2)
    world.run(300)
    process = world.up[Index(1)]
    scope = world.committee.keys[Index(1)].scope
    pool = process.coordinator.stocks.pools[scope][Index(2)]
    before = len(pool)
    share = world.committee.packages[Index(2)].share
    sender = Sender(Index(2), world.up[Index(2)].boot_id)
    raws = tuple(commit(share, world.dice.randbytes(64))[1].to_bytes() for _ in range(64))
    for k in range(8):
        grant = NonceGrant(scope, Index(1), process.boot_id, 10_000 + 64 * k, raws)
        world._feed(process, PeerArrived(sender, NonceBatch((grant,)), b""))
    assert len(pool) == before
    assert len(world.noted("nonce_batch_stray")) == 8


def test_p6_a_coordinator_cannot_keep_a_participant_busy_with_making_nonces() -> None:
    world = World(3, 2)
    world.run(300)
    process = world.up[Index(2)]
    request = NonceRequest((NonceWant(world.committee.keys[Index(2)].scope, POOL_SIZE),))
    liar = PeerArrived(Sender(Index(3), world.up[Index(3)].boot_id), request, b"")
    honest = PeerArrived(Sender(Index(1), world.up[Index(1)].boot_id), request, b"")

    def made(event: PeerArrived, at: int) -> int:
        out = participant.step(process.participant, event, Instant(at), world.dice.entropy)
        process.participant = out.state
        batches = [send.message for send in out.send if isinstance(send, ToPeer)]
        return sum(len(g.commitments) for b in batches if isinstance(b, NonceBatch) for g in b.grants)

    start = world.now + 1_000
    assert sum(made(liar, start) for _ in range(50)) == participant.GRANTS_PER_S
    assert made(honest, start) == POOL_SIZE
    assert made(liar, start + 1_000) == POOL_SIZE
    assert made(liar, start - 60_000) == POOL_SIZE, "a clock that was set back"


def test_a_share_of_one_epoch_cannot_be_shown_as_a_bad_one_of_another() -> None:
    world = World(3, 2)
    world.run(300)
    seat, evidence = honest_share(world)
    bad = World(3, 2, adversaries={2: change_shares(plus_one), 3: change_shares(plus_one)})
    bad.run(300)
    bad.ask_messages(1, b"dishonest")
    bad.run_until_answered()
    blame = next(entry for _, entry in bad.audit if entry.kind is AuditKind.BLAME)
    framed = replace(blame, signers=(seat,), epoch=Epoch(2), evidence=evidence)
    # An auditor looks the verification shares up by the key and epoch that the accuser names.
    of_epoch_2 = deal(Dice(99), 3, 2, epoch=2, commit_offset=20).public
    with pytest.raises(BadInput, match="no-proof"):
        check_blame_evidence(framed, WIRE, world.identity_keys, of_epoch_2)
    with pytest.raises(BadInput, match="no-proof"):
        check_blame_evidence(replace(framed, key_id="other", epoch=Epoch(1)), WIRE, world.identity_keys, of_epoch_2)


def test_only_the_seat_that_the_evidence_is_about_can_be_named() -> None:
    bad = World(3, 2, adversaries={2: change_shares(plus_one), 3: change_shares(plus_one)})
    bad.run(300)
    bad.ask_messages(1, b"dishonest")
    bad.run_until_answered()
    blame = next(entry for _, entry in bad.audit if entry.kind is AuditKind.BLAME)
    assert check_blame_evidence(blame, WIRE, bad.identity_keys, bad.committee.public) == blame.signers[0]
    with pytest.raises(BadInput, match="no-proof"):
        check_blame_evidence(replace(blame, signers=(Index(1),)), WIRE, bad.identity_keys, bad.committee.public)


# --- requests --------------------------------------------------------------------------------------------------------


def test_p2_nothing_more_is_signed_for_an_edge_key_that_was_revoked_meanwhile() -> None:
    world = World(3, 2)
    world.run(300)
    world.weather = Weather(drop=1.0)
    world.ask_messages(1, b"asked by a thief")
    process = world.up[Index(1)]
    assert process.coordinator.sessions
    world.change_view(Index(1), replace(world.views[Index(1)], edge_keys={}))
    assert process.coordinator.sessions == {}
    (outcome,) = world.outcomes().values()
    assert isinstance(outcome.result, Refused)
    assert outcome.result.code is RefusalCode.BAD_EDGE_SIGNATURE


def test_p6_a_record_read_again_at_its_place_is_answered_once() -> None:
    world = World(3, 2)
    world.run(300)
    process = world.up[Index(1)]
    world.weather = Weather(drop=1.0)
    asked = world.ask_messages(1, b"first", b"second")
    world._feed(process, RequestsDropped(frozenset({asked.origin.partition})))
    world._feed(process, RequestArrived(asked.origin, asked.request, asked.raw))
    world.weather = Weather()
    world.run_until_answered()
    assert len(world.signed()) == 2  # fails if an item has two answers
    assert len(world.answers) == 2
    assert len(world.done) == 1
    assert process.coordinator.records == set()


def test_p6_an_item_of_the_far_future_is_not_remembered_until_then() -> None:
    world = World(3, 2)
    world.run(300)
    process = world.up[Index(1)]
    world.ask(1, [world.pod.item(b"", world.now, for_ms=10**12)])
    world.run(MAX_DEADLINE_MS + 2_000)
    world._feed(process, Tick())
    assert process.coordinator.works == {}
    assert process.coordinator.timers == []


def test_a_refresh_that_comes_too_late_is_told_so() -> None:
    world = World(3, 2)
    world.run(300)
    item = replace(world.pod.item(b"", world.now - 9_000, for_ms=8_000), mode=Mode.REFRESH)
    request, raw = world.pod.record([item])
    world._feed(world.up[Index(1)], RequestArrived(Origin(0, 1), request, raw))
    (_, _, _, outcome) = world.answers.pop()
    assert isinstance(outcome.result, Refused)
    assert outcome.result.code is RefusalCode.EXPIRED


# --- size ------------------------------------------------------------------------------------------------------------


def test_a_full_record_among_very_many_signers_still_fits_into_packages() -> None:
    dice = Dice(5)
    size = 80
    committee = deal(dice, size, size)
    pod = Pod(dice)
    boots = {Index(i): BootId(dice.uuid()) for i in range(1, size + 1)}
    keys = committee.keys[Index(1)]
    now = START
    state = coordinator.start(Index(1), boots[Index(1)], WIRE)

    def feed(event: coordinator.Event) -> tuple[Outgoing, ...]:
        nonlocal state
        out = coordinator.step(state, event, Instant(now), dice.entropy)
        state = out.state
        return out.send

    feed(ViewChanged(SigningView(Index(1), {pod.edge_key_id: pod.public}, {}, (KEY,), {KEY: keys})))
    feed(PeersChanged({i: Peer(i, boot, False, {KEY: 1}) for i, boot in boots.items()}))
    for seat in boots:
        state.peers[seat].window = POOL_SIZE
    items = [pod.item(bytes(7_900), now) for _ in range(64)]
    feed(RequestArrived(Origin(0, 0), *pod.record(items)))
    now += 260
    sends = feed(Tick())
    counters = dict.fromkeys(boots, 0)
    last: tuple[Outgoing, ...] = ()
    for send in sends:
        assert isinstance(send, ToPeer)
        assert isinstance(send.message, NonceRequest)
        (want,) = send.message.wants
        seat = send.seat
        share = committee.packages[seat].share
        raws = tuple(commit(share, dice.randbytes(64))[1].to_bytes() for _ in range(want.count))
        grant = NonceGrant(want.scope, Index(1), boots[Index(1)], counters[seat], raws)
        last = feed(PeerArrived(Sender(seat, boots[seat]), NonceBatch((grant,)), b""))
    packages = [send.message for send in last if isinstance(send, ToPeer) and isinstance(send.message, SignPackage)]
    assert packages
    for package in packages[:2]:
        assert codec.decode(codec.encode(package), SignPackage) == package
    begun = {session.item for package in packages for group in package.groups for session in group.sessions}
    assert begun == set(range(64))
    assert not any(isinstance(send, Answer) for send in last)
