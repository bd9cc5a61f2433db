"""A mobile adversary: each epoch it owns other seats, keeps all that it ever found there and the whole log, and acts.

It never forgets: identity keys, scalars of every dump (a seat's memory and its disk), every record. With the identity
keys of seats that it has left it announces (without a proof, and with a proof of an old share), deals, votes, and has
the broker hold back the seat's own Announce meanwhile. At the end ``Loot`` tries every scalar as a key to every sealed
sub-share, follows up whatever opens, and interpolates over every t of the shares that it has.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import combinations

from common.errors import BadInput
from common.ids import Index, Offset, OpenId
from common.secret import Secret
from common.wire.messages import Announce, CeremonyRecord, Deal, Phase, PhaseVote
from signer_service.frost import proofs
from signer_service.frost.group import ORDER, Element, Scalar, base_mul, decode_scalar, mul, random_scalar
from signer_service.frost.sealing import open_sealed
from signer_service.frost.sharing import evaluate_commitment, lagrange_weights, random_polynomial
from signer_service.protocol import transcript
from signer_service.protocol.ceremony_part import make_deal
from signer_service.protocol.ceremony_state import KeySecrets
from signer_service.protocol.fold import fold
from signer_service.protocol.log_state import Attempt, LogState
from signer_service.protocol.snapshot import unpack
from tests import playbook
from tests.memory import Dump, masked
from tests.system.secret_forms import _secrets
from tests.world import World

HELD_BACK_MS = 1_000
"""How long the broker holds back an Announce: less than anybody's patience."""


def interpolate(values: dict[int, int]) -> int:
    weights = lagrange_weights(tuple(map(Index, values)))
    return sum(weights[Index(seat)] * value for seat, value in values.items()) % ORDER


@dataclass
class Loot:
    """What the adversary has, and what can be made of it."""

    group_key: bytes
    scalars: set[int] = field(default_factory=set)
    deals: list[tuple[OpenId, int, Deal]] = field(default_factory=list)
    transports: dict[tuple[OpenId, int], set[bytes]] = field(default_factory=dict)
    polynomials: dict[OpenId, tuple[int, dict[Index, bytes]]] = field(default_factory=dict)
    """Threshold and public shares of each polynomial that gives the key: of epochs, and of attempts that failed."""
    opened: dict[tuple[OpenId, int, int], int] = field(default_factory=dict)
    """Sub-shares by attempt, dealer and recipient."""
    shares: dict[OpenId, dict[int, int]] = field(default_factory=dict)

    def work(self) -> int | None:
        """Do everything that can be done; return the private key if that gives it."""
        tried: set[int] = set()
        while fresh := self.scalars - tried:
            tried |= fresh
            self._open(fresh)
            self._combine()
        self._label()
        every = [(seat, share) for held in self.shares.values() for seat, share in held.items()]
        sizes = {threshold for threshold, _ in self.polynomials.values()}
        for some in (some for size in sizes for some in combinations(every, size)):
            # Of one epoch or of several: shares that do not belong together are tried as well.
            if len({seat for seat, _ in some}) == len(some):
                key = interpolate(dict(some))
                if base_mul(Scalar(key)) == self.group_key:
                    return key
        return None

    def most_of_one_epoch(self) -> int:
        return max((len(held) for held in self.shares.values()), default=0)

    def _open(self, scalars: Iterable[int]) -> None:
        for scalar in scalars:
            public = bytes(base_mul(Scalar(scalar % ORDER)))
            for open_id, dealer, deal in self.deals:
                # Nothing else can open it: the key it is sealed with is the dealer's ephemeral key times just this.
                if not any(public in keys for (attempt, _), keys in self.transports.items() if attempt == open_id):
                    continue
                shared = mul(Element(deal.ephemeral_key), Scalar(scalar % ORDER))
                for each in deal.sealed:
                    for transport in self.transports.get((open_id, each.recipient), ()):
                        self._try(open_id, dealer, deal, each.recipient, each.ciphertext, shared, transport)

    def _try(
        self, open_id: OpenId, dealer: int, deal: Deal, seat: Index, sealed: bytes, shared: Element, transport: bytes
    ) -> None:
        context = transcript.sealing(open_id, Index(dealer), seat, deal.ephemeral_key, transport)
        try:
            value = decode_scalar(open_sealed(shared, context, sealed))
        except BadInput:
            return
        if base_mul(value) == evaluate_commitment(tuple(map(Element, deal.commitments)), seat):
            self.opened[open_id, dealer, seat] = value

    def _combine(self) -> None:
        """A dealer's own share, from t of its sub-shares; a seat's new share, from its sub-shares of t dealers."""
        for open_id, (threshold, _) in self.polynomials.items():
            mine = {(i, j): value for (o, i, j), value in self.opened.items() if o == open_id}
            for side in (0, 1):
                for fixed in {pair[side] for pair in mine}:
                    values = {pair[1 - side]: value for pair, value in mine.items() if pair[side] == fixed}
                    for size in range(threshold, len(values) + 1):
                        for some in combinations(sorted(values), size):
                            self.scalars.add(interpolate({each: values[each] for each in some}))

    def _label(self) -> None:
        publics = {bytes(base_mul(Scalar(scalar % ORDER))): scalar for scalar in self.scalars}
        for open_id, (_, shares) in self.polynomials.items():
            held = {int(seat): publics[share] for seat, share in shares.items() if share in publics}
            if held:
                self.shares[open_id] = held


class Adversary:
    """Put into a world as ``world.listener``: it is told of each record, and asked about what seats want to send."""

    def __init__(self, world: World, *, proof_works: bool = True) -> None:
        self.world = world
        self.loot = Loot(world.keys_at()[1].public.group_key)
        self.identities: set[int] = set()
        self.owned: set[int] = set()
        self.victim = 0
        self.votes = False
        self.deals = False
        self.not_erased: dict[int, dict[OpenId, list[int]]] = {}
        """By seat, what a replica that does not erase would still have of attempts. Filled by the test."""
        self.shares_seen: dict[int, int] = {}
        self._proof_works = proof_works
        self._log = LogState()
        self._done: set[tuple[OpenId, str]] = set()
        self._hold: dict[OpenId, int] = {}
        for seat in world.seats.values():
            seat.tamper = lambda record, _, index=seat.index: self._broker(index, record)
        for raw in list(world.log):
            self._read(raw)
        append = world.append

        def watched(raw: bytes) -> None:
            append(raw)
            self._read(raw)
            self._look()

        world.append = watched  # type: ignore[method-assign]

    # --- what it finds -----------------------------------------------------------------------------------------------

    def take(self, *seats: int) -> None:
        """Own these seats: keep what is in their memory and on their disks, now and until ``leave``."""
        self.owned |= set(seats)
        self.identities |= set(seats)
        self._look()

    def leave(self) -> None:
        self._look()
        self.owned.clear()

    def _look(self) -> None:
        for index in self.owned:
            seat = self.world.seats[index]
            found = Dump([seat.state, seat.disk]).integers
            for secret in seat.disk.secrets.values() if seat.disk is not None else ():
                found |= {
                    masked(each) for each in _secrets(unpack(KeySecrets, secret.expose())) if isinstance(each, int)
                }
            self.loot.scalars |= {masked(each) for each in found}
            committed = {key.current.record.open_id for key in self._log.keys.values() if key.current is not None}
            for open_id, kept in self.not_erased.get(index, {}).items():
                if open_id not in committed:
                    self.loot.scalars |= set(kept)
            if seat.state is not None and seat.state.of_key(playbook.KEY).held:
                self.shares_seen[index] = seat.state.of_key(playbook.KEY).held[-1].share.expose()

    def _read(self, raw: bytes) -> None:
        wire = self.world.trust.wire
        self._log = fold(self._log, Offset(self._log.offset + 1), raw, self.world.trust).state
        key = self._log.keys.get(playbook.KEY)
        if key is not None and key.current is not None:
            current = key.current
            self.loot.polynomials[current.record.open_id] = current.committee.threshold, current.shares
        if key is not None and key.attempt is not None:
            attempt = key.attempt
            made = dict(attempt.made.shares) if attempt.made is not None else {}
            self.loot.polynomials[attempt.open_id] = attempt.new.threshold, made
            self._act(attempt)
        try:
            envelope = wire.decode_envelope(raw)
            record = wire.decode_record(envelope.payload)
        except BadInput:
            return
        if isinstance(record, Deal):
            self.loot.deals.append((record.open_id, envelope.index, record))
        elif isinstance(record, Announce):
            self.loot.transports.setdefault((record.open_id, envelope.index), set()).add(record.transport_key)

    # --- what it does ------------------------------------------------------------------------------------------------

    def _broker(self, index: int, record: CeremonyRecord) -> list[CeremonyRecord]:
        held = isinstance(record, Announce) and index == self.victim
        return [] if held and self.world.now < self._hold.get(record.open_id, 0) else [record]  # type: ignore[union-attr]

    def _act(self, attempt: Attempt) -> None:
        step = attempt.open_id, attempt.phase.value
        if step in self._done:
            return
        self._done.add(step)
        if attempt.phase is Phase.ANNOUNCE and self.victim:
            self._hold[attempt.open_id] = self.world.now + HELD_BACK_MS
            self.world.at(0, lambda: self._announce(attempt))
        elif attempt.phase is Phase.DEAL and self.victim and self.deals:
            self.world.at(0, lambda: self._deal(attempt))
        elif attempt.phase is Phase.READY and self.votes and attempt.number == 1:
            self.world.at(0, lambda: self._vote(attempt))

    def _announce(self, attempt: Attempt) -> None:
        seat, entropy = Index(self.victim), self.world.entropy
        old = self.shares_seen.get(self.victim)
        for proved in (False, True):
            secret = Secret(random_scalar(entropy(64)))
            self.loot.scalars.add(secret.expose())
            point = base_mul(secret.expose())
            proof = proofs.prove(secret, point, transcript.transport_proof(attempt.open_id, seat), entropy(64))
            share_proof = b""
            if proved and old is not None:
                context = transcript.held_share_proof(attempt.open_id, seat, point)
                share_proof = proofs.prove(Secret(Scalar(old)), base_mul(Scalar(old)), context, entropy(64))
            self.world.say(self.victim, Announce(attempt.open_id, bytes(point), proof, share_proof))
            if not self._proof_works:
                break  # the first one counts; a second would only void the seat

    def _deal(self, attempt: Attempt) -> None:
        seat, entropy = Index(self.victim), self.world.entropy
        threshold = attempt.new.threshold
        polynomial = random_polynomial(Secret(Scalar(7)), threshold, entropy(64 * (threshold - 1)))
        deal = make_deal(attempt, seat, polynomial, entropy)
        self.world.say(self.victim, replace(deal, commitments=(attempt.old_shares[seat], *deal.commitments[1:])))

    def _vote(self, attempt: Attempt) -> None:
        for seat in sorted(self.identities):
            self.world.say(seat, PhaseVote(attempt.open_id, Phase.READY))
