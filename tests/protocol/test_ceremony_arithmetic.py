"""Whole ceremonies of the machines, from the random bytes that each dealer drew, against the independent arithmetic."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from common.ids import OpenId
from common.wire import codec
from common.wire.messages import Deal, Envelope, KeyRecord, Ready
from signer_service.frost.group import encode_scalar
from signer_service.protocol.ceremony_state import Event
from tests import playbook
from tests.frost import reference
from tests.world import SimSeat, World

PROOFS = {"generate": (64, 64, 64), "reshare": (64, 64)}
"""What a dealer draws after its polynomial: a proof of the constant term, the ephemeral scalar, and a proof of it."""


class WatchedWorld(World):
    """Keeps what each dealer drew in the step in which it made its Deal."""

    def __init__(self, threshold: int, size: int) -> None:
        super().__init__(threshold, size)
        self._drawn: list[bytes] = []
        self.draws: dict[tuple[OpenId, int], list[bytes]] = {}

    def entropy(self, size: int) -> bytes:
        self._drawn.append(super().entropy(size))
        return self._drawn[-1]

    def _feed(self, seat: SimSeat, event: Event) -> None:
        self._drawn = []
        drawn = self._drawn
        super()._feed(seat, event)
        part = seat.state.of_key(playbook.KEY).part if seat.state is not None else None
        if part is not None and part.deal is not None:
            self.draws.setdefault((part.open_id, seat.index), drawn)

    def records(self) -> list[tuple[int, Any]]:
        """Sender and record of all that stands in the log."""
        envelopes = [codec.decode(raw, Envelope) for raw in self.log]
        return [(each.index, codec.decode_ceremony(each.payload)) for each in envelopes]


def polynomials(world: WatchedWorld, record: KeyRecord, kind: str, dealers: Iterable[int]) -> reference.Draw:
    drawn: dict[int, bytes] = {}
    for dealer in dealers:
        draws = world.draws[record.open_id, dealer]
        constant = (64,) if kind == "generate" else ()
        assert tuple(map(len, draws)) == (*constant, 64 * (record.threshold - 1), *PROOFS[kind])
        random = b"".join(draws[: len(constant) + 1])
        drawn[dealer] = random if kind == "generate" else bytes(64) + random
    return lambda _, dealer, k: drawn[dealer][64 * k : 64 * (k + 1)]


def test_the_ceremonies_of_the_machines_are_the_arithmetic_of_the_reference_byte_for_byte() -> None:
    world = WatchedWorld(2, 3)
    world.start()
    held: dict[int, dict[int, str]] = defaultdict(dict)

    def reaches(epoch: int, *seats: int) -> None:
        world.run(lambda: world.agrees(epoch, seats))
        for index in seats:
            state = world.seats[index].state
            assert state is not None
            share = state.of_key(playbook.KEY).of_epoch(world.key().epoch)
            assert share is not None
            assert share.epoch == epoch
            held[epoch][index] = encode_scalar(share.share.expose()).hex()
        world.run_for(2_500)

    reaches(1, 1, 2, 3)
    world.ask_refresh(1)
    reaches(2, 1, 2, 3)
    world.lose_disk(3)
    world.run_for(2_500)
    world.start(3)
    reaches(3, 1, 2, 3)
    world.give_roster(world.house.roster(3, range(1, 6), version=2))
    world.start(4)
    reaches(4, 1, 2, 3, 4)
    world.start(5)
    reaches(5, 1, 2, 3, 4, 5)
    world.give_roster(world.house.roster(2, (1, 2, 3), version=3))
    reaches(6, 1, 2, 3)

    said = world.records()
    deals = {(each.open_id, seat): each for seat, each in said if isinstance(each, Deal)}
    ready = {each.open_id: each for _, each in said if isinstance(each, Ready)}
    records = {each.epoch: each for _, each in said if isinstance(each, KeyRecord)}
    assert sorted(records) == [1, 2, 3, 4, 5, 6]
    shares: dict[int, int] | None = None
    for epoch, record in sorted(records.items()):
        kind = "generate" if shares is None else "reshare"
        dealers = ready[record.open_id].qualified
        recipients = [share.index for share in record.verification_shares]
        draw = polynomials(world, record, kind, dealers)
        case, shares = reference.ceremony("", epoch, record.threshold, recipients, dealers, shares, draw)
        for dealer in case["dealers"]:
            commitments = deals[record.open_id, dealer["identifier"]].commitments
            assert [each.hex() for each in commitments] == dealer["commitments"]
        assert held[epoch] == {each["identifier"]: each["share"] for each in case["recipients"]}
        points = {share.index: share.element.hex() for share in record.verification_shares}
        assert points == {each["identifier"]: each["verification_share"] for each in case["recipients"]}
        assert record.public_key.hex() == case["group_public_key"]
        assert ready[record.open_id].verification_hash.hex() == case["verification_hash"]
