"""What a seat may lie about in a key generation, and what it gets for it."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from common.ids import Index, KeyId, Offset
from common.secret import Secret
from common.wire.messages import (
    NO_SIGNATURE,
    Announce,
    CeremonyRecord,
    Complaint,
    Deal,
    KeyRecord,
    Phase,
    PhaseVote,
    Ready,
    Verdict,
    VerificationShare,
)
from signer_service.frost import proofs
from signer_service.frost.group import IDENTITY, ORDER, Element, Scalar, add, mul
from signer_service.frost.sharing import Polynomial, random_polynomial
from signer_service.protocol import transcript
from signer_service.protocol.ceremony_part import make_deal
from signer_service.protocol.log_state import Attempt
from tests import playbook
from tests.world import World

TORSION = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
"""A point of order 8."""

LOW_ORDER = (IDENTITY, bytes(32), TORSION, b"\xec" + b"\xff" * 30 + b"\x7f")
NOT_CANONICAL = b"\xee" + b"\xff" * 30 + b"\x7f"

Lie = Callable[[CeremonyRecord, World], Iterable[CeremonyRecord]]


def attempt_of(world: World) -> Attempt:
    attempt = world.key().attempt
    assert attempt is not None
    return attempt


def dealing(change: Callable[[Deal, World], Deal]) -> Lie:
    return lambda record, world: [change(record, world) if isinstance(record, Deal) else record]


def with_torsion(element: bytes) -> bytes:
    """The same point plus one of order 8: libsodium adds it without a word."""
    return bytes(add(Element(element), Element(TORSION)))


def flip_sealed(deal: Deal, recipient: int) -> Deal:
    sealed = tuple(
        replace(each, ciphertext=bytes([each.ciphertext[0] ^ 1]) + each.ciphertext[1:])
        if each.recipient == recipient
        else each
        for each in deal.sealed
    )
    return replace(deal, sealed=sealed)


def wrong_sub_share(deal: Deal, world: World) -> Deal:
    """Well sealed, but of another polynomial than the one committed to, for seat 3 alone."""
    del deal
    attempt = attempt_of(world)
    polynomial = random_polynomial(Secret(Scalar(1234)), attempt.new.threshold, world.entropy(64))
    honest = make_deal(attempt, Index(1), polynomial, playbook_entropy())
    other = make_deal(attempt, Index(1), Polynomial(Secret((Scalar(9), Scalar(9)))), playbook_entropy())
    sealed = tuple(b if a.recipient == 3 else a for a, b in zip(honest.sealed, other.sealed, strict=True))
    return replace(honest, sealed=sealed)


def playbook_entropy() -> Callable[[int], bytes]:
    """The same bytes each time: both deals get the same ephemeral key."""
    count = 0

    def entropy(size: int) -> bytes:
        nonlocal count
        count += 1
        return playbook.seed(f"lie {count}", size)

    return entropy


def lying(change: Callable[[Deal, World], Deal], committee: tuple[int, int] = (2, 3)) -> World:
    world = World(*committee)
    world.seats[1].tamper = dealing(change)
    world.start()
    world.run(lambda: world.holds(1))
    return world


def qualified(world: World) -> tuple[int, ...]:
    current = world.key().current
    assert current is not None
    assert current.expected is not None
    return current.expected.qualified


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda deal, _: replace(deal, constant_proof=deal.ephemeral_proof), id="proof of another secret"),
        pytest.param(lambda deal, _: replace(deal, constant_proof=b""), id="no proof of possession"),
        pytest.param(lambda deal, _: replace(deal, ephemeral_proof=bytes(64)), id="no proof of the ephemeral key"),
        pytest.param(lambda deal, _: replace(deal, commitments=deal.commitments[:-1]), id="threshold lowered"),
        pytest.param(lambda deal, _: replace(deal, commitments=deal.commitments * 2), id="threshold raised"),
        pytest.param(lambda deal, _: replace(deal, sealed=deal.sealed[:-1]), id="a recipient left out"),
        pytest.param(lambda deal, _: flip_sealed(deal, 3), id="sealed garbage"),
        pytest.param(wrong_sub_share, id="a sub-share of another polynomial"),
        pytest.param(
            lambda deal, _: replace(deal, commitments=(deal.commitments[0], with_torsion(deal.commitments[1]))),
            id="a commitment with torsion",
        ),
        *(
            pytest.param(
                lambda deal, _, point=point: replace(deal, commitments=(deal.commitments[0], point)),
                id=f"a commitment {point[:2].hex()}",
            )
            for point in (*LOW_ORDER, NOT_CANONICAL)
        ),
        pytest.param(
            lambda deal, _: replace(deal, ephemeral_key=with_torsion(deal.ephemeral_key)), id="ephemeral torsion"
        ),
    ],
)
def test_a_dealer_that_lies_in_its_deal_is_out_and_the_others_make_the_key(change: Callable[..., Deal]) -> None:
    world = lying(change)
    assert qualified(world) == (2, 3)
    playbook.every_subset_signs(world.keys_at())
    assert world.key().epoch == 1


def test_a_bad_sub_share_convicts_its_dealer_by_the_complaint_alone() -> None:
    world = lying(wrong_sub_share)
    assert world.noted("deal-convicted") == 3
    assert world.noted("complaint-false") == 0


def false_complaint(record: CeremonyRecord, world: World) -> Iterable[CeremonyRecord]:
    """Seat 1 says that seat 2's deal does not fit, with a true K and a true proof."""
    if not isinstance(record, Verdict):
        return [record]
    attempt, state = attempt_of(world), world.seats[1].state
    assert state is not None
    part = state.of_key(playbook.KEY).part
    assert part is not None
    assert part.transport is not None
    ephemeral = Element(attempt.deals[Index(2)].ephemeral_key)
    shared = mul(ephemeral, part.transport.expose())
    context = transcript.complaint_proof(attempt.open_id, Index(1), Index(2))
    proof = proofs.prove_equal(part.transport, ephemeral, shared, context, world.entropy(64))
    return [replace(record, complaints=(Complaint(Index(2), bytes(shared), proof),))]


def unproved_complaint(record: CeremonyRecord, world: World) -> Iterable[CeremonyRecord]:
    if not isinstance(record, Verdict):
        return [record]
    return [replace(record, complaints=(Complaint(Index(2), playbook.public("x"), bytes(64)),))]


@pytest.mark.parametrize("lie", [false_complaint, unproved_complaint])
def test_a_false_complaint_puts_the_complainers_own_deal_out(lie: Lie) -> None:
    world = World(2, 3)
    world.seats[1].tamper = lie
    world.start()
    world.run(lambda: world.holds(1))
    assert qualified(world) == (2, 3)
    assert world.noted("complaint-false") == 3
    playbook.every_subset_signs(world.keys_at())


def test_two_different_deals_of_one_dealer_put_it_out() -> None:
    def twice(record: CeremonyRecord, world: World) -> Iterable[CeremonyRecord]:
        if not isinstance(record, Deal):
            return [record]
        return [
            record,
            make_deal(attempt_of(world), Index(1), Polynomial(Secret((Scalar(5), Scalar(6)))), world.entropy),
        ]

    for seed in range(3):
        world = World(2, 3, seed)
        world.seats[1].tamper = twice
        # The third dealer is slow, so that both Deals stand before the phase is over.
        world.seats[3].tamper = lambda record, world: (
            [] if isinstance(record, Deal) and Index(1) not in attempt_of(world).out else [record]
        )
        world.start()
        world.run(lambda world=world: world.holds(1))  # type: ignore[misc]
        assert 1 not in qualified(world)
        assert world.noted("deal-twice") == 3


def test_a_second_copy_of_the_same_deal_in_a_new_envelope_is_harmless() -> None:
    world = World(2, 3)
    world.seats[1].tamper = lambda record, _: [record, record, record]
    world.start()
    world.run(lambda: world.holds(1))
    assert qualified(world) == (1, 2, 3)


def test_with_fewer_than_t_dealers_the_attempt_ends_and_the_next_one_succeeds() -> None:
    world = World(2, 3)
    for index in (1, 2):
        world.seats[index].tamper = dealing(
            lambda deal, world: flip_sealed(deal, 3) if attempt_of(world).number == 1 else deal
        )
    world.start()
    world.run(lambda: world.key().ended == 1)
    world.run(lambda: world.holds(1))
    current = world.key().current
    assert current is not None
    playbook.every_subset_signs(world.keys_at())


def test_an_announce_with_torsion_does_not_count_and_a_later_good_one_does() -> None:
    world = World(2, 3)
    world.seats[1].tamper = lambda record, _: [
        replace(record, transport_key=with_torsion(record.transport_key)) if isinstance(record, Announce) else record
    ]
    world.start()
    world.run_for(5_000)
    assert 1 not in attempt_of(world).announced
    assert world.noted("announce-refused") == 3
    world.seats[1].tamper = None
    world.run(lambda: world.holds(1))


def test_an_announce_cannot_be_taken_over_by_another_seat() -> None:
    # Seat 1 says seat 2's Announce as its own: the proof is bound to the seat.
    world = World(2, 3)
    stolen: list[Announce] = []

    def copy(record: CeremonyRecord, world: World) -> Iterable[CeremonyRecord]:
        del world
        if isinstance(record, Announce):
            stolen.append(record)
        return [record]

    world.seats[2].tamper = copy
    world.seats[1].tamper = lambda record, _: stolen[:1] if isinstance(record, Announce) else [record]
    world.start()
    world.run_for(5_000)
    assert set(attempt_of(world).announced) == {2, 3}


def test_a_seat_that_sends_no_ready_costs_the_attempt_and_a_ready_that_comes_later_changes_nothing() -> None:
    world = World(2, 3)
    kept: list[Ready] = []

    def silent(record: CeremonyRecord, _: World) -> Iterable[CeremonyRecord]:
        if isinstance(record, Ready):
            kept.append(record)
            return []
        return [record]

    world.seats[3].tamper = silent
    world.start()
    world.run(lambda: world.key().ended == 1)
    world.seats[3].tamper = None
    world.say(3, kept[0])
    world.run(lambda: world.holds(1))
    current = world.key().current
    assert current is not None
    assert current.record.open_id != kept[0].open_id
    assert world.noted("late-record") == 3


def test_votes_for_a_phase_that_has_not_begun_do_not_count() -> None:
    world = World(2, 3)
    world.start(1, 2)
    world.run(lambda: world.key().attempt is not None)
    for phase in (Phase.ANNOUNCE, Phase.DEAL, Phase.VERDICT, Phase.READY, Phase.COMMIT):
        for index in (1, 2):
            world.say(index, PhaseVote(attempt_of(world).open_id, phase))
    world.run_for(2_000)
    assert attempt_of(world).phase is Phase.ANNOUNCE
    world.start(3)
    world.run(lambda: world.holds(1))
    assert qualified(world) == (1, 2, 3)


def test_a_key_record_before_ready_or_of_another_key_does_not_count() -> None:
    world = World(2, 3)
    world.seats[3].tamper = lambda record, _: [] if isinstance(record, Ready) else [record]
    world.start()
    world.run(lambda: world.key().attempt is not None and attempt_of(world).phase is Phase.READY)
    world.run_for(300)
    attempt = attempt_of(world)
    made = attempt.made
    assert made is not None
    state = world.seats[1].state
    assert state is not None
    record = KeyRecord(
        playbook.KEY,
        made.expected.epoch,
        attempt.open_id,
        2,
        made.public_key,
        tuple(VerificationShare(j, y) for j, y in sorted(made.shares.items())),
        state.log.roster_raw,
        Offset(1),
        bytes(64),
        tuple(raw for _, raw in attempt.ready),
        NO_SIGNATURE,
    )
    world.say(1, record)
    world.say(2, replace(record, key_id=KeyId("other")))
    world.run_for(200)
    assert world.key().current is None
    world.seats[3].tamper = None
    world.run(lambda: world.holds(1))


def test_records_of_an_earlier_attempt_do_nothing_in_the_next() -> None:
    world = World(2, 3)
    world.seats[3].tamper = lambda record, _: [] if isinstance(record, Ready) else [record]
    world.start()
    world.run(lambda: world.key().ended == 1)
    world.seats[3].tamper = None
    old = list(world.log)
    world.run(lambda: world.key().attempt is not None)
    for raw in old:
        world.append(raw)
    world.run(lambda: world.holds(1))
    for raw in old:
        world.append(raw)
    world.run_for(1_000)
    assert world.key().epoch == 1
    assert world.key().attempt is None
    assert world.noted("log-forked") == 0


def test_a_verification_share_that_is_the_identity_crashes_nobody() -> None:
    # Three dealers together arrange that seat 2's new share is zero: f1 + f2 + f3 vanishes at 2.
    lines = {1: (3, 1), 2: (5, 1), 3: (ORDER - 14, 1)}

    def vanish(deal: Deal, world: World, seat: int) -> Deal:
        attempt = attempt_of(world)
        if attempt.number > 1:
            return deal
        polynomial = Polynomial(Secret(tuple(map(Scalar, lines[seat]))))
        return make_deal(attempt, Index(seat), polynomial, world.entropy)

    world = World(2, 3)
    for index in lines:
        world.seats[index].tamper = dealing(lambda deal, world, seat=index: vanish(deal, world, seat))  # type: ignore[misc]
    world.start()
    world.run(lambda: world.key().ended == 1)
    world.run(lambda: world.holds(1))
    playbook.every_subset_signs(world.keys_at())


def test_no_note_and_no_repr_ever_holds_a_secret() -> None:
    world = World(2, 3, seed=3)
    world.start()
    seen: set[str] = set()
    texts: list[str] = []

    def look() -> bool:
        for seat in world.seats.values():
            if seat.state is None:
                continue
            mine = seat.state.of_key(playbook.KEY)
            secrets = [held.share for held in mine.held]
            if mine.part is not None:
                secrets += [each for each in (mine.part.transport,) if each is not None]
                secrets += [mine.part.staged.share] if mine.part.staged is not None else []
            seen.update(str(secret.expose()) for secret in secrets)
            texts.append(repr(seat.state.secrets) + repr(seat.disk))
        return world.holds(1)

    world.run(look)
    assert len(seen) >= 6
    texts += [repr(seat.notes) for seat in world.seats.values()]
    everything = "".join(texts)
    assert not [secret for secret in seen if secret in everything]
