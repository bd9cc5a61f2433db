"""What a holder may lie about while shares are replaced: it is named with what proves it, and the key goes on."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from common.ids import Index
from common.secret import Secret
from common.wire import codec
from common.wire.messages import (
    Announce,
    AuditKind,
    CeremonyRecord,
    Complaint,
    Deal,
    Envelope,
    KeyRecord,
    Phase,
    PhaseVote,
    Ready,
    Verdict,
)
from common.wire.signatures import ENVELOPE_DOMAIN, is_signed_by
from signer_service.frost import proofs
from signer_service.frost.group import IDENTITY, ORDER, Element, Scalar, mul
from signer_service.frost.sharing import Polynomial, lagrange_weights, random_polynomial
from signer_service.protocol import transcript
from signer_service.protocol.ceremony_part import make_deal
from signer_service.protocol.fold_phases import open_sub_share
from signer_service.protocol.log_state import Attempt
from tests import playbook
from tests.protocol.crash_world import again, beginning
from tests.world import World

LIAR = Index(1)
Lie = Callable[[CeremonyRecord, World], Iterable[CeremonyRecord]]


def attempt_of(world: World) -> Attempt:
    attempt = world.key().attempt
    assert attempt is not None
    return attempt


def share_of(world: World, seat: int = LIAR, epoch: int = 1) -> Secret[Scalar]:
    state = world.seats[seat].state
    assert state is not None
    held = state.of_key(playbook.KEY).of_epoch(epoch)  # type: ignore[arg-type]
    assert held is not None
    return held.share


def fixed_entropy() -> Callable[[int], bytes]:
    """The same bytes each time it is made: two Deals made with it have the same ephemeral key."""
    count = iter(range(1_000))
    return lambda size: playbook.seed(f"reshare lie {next(count)}", size)


def deal_of(world: World, constant: int | None = None, size: int | None = None, label: str = "") -> Deal:
    """A Deal of the liar: its own share as the constant term and as many coefficients as it should, if nothing else is
    said."""
    attempt = attempt_of(world)
    term = share_of(world) if constant is None else Secret(Scalar(constant))
    size = size or attempt.new.threshold
    polynomial = random_polynomial(term, size, playbook.seed(f"coefficients {label}", 64 * (size - 1)))
    return make_deal(attempt, LIAR, polynomial, fixed_entropy())


def sealing_of_another(world: World, *recipients: int) -> Deal:
    """Well sealed and well committed to, but what these recipients get is of another polynomial."""
    honest, other = deal_of(world), deal_of(world, label="other")
    pairs = zip(honest.sealed, other.sealed, strict=True)
    return replace(honest, sealed=tuple(b if a.recipient in recipients else a for a, b in pairs))


def complaint_about(world: World, dealer: Index) -> Complaint:
    """With the true K and a true proof of it, though the Deal is good."""
    attempt, state = attempt_of(world), world.seats[LIAR].state
    assert state is not None
    part = state.of_key(playbook.KEY).part
    assert part is not None
    assert part.transport is not None
    ephemeral = Element(attempt.deals[dealer].ephemeral_key)
    shared = mul(ephemeral, part.transport.expose())
    context = transcript.complaint_proof(attempt.open_id, LIAR, dealer)
    return Complaint(
        dealer, bytes(shared), proofs.prove_equal(part.transport, ephemeral, shared, context, world.entropy(64))
    )


def ready_of(world: World, record: Ready, **changes: object) -> Ready:
    """A Ready that tells of something else, with a proof of the share that the liar has."""
    state = world.seats[LIAR].state
    assert state is not None
    mine = state.of_key(playbook.KEY)
    new = mine.part.staged if mine.part is not None and mine.part.staged is not None else mine.of_epoch(record.epoch)
    assert new is not None
    told = replace(record, **changes)  # type: ignore[arg-type]
    context = transcript.new_share_proof(told.open_id, LIAR, told.transcript_hash)
    point = Element(new.verification_share)
    return replace(told, share_proof=proofs.prove(new.share, point, context, world.entropy(64)))


def instead(kind: type[CeremonyRecord], change: Callable[..., CeremonyRecord]) -> Lie:
    """Whenever the liar would say a record of this kind, it says another."""
    return lambda record, world: [change(record, world)] if isinstance(record, kind) else [record]


def old_share_proof(record: Ready, world: World) -> Ready:
    context = transcript.new_share_proof(record.open_id, LIAR, record.transcript_hash)
    old = beginning(2, 3).record.verification_shares[0].element
    return replace(record, share_proof=proofs.prove(share_of(world), Element(old), context, world.entropy(64)))


LIES = {
    "a bad sub-share for one": (instead(Deal, lambda _, w: sealing_of_another(w, 3)), "deal-convicted"),
    "a bad sub-share for all": (instead(Deal, lambda _, w: sealing_of_another(w, 1, 2, 3)), "deal-convicted"),
    "another constant term": (instead(Deal, lambda _, w: deal_of(w, constant=77)), "deal-refused"),
    "its share in the commitments only": (
        instead(
            Deal,
            lambda _, w: replace(deal_of(w, constant=77), commitments=deal_of(w).commitments),
        ),
        "deal-convicted",
    ),
    "a vector that is too long": (instead(Deal, lambda _, w: deal_of(w, size=3)), "deal-refused"),
    "a vector that is too short": (instead(Deal, lambda _, w: deal_of(w, size=1)), "deal-refused"),
    "a proof as for a new key": (
        instead(Deal, lambda deal, _: replace(deal, constant_proof=deal.ephemeral_proof)),
        "deal-refused",
    ),
    "a recipient less": (instead(Deal, lambda deal, _: replace(deal, sealed=deal.sealed[:-1])), "deal-refused"),
    "a false complaint": (
        instead(Verdict, lambda v, w: replace(v, complaints=(complaint_about(w, Index(2)),))),
        "complaint-false",
    ),
    "a complaint without proof": (
        instead(Verdict, lambda v, w: replace(v, complaints=(Complaint(Index(2), playbook.public("k"), bytes(64)),))),
        "complaint-false",
    ),
    "a complaint about nobody": (
        instead(Verdict, lambda v, w: replace(v, complaints=(replace(complaint_about(w, Index(2)), dealer=Index(9)),))),
        "complaint-idle",
    ),
    "Ready of another transcript": (
        instead(Ready, lambda r, w: ready_of(w, r, transcript_hash=bytes(64))),
        "ready-refused",
    ),
    "Ready of another group key": (
        instead(Ready, lambda r, w: ready_of(w, r, public_key=playbook.public("mine"))),
        "ready-refused",
    ),
    "Ready of other dealers": (instead(Ready, lambda r, w: ready_of(w, r, qualified=r.qualified[1:])), "ready-refused"),
    "Ready with the old share": (instead(Ready, old_share_proof), "ready-refused"),
    "Ready without a share": (instead(Ready, lambda r, _: replace(r, share_proof=bytes(64))), "ready-refused"),
    "a transport key that is the identity": (
        instead(Announce, lambda a, _: replace(a, transport_key=bytes(IDENTITY))),
        "announce-refused",
    ),
    "no proof of its share": (instead(Announce, lambda a, _: replace(a, share_proof=b"")), "announce-refused"),
}


def refreshing(lie: Lie | None = None) -> World:
    world, _ = again(beginning(2, 3))
    world.seats[LIAR].tamper = lie
    for index in world.seats:
        world.ask_refresh(index)
    return world


def goes_on(world: World, epoch: int = 2) -> None:
    """The honest seats came to the next epoch; every t of those that hold a share sign with the same key."""
    world.run(lambda: world.agrees(epoch, (2, 3)))
    world.run_for(5_000)
    held = world.keys_at()
    assert {bytes(keys.public.group_key) for keys in held.values()} == {beginning(2, 3).record.public_key}
    playbook.every_subset_signs({i: keys for i, keys in held.items() if keys.epoch == world.key().epoch})


def named(world: World, code: str, culprit: int = LIAR) -> None:
    """Everybody tells the audit topic the same: who did it, and the record in the log that shows it."""
    found = [
        (event.record_id, entry) for seat in world.seats.values() for event in seat.audit for entry in event.entries
    ]
    blames = [(str(at), entry) for at, entry in found if entry.kind is AuditKind.BLAME]
    assert {(entry.signers, entry.code) for _, entry in blames} == {((culprit,), code)}
    assert len(blames) >= len(world.seats)
    for at, entry in blames:
        raw = world.log[int(at.removeprefix("ceremony/"))]
        assert entry.evidence == (raw,)
        said = codec.decode(raw, Envelope)
        assert is_signed_by(ENVELOPE_DOMAIN, raw, playbook.public(f"seat {said.index}"))
        # What proves a bad Deal is the complaint of the seat that could not open it.
        assert said.index == culprit or (code == "deal-convicted" and isinstance(_record(said), Verdict))


def _record(said: Envelope) -> CeremonyRecord:
    return codec.decode_ceremony(said.payload)


@pytest.mark.parametrize("lie", LIES)
def test_a_liar_in_a_refresh_is_named_with_what_proves_it_and_the_key_goes_on(lie: str) -> None:
    change, code = LIES[lie]
    world = refreshing(change)
    goes_on(world)
    named(world, code)
    current = world.key().current
    assert current is not None
    assert current.expected is not None
    if code.startswith(("deal", "complaint-false")):
        assert LIAR not in current.expected.qualified


def test_a_key_record_that_the_group_did_not_sign_is_no_commit_and_others_take_over() -> None:
    world = refreshing(instead(KeyRecord, lambda record, _: replace(record, signature=bytes(64))))
    # So that the liar is the lowest of those that are Ready, and its turn comes first.
    world.seats[3].tamper = lambda record, world: (
        [] if isinstance(record, Ready) and not world.noted("key-record-refused") else [record]
    )
    world.run(lambda: world.noted("key-record-refused") == 3)
    assert world.key().epoch == 1
    goes_on(world)
    named(world, "key-record-refused")


def test_two_deals_of_one_holder_put_it_out() -> None:
    world = refreshing()
    world.seats[LIAR].tamper = lambda record, world: (
        [record, deal_of(world, label="second")] if isinstance(record, Deal) else [record]
    )
    # The third dealer is slow, so that both stand before the phase is over.
    world.seats[3].tamper = lambda record, world: (
        [] if isinstance(record, Deal) and LIAR not in attempt_of(world).out else [record]
    )
    goes_on(world)
    named(world, "deal-twice")


def test_a_deal_of_another_attempt_or_epoch_opens_and_counts_nowhere() -> None:
    world = refreshing()
    kept: list[Deal] = []

    def keep(record: CeremonyRecord, _: World) -> Iterable[CeremonyRecord]:
        if isinstance(record, Deal):
            kept.append(record)
        return [record]

    world.seats[LIAR].tamper = keep
    # Nobody else deals, and the first attempt comes to nothing.
    for index in (2, 3):
        world.seats[index].tamper = lambda record, _: [] if isinstance(record, Deal) else [record]
    world.run(lambda: world.key().ended == 1)
    for index in (2, 3):
        world.seats[index].tamper = None
    old = kept[0]
    world.seats[LIAR].tamper = instead(Deal, lambda record, _: replace(old, open_id=record.open_id))
    goes_on(world)
    named(world, "deal-refused")
    # In the next epoch the old Deal commits to a share that is not the liar's any more.
    for seat in world.seats.values():
        seat.audit.clear()
    world.ask_refresh(2)
    goes_on(world, 3)
    named(world, "deal-refused")
    # And as it was said, for the attempt that it was said in, it is merely late.
    for seat in world.seats.values():
        seat.audit.clear()
    world.say(LIAR, old)
    world.run_for(500)
    assert not world.blamed()
    assert world.noted("late-record") == 3


def test_votes_of_fewer_than_q_seats_hurry_nobody() -> None:
    world = refreshing()

    def votes(record: CeremonyRecord, world: World) -> Iterable[CeremonyRecord]:
        attempt = world.key().attempt
        early = [PhaseVote(attempt.open_id, phase) for phase in Phase] if attempt is not None else []
        return [*early, record, *early]

    world.seats[LIAR].tamper = votes
    world.run(lambda: world.agrees(2))
    world.run_for(3_000)
    current = world.key().current
    assert current is not None
    assert current.expected is not None
    assert current.expected.qualified == (1, 2, 3)
    assert set(current.ready) == {1, 2, 3}
    assert (world.key().epoch, world.key().ended) == (2, 0)
    assert not world.blamed()


def test_the_last_dealer_and_the_seat_it_robs_of_its_share_stop_nobody() -> None:
    # Seat 3 hands over what it was dealt, so that seat 1 can make the share of seat 3 zero: its Y' is the identity.
    world = refreshing()
    made: list[Deal] = []

    def robs(record: CeremonyRecord, world: World) -> Iterable[CeremonyRecord]:
        if not isinstance(record, Deal) or made or world.key().epoch != 1:
            return made if isinstance(record, Deal) and world.key().epoch == 1 else [record]
        attempt, victim = attempt_of(world), world.seats[3].state
        assert victim is not None
        part = victim.of_key(playbook.KEY).part
        if set(attempt.deals) != {2, 3} or part is None or part.transport is None:
            return []
        weights = lagrange_weights((Index(1), Index(2), Index(3)))
        total = 0
        for dealer in map(Index, (2, 3)):
            shared = mul(Element(attempt.deals[dealer].ephemeral_key), part.transport.expose())
            sub_share = open_sub_share(attempt, dealer, Index(3), shared)
            assert sub_share is not None
            total += weights[dealer] * sub_share.expose()
        mine = share_of(world).expose()
        wanted = -total * pow(weights[LIAR], -1, ORDER) % ORDER
        slope = (wanted - mine) * pow(3, -1, ORDER) % ORDER
        made.append(make_deal(attempt, LIAR, Polynomial(Secret((mine, Scalar(slope)))), fixed_entropy()))
        return made

    world.seats[LIAR].tamper = robs
    world.run(lambda: world.agrees(2, (1, 2)))
    current = world.key().current
    assert current is not None
    assert set(current.shares) == {1, 2}
    assert world.noted("no-share-from-ceremony") == 1
    assert not world.blamed()
    playbook.every_subset_signs(world.keys_at(seats=(1, 2)))
    # It says that it holds no share, and is healed.
    world.run(lambda: world.agrees(3))
    playbook.every_subset_signs(world.keys_at())


def test_a_record_of_another_topic_or_without_its_seats_key_is_nothing() -> None:
    world = refreshing()
    world.run(lambda: world.key().attempt is not None)
    record = PhaseVote(attempt_of(world).open_id, Phase.ANNOUNCE)
    log = next(seat.state.log for seat in world.seats.values() if seat.state is not None)
    for index in world.seats:
        world.append(playbook.say(index, record, log, name="somebody"))
        world.append(playbook.say(index, record, log, topic="signer.v1.audit"))
    world.run(lambda: world.agrees(2))
    assert not world.blamed()
    assert world.key().ended == 0
