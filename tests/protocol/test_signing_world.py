"""Signing by a committee on a hostile network, judged by what comes out (promises P2 and P6)."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from common.ids import BootId, Index, OpenId
from common.wire.messages import (
    RESERVED_PREFIX,
    AuditKind,
    Declined,
    DeclineReason,
    NonceBatch,
    RefusalCode,
    Refused,
    Share,
    SignatureShares,
    SignPackage,
)
from signer_service.frost.group import ORDER
from signer_service.protocol.blame import check_blame_evidence
from signer_service.protocol.machine import Answer, Peer, PeersChanged, ToAudit, ToPeer
from signer_service.protocol.package import group_hash
from tests.protocol.signing_world import (
    STORM,
    WIRE,
    Adversary,
    Weather,
    World,
    check_signature,
    deal,
    watch_nonces,
)

SIZES = [(3, 2), (5, 3)]


def messages(count: int, label: str = "m") -> list[bytes]:
    return [f"{label} {k}".encode() for k in range(count)]


def refusals(world: World) -> list[Refused]:
    return [o.result for o in world.outcomes().values() if isinstance(o.result, Refused)]


def all_signed(world: World) -> bool:
    items = sum(len(asked.request.items) for asked in world.asked.values())
    return len(world.signed()) == items and not refusals(world)


# --- fair weather ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "t"), [(1, 1), (2, 2), (3, 2), (5, 3), (4, 4)])
def test_t_of_n_sign_what_a_pod_asked_for(n: int, t: int) -> None:
    world = World(n, t)
    world.run(50)
    for seat in range(1, n + 1):
        world.ask_messages(seat, b"hello", b"", b"x" * 65_536)
    world.run_until_answered()
    assert all_signed(world)
    assert all(len(signed.signers) == t for signed in world.signed().values())


def test_the_first_request_after_the_start_waits_for_nonces_and_is_signed() -> None:
    world = World(3, 2)
    world.ask_messages(1, *messages(64))
    world.run_until_answered()
    assert all_signed(world)


def test_one_record_goes_to_each_participant_for_all_sessions_of_a_step() -> None:
    world = World(3, 2)
    for _ in range(6):
        world.ask_messages(1, *messages(64))
        world.run(100)
    world.sent.clear()
    world.ask_messages(1, *messages(64))
    packages = [send for seat, send in world.sent if seat == 1 and isinstance(send.message, SignPackage)]
    assert len(packages) == 1
    world.run_until_answered()
    assert all_signed(world)


def test_large_requests_are_split_so_that_no_record_is_larger_than_a_broker_takes() -> None:
    world = World(3, 2)
    world.run(50)
    for _ in range(4):
        world.ask_messages(1, *(bytes([k]) * 60_000 for k in range(8)))
    world.run_until_answered()
    assert all_signed(world)


def test_a_seat_without_a_share_coordinates_t_others() -> None:
    world = World(3, 2)
    keys = world.committee.keys[Index(1)]
    world.change_view(Index(1), replace(world.view(Index(1)), current={keys.key_id: replace(keys, share=None)}))
    world._presence()
    world.run(50)
    world.ask_messages(1, *messages(3))
    world.run_until_answered()
    assert {signed.signers for signed in world.signed().values()} == {(2, 3)}


def test_sessions_are_spread_over_the_other_seats() -> None:
    world = World(5, 3)
    world.run(50)
    for k in range(40):
        world.ask_messages(1, *messages(2, f"round {k}"))
        world.run(20)
    signers = [seat for signed in world.signed().values() for seat in signed.signers]
    assert all(signers.count(Index(seat)) >= 20 for seat in (2, 3, 4, 5))


def test_the_audit_record_is_sent_before_the_answer_and_names_what_was_signed() -> None:
    world = World(3, 2)
    world.run(50)
    order: list[object] = []
    world_do = world._do

    def watched(process: object, sends: tuple[object, ...]) -> None:
        order.extend(send for send in sends if isinstance(send, ToAudit | Answer))
        world_do(process, sends)  # type: ignore[arg-type]

    world._do = watched  # type: ignore[method-assign]
    world.ask_messages(1, b"one", b"two")
    world.run_until_answered()
    assert [type(send) for send in order] == [ToAudit, Answer]
    entries = [entry for _, entry in world.audit]
    assert [entry.kind for entry in entries] == [AuditKind.SIGNED, AuditKind.SIGNED]
    assert {entry.request_id for entry in entries} == set(world.signed())
    assert all(len(entry.message_sha256) == 32 and len(entry.signers) == 2 for entry in entries)


# --- P6: through storms and losses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "t"), SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_p6_in_a_storm_every_request_is_signed_once_before_its_deadline(
    n: int, t: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = watch_nonces(monkeypatch)
    world = World(n, t, seed, STORM)
    world.run(300)
    for k in range(12):
        world.ask_messages(1 + k % n, *messages(4, f"{seed} {k}"))
        world.run(50)
    world.run_until_answered()
    assert all_signed(world)
    log.check()
    assert world.refused_envelopes > 0, "the network forged nothing: the test proves less than it says"
    assert not [entry for _, entry in world.audit if entry.kind is AuditKind.BLAME]


@pytest.mark.parametrize(("n", "t"), SIZES)
@pytest.mark.parametrize("seed", range(2))
def test_p6_crashes_and_new_boots_lose_no_request_and_reuse_no_nonce(
    n: int, t: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = watch_nonces(monkeypatch)
    world = World(n, t, seed, Weather(repeat=0.1, delay_ms=(1, 20)))
    world.run(300)
    for k in range(12):
        victim = 1 + k % n
        world.crash(victim)
        world.ask_messages(1 + (k + 1) % n, *messages(3, f"{seed} {k}"))
        world.run(150)
        world.take_over()
        world.reboot(victim)
        world.ask_messages(victim, *messages(2, f"again {seed} {k}"))
        world.run(900)
        world.take_over()
    world.run_until_answered()
    assert all_signed(world)
    log.check()


@pytest.mark.parametrize(("n", "t"), SIZES)
def test_p6_the_loss_of_n_minus_t_seats_refuses_nothing(n: int, t: int) -> None:
    world = World(n, t)
    world.run(300)
    for seat in range(n, t, -1):
        world.ask_messages(1, *messages(5, f"before {seat}"))
        world.crash(seat)
        world.ask_messages(1, *messages(5, f"after {seat}"))
        world.run(30)
    world.run_until_answered()
    assert all_signed(world)
    assert max(at for at, *_ in world.answers) - min(asked.at for asked in world.asked.values()) < 1_500


def test_p6_a_broker_outage_shorter_than_the_deadline_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log = watch_nonces(monkeypatch)
    world = World(3, 2)
    world.run(300)
    world.weather = Weather(delay_ms=(3_000, 3_000))
    world.ask_messages(1, *messages(5))
    world.run(3_000)
    world.weather = Weather(delay_ms=(1, 3))
    world.run_until_answered()
    assert all_signed(world)
    log.check()


def test_p6_without_a_quorum_the_refusal_is_retryable_and_in_time() -> None:
    world = World(3, 2)
    world.run(300)
    world.crash(2)
    world.crash(3)
    asked = world.ask_messages(1, *messages(3))
    world.run_until_answered()
    assert {(r.code, r.retryable) for r in refusals(world)} == {(RefusalCode.QUORUM_LOST, True)}
    assert len(refusals(world)) == 3
    assert world.now <= asked.at + 5_000 - 200


def test_p6_silence_of_all_the_others_is_refused_200_ms_before_the_deadline() -> None:
    world = World(3, 2)
    world.run(300)
    world.weather = Weather(drop=1.0)
    asked = world.ask_messages(1, *messages(3), for_ms=2_000)
    world.run_until_answered()
    assert {r.code for r in refusals(world)} == {RefusalCode.QUORUM_LOST}
    assert asked.at + 1_500 <= world.now <= asked.at + 1_800


def test_p6_a_seat_that_comes_back_is_used_again() -> None:
    world = World(3, 2)
    world.crash(3)
    world.run(1_000)
    world.reboot(3)
    world.run(1_000)
    world.crash(2)
    world.run(1_000)
    world.ask_messages(1, *messages(4))
    world.run_until_answered()
    assert {signed.signers for signed in world.signed().values()} == {(1, 3)}


# --- bad participants ------------------------------------------------------------------------------------------------


def change_shares(change: object) -> Adversary:
    def adversary(send: ToPeer) -> Iterable[ToPeer]:
        if not isinstance(send.message, SignatureShares):
            return [send]
        answers = [change(a) for a in send.message.answers]  # type: ignore[operator]
        kept = tuple(a for a in answers if a is not None)
        return [ToPeer(send.seat, SignatureShares(kept))] if kept else []

    return adversary


def plus_one(answer: Share | Declined) -> Share | Declined:
    if isinstance(answer, Declined):
        return answer
    value = (int.from_bytes(answer.share, "little") + 1) % ORDER
    return replace(answer, share=value.to_bytes(32, "little"))


def garbage(answer: Share | Declined) -> Share | Declined:
    return answer if isinstance(answer, Declined) else replace(answer, share=b"\xff" * 32)


def wrong_hash(answer: Share | Declined) -> Share | Declined:
    return answer if isinstance(answer, Declined) else replace(answer, package_hash=bytes(32))


def declining(reason: DeclineReason) -> Adversary:
    return change_shares(lambda answer: Declined(answer.session_id, reason))


silent = change_shares(lambda _: None)


@pytest.mark.parametrize(("n", "t"), SIZES)
@pytest.mark.parametrize("lie", [plus_one, garbage])
def test_a_liar_is_worked_around_and_blamed_with_evidence_that_anybody_can_check(
    n: int, t: int, lie: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = watch_nonces(monkeypatch)
    world = World(n, t, adversaries={2: change_shares(lie)})
    world.run(300)
    for k in range(10):
        world.ask_messages(1 if k % 2 else 3, *messages(3, str(k)))
        world.run(20)
    world.run_until_answered()
    assert all_signed(world)
    log.check()
    blames = [entry for _, entry in world.audit if entry.kind is AuditKind.BLAME]
    assert blames
    for entry in blames:
        assert entry.signers == (2,)
        assert check_blame_evidence(entry, WIRE, world.identity_keys, world.committee.public) == 2
    assert len(blames) <= 2, "one proof per coordinator is enough while the seat is set aside"


@pytest.mark.parametrize(("n", "t"), SIZES)
@pytest.mark.parametrize(
    "adversary",
    [silent, change_shares(wrong_hash), *map(declining, DeclineReason)],
    ids=["silent", "wrong-hash", *(reason.value for reason in DeclineReason)],
)
def test_a_useless_seat_is_worked_around_and_not_blamed(n: int, t: int, adversary: Adversary) -> None:
    world = World(n, t, adversaries={2: adversary})
    world.run(300)
    for k in range(8):
        world.ask_messages(1, *messages(3, str(k)))
        world.run(20)
    world.run_until_answered()
    assert all_signed(world)
    assert not [entry for _, entry in world.audit if entry.kind is AuditKind.BLAME]
    assert not any(2 in signed.signers for signed in world.signed().values())


def test_two_liars_of_five_are_worked_around() -> None:
    world = World(5, 3, adversaries={2: change_shares(plus_one), 4: silent})
    world.run(300)
    for k in range(6):
        world.ask_messages(1, *messages(2, str(k)))
        world.run(20)
    world.run_until_answered()
    assert all_signed(world)
    assert {signed.signers for signed in world.signed().values()} == {(1, 3, 5)}


def test_a_slow_seat_is_used_less_than_a_fast_one() -> None:
    world = World(3, 2)
    world.run(300)
    transmit = world._transmit

    def slow_seat_2(process: object, send: ToPeer) -> None:
        world.weather = Weather(delay_ms=(60, 60)) if 2 in (send.seat, process.seat) else Weather()  # type: ignore[attr-defined]
        transmit(process, send)  # type: ignore[arg-type]

    world._transmit = slow_seat_2  # type: ignore[method-assign]
    for k in range(20):
        world.ask_messages(1, *messages(2, str(k)))
        world.run(150)
    world.run_until_answered()
    assert all_signed(world)
    fast = sum(3 in signed.signers for signed in world.signed().values())
    assert fast > 30


NO_POINT = b"\x02" + bytes(31)
ORDER_2 = b"\xec" + b"\xff" * 30 + b"\x7f"
IDENTITY = b"\x01" + bytes(31)


@pytest.mark.parametrize(
    ("n", "t", "half", "point"),
    [
        pytest.param(3, 2, "hiding", NO_POINT, id="hiding-no-point-3-2"),
        pytest.param(3, 2, "hiding", ORDER_2, id="hiding-order-2-3-2"),
        pytest.param(3, 2, "hiding", IDENTITY, id="hiding-identity-3-2"),
        pytest.param(3, 2, "binding", NO_POINT, id="binding-no-point-3-2"),
        pytest.param(3, 2, "binding", ORDER_2, id="binding-order-2-3-2"),
        pytest.param(3, 2, "binding", IDENTITY, id="binding-identity-3-2"),
        pytest.param(5, 3, "hiding", NO_POINT, id="hiding-no-point-5-3"),
        pytest.param(5, 3, "binding", IDENTITY, id="binding-identity-5-3"),
    ],
)
def test_a_commitment_that_is_no_element_is_blamed_on_who_made_it_and_on_nobody_else(
    n: int, t: int, half: str, point: bytes
) -> None:
    def share(declined: Share | Declined) -> Share:
        packages = (sent.message for _, sent in world.sent if isinstance(sent.message, SignPackage))
        groups = (group for package in packages for group in package.groups)
        group = next(g for g in groups if declined.session_id in {session.session_id for session in g.sessions})
        return Share(declined.session_id, bytes(32), group_hash(group))

    def adversary(send: ToPeer) -> Iterable[ToPeer]:
        if isinstance(send.message, SignatureShares) and send.seat == 1:
            # It has no nonces for what it gave out, and says that it signed all the same.
            return [ToPeer(send.seat, SignatureShares(tuple(map(share, send.message.answers))))]
        if not isinstance(send.message, NonceBatch):
            return [send]
        grant = send.message.grants[0]
        bad = tuple(point + raw[32:] if half == "hiding" else raw[:32] + point for raw in grant.commitments)
        return [ToPeer(send.seat, NonceBatch((replace(grant, commitments=bad),)))]

    world = World(n, t, adversaries={2: adversary})
    world.run(300)
    for k in range(6):
        world.ask_messages(1, *messages(3, str(k)))
        world.run(50)
    world.run_until_answered()
    assert all_signed(world)
    assert not any(2 in signed.signers for signed in world.signed().values())
    blames = [entry for _, entry in world.audit if entry.kind is AuditKind.BLAME]
    assert blames
    assert {check_blame_evidence(e, WIRE, world.identity_keys, world.committee.public) for e in blames} == {2}
    peers = world.up[Index(1)].coordinator.peers
    assert not any(peers[Index(seat)].late_until for seat in range(3, n + 1)), "whoever was shown it did no wrong"


# --- epochs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_signing_goes_on_while_each_seat_changes_its_epoch_at_another_moment(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = watch_nonces(monkeypatch)
    world = World(3, 2, seed, Weather(delay_ms=(1, 30)))
    world.run(300)
    secret = world.dice.randrange(1, ORDER)
    world.committee = before = deal(world.dice, 3, 2, 1, 10, secret)
    after = deal(world.dice, 3, 2, 2, 20, secret)
    assert after.public.group_key == before.public.group_key
    for seat in world.identities:
        world.change_view(seat, world.view(seat))
    world.run(300)

    def commit(seat: Index) -> None:
        draining = {before.keys[seat].key_id: before.keys[seat]}
        world.change_view(seat, world.view(seat, after, draining=draining))
        world.at(200, lambda: world.change_view(seat, world.view(seat, after)))

    for seat in world.identities:
        world.at(world.dice.randrange(400), lambda seat=seat: commit(seat))  # type: ignore[misc]
    world.at(700, world._presence)
    for k in range(20):
        world.ask_messages(1 + k % 3, *messages(3, str(k)))
        world.run(40)
    world.run_until_answered()
    assert all_signed(world)
    assert {signed.epoch for signed in world.signed().values()} == {1, 2}
    assert not [entry for _, entry in world.audit if entry.kind is AuditKind.BLAME], "skew is never blame"
    log.check()


def test_stocks_are_filled_at_once_after_a_commit_also_of_seats_that_see_it_later() -> None:
    world = World(3, 2, 5, Weather(delay_ms=(1, 5)))
    world.run(300)
    secret = world.dice.randrange(1, ORDER)
    world.committee = before = deal(world.dice, 3, 2, 1, 10, secret)
    after = deal(world.dice, 3, 2, 2, 20, secret)
    for seat in world.identities:
        world.change_view(seat, world.view(seat))
    world.run(300)
    # Seat 1 asks for nonces when it sees the commit; the others see it 20 and 40 ms later.
    for seat in world.identities:
        view = world.view(seat, after, draining={before.keys[seat].key_id: before.keys[seat]})
        world.at(20 * (seat - 1), lambda seat=seat, view=view: world.change_view(seat, view))  # type: ignore[misc]
    world.run(5)
    world.ask_messages(1, b"in the first moment of the epoch")
    begun = world.now
    world.run_until_answered()
    assert {signed.epoch for signed in world.signed().values()} == {2}
    assert world.now - begun < 100, "it waited for a second request"
    world.run(60)
    stocks = world.up[Index(1)].coordinator.stocks
    scope = after.keys[Index(1)].scope
    assert {seat for seat, pool in stocks.pools[scope].items() if len(pool)} == {2, 3}


def test_the_key_records_session_signs_what_the_folds_say_and_nothing_else() -> None:
    world = World(3, 2)
    open_id = OpenId(b"\x07" * 64)
    staged = deal(world.dice, 3, 2, 2, -1, open_id=open_id)
    message = RESERVED_PREFIX + b"the key record of epoch 2"
    world.run(300)
    for seat in world.identities:
        # Seat 3 sees another history: it must not sign, and the other two suffice.
        own = message if seat != 3 else RESERVED_PREFIX + b"another history"
        session = world.internal_session(seat, staged, own, coordinate=seat == 1)
        world.change_view(seat, replace(world.views[seat], internal={open_id: session}))
    world.run(3_000, lambda: bool(world.internal))
    assert [signed.open_id for signed in world.internal] == [open_id]
    check_signature(staged.public.group_key, message, world.internal[0].signature)
    assert not [entry for _, entry in world.audit if entry.kind is AuditKind.BLAME], "a forked log is no bad share"


def test_a_peer_that_reboots_is_not_waited_for() -> None:
    world = World(3, 2)
    world.run(300)
    world.crash(3)
    world.run(700)
    world.ask_messages(1, b"to seat 2")
    process = world.up[Index(1)]
    reborn = Peer(Index(2), BootId(world.dice.uuid()), False, {})
    live = {**world.presence(), Index(2): reborn}
    world._feed(process, PeersChanged(live))
    assert process.coordinator.sessions == {}
    assert process.coordinator.in_flight == 1
