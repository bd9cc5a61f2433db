"""A committee of signers on a simulated, hostile network: one clock, one seed, real bytes and real signatures.

Everything between seats goes through the real codec and real envelopes, so that a forged record is refused where it
would be in production. The network drops, delays, repeats, reorders and forges by a seed; seats crash and come back
with a new boot id; a seat's adversary is a function that rewrites what it sends.
"""

import heapq
import random  # noqa: TID251 - a test's dice, from a seed that reproduces the run
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from common import ed25519
from common.errors import BadInput
from common.ids import BootId, EdgeKeyId, Epoch, Index, Instant, KeyId, Offset, OpenId, RecordId, RequestId
from common.secret import Secret
from common.wire import codec, envelope
from common.wire.messages import (
    AuditEntry,
    Envelope,
    Mode,
    MsgToSign,
    NonceRequest,
    NonceScope,
    Outcome,
    PeerMessage,
    Refused,
    Role,
    SignatureShares,
    Signed,
    SignItem,
    SignPackage,
)
from signer_service.frost.group import ORDER, Scalar, base_mul
from signer_service.frost.keys import KeyPackage, PublicKeyPackage
from signer_service.frost.sharing import random_polynomial, split
from signer_service.frost.signing import sign_share
from signer_service.protocol import collect, coordinator, participant
from signer_service.protocol.coordinator import CoordinatorState
from signer_service.protocol.machine import (
    Answer,
    InternalSigned,
    Note,
    Origin,
    Outgoing,
    Peer,
    PeerArrived,
    PeersChanged,
    RecordDone,
    RequestArrived,
    Sender,
    Tick,
    ToAudit,
    ToPeer,
)
from signer_service.protocol.participant import ParticipantState
from signer_service.protocol.view import EpochKeys, InternalSession, SigningView, ViewChanged
from signer_service.protocol.wire import Wire

KEY: Final = KeyId("default")
START: Final = 1_700_000_000_000


def open_peer_record(raw: bytes, identity_keys: Mapping[Index, bytes]) -> tuple[Sender, PeerMessage]:
    topic = codec.decode(raw, Envelope).topic
    opened = envelope.open_envelope(
        raw,
        topic,
        lambda role, index: [identity_keys[Index(index)]] if role is Role.SIGNER and index in identity_keys else [],
    )
    return Sender(Index(opened.index), opened.boot_id), codec.decode_peer(opened.payload)


WIRE: Final = Wire(
    decode_request=lambda raw: codec.decode(raw, MsgToSign),
    encode_package=codec.encode,
    decode_package=lambda raw: codec.decode(raw, SignPackage),
    open_envelope=open_peer_record,
)


def peer_topic(seat: int) -> str:
    return f"signer.v1.peer{seat}"


class Dice(random.Random):
    """Seeded randomness with the two forms that the tests need."""

    def uuid(self) -> str:
        return str(UUID(int=self.getrandbits(128)))

    def entropy(self, count: int) -> bytes:
        return self.randbytes(count)


@dataclass(frozen=True)
class Committee:
    """One key at one epoch, dealt by hand."""

    public: PublicKeyPackage
    packages: Mapping[Index, KeyPackage]
    keys: Mapping[Index, EpochKeys]


def deal(
    dice: Dice,
    n: int,
    t: int,
    epoch: int = 1,
    commit_offset: int = 10,
    secret: int | None = None,
    key_id: KeyId = KEY,
    open_id: OpenId = OpenId(b""),
) -> Committee:
    constant = Secret(Scalar(secret or dice.randrange(1, ORDER)))
    polynomial = random_polynomial(constant, t, dice.randbytes(64 * (t - 1)))
    shares = split(polynomial, [Index(i) for i in range(1, n + 1)])
    group_key = base_mul(constant.expose())
    public = PublicKeyPackage(group_key, t, {i: base_mul(s.expose()) for i, s in shares.items()})
    packages = {i: KeyPackage(i, s, public.verification_shares[i], group_key, t) for i, s in shares.items()}
    scope = NonceScope(key_id, Offset(commit_offset), open_id)
    keys = {i: EpochKeys(key_id, Epoch(epoch), scope, public, packages[i]) for i in shares}
    return Committee(public, packages, keys)


class Pod:
    """An API pod: it holds an edge key and asks."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.private, self.public = ed25519.generate_keypair(dice.randbytes(32))
        self.edge_key_id = envelope.edge_key_id(self.public)
        self.instance = BootId(dice.uuid())

    def item(self, message: bytes, now: int, for_ms: int = 5_000, key_id: KeyId = KEY, **change: Any) -> SignItem:
        item = SignItem(
            RequestId(self.dice.uuid()),
            key_id,
            Mode.SIGN,
            message,
            "anonymous",
            Instant(now),
            Instant(now + for_ms),
        )
        return replace(item, **change)

    def record(self, items: Iterable[SignItem]) -> tuple[MsgToSign, bytes]:
        request = MsgToSign(
            RecordId(self.dice.uuid()), tuple(items), "signer.v1.resp0", self.instance, self.edge_key_id
        )
        raw = envelope.sign_request(request, self.private)
        return codec.decode(raw, MsgToSign), raw


@dataclass(frozen=True)
class Weather:
    """What the network does to a record, as probabilities and milliseconds."""

    drop: float = 0.0
    repeat: float = 0.0
    forge: float = 0.0
    delay_ms: tuple[int, int] = (1, 4)


CALM: Final = Weather()
STORM: Final = Weather(drop=0.08, repeat=0.15, forge=0.2, delay_ms=(1, 60))

Adversary = Callable[[ToPeer], Iterable[ToPeer]]
"""What a bad seat sends instead of what its machines wanted to send."""


@dataclass
class Process:
    """One start of one seat."""

    seat: Index
    boot_id: BootId
    participant: ParticipantState
    coordinator: CoordinatorState
    wake_at: int | None = None


@dataclass
class Asked:
    """One request record, and where it is being worked on."""

    request: MsgToSign
    raw: bytes
    seat: Index
    origin: Origin
    at: int
    done: bool = False
    taken_over: bool = False


@dataclass
class World:
    n: int
    t: int
    seed: int = 1
    weather: Weather = CALM
    adversaries: dict[int, Adversary] = field(default_factory=dict)
    presence_ms: int = 600
    """How long the others take to notice that a seat went or came."""

    def __post_init__(self) -> None:
        self.dice = Dice(self.seed)
        self.now = START
        self.pod = Pod(self.dice)
        self.committee = deal(self.dice, self.n, self.t)
        self.identities = {Index(i): ed25519.generate_keypair(self.dice.randbytes(32)) for i in range(1, self.n + 1)}
        self.identity_keys = {seat: public for seat, (_, public) in self.identities.items()}
        self.views: dict[Index, SigningView] = {seat: self.view(seat) for seat in self.identities}
        self.up: dict[Index, Process] = {}
        self.line: list[tuple[int, int, str, Any]] = []
        self.sequence = 0
        self.asked: dict[RecordId, Asked] = {}
        self.answers: list[tuple[int, Index, MsgToSign, Outcome]] = []
        self.audit: list[tuple[Index, AuditEntry]] = []
        self.done: list[tuple[Index, RecordDone]] = []
        self.notes: list[tuple[int, Index, Note]] = []
        self.internal: list[InternalSigned] = []
        self.sent: list[tuple[Index, ToPeer]] = []
        self.refused_envelopes = 0
        for seat in self.identities:
            self._boot(seat)
        self._presence()

    # --- what seats know ---------------------------------------------------------------------------------------------

    def view(self, seat: Index, committee: Committee | None = None, **change: Any) -> SigningView:
        keys = (committee or self.committee).keys[seat]
        edge: dict[EdgeKeyId, bytes] = {self.pod.edge_key_id: self.pod.public}
        view = SigningView(seat, edge, self.identity_keys, (keys.key_id,), {keys.key_id: keys})
        return replace(view, **change)

    def change_view(self, seat: Index, view: SigningView) -> None:
        self.views[seat] = view
        if seat in self.up:
            self._feed_both(self.up[seat], ViewChanged(view))

    def internal_session(self, seat: int, committee: Committee, message: bytes, coordinate: bool) -> InternalSession:
        keys = committee.keys[Index(seat)]
        return InternalSession(keys.scope.open_id, keys, message, coordinate)

    def presence(self) -> dict[Index, Peer]:
        def epochs(seat: Index) -> dict[str, int]:
            return {k.key_id: k.epoch for k in self.views[seat].current.values() if k.share is not None}

        return {seat: Peer(seat, process.boot_id, False, epochs(seat)) for seat, process in self.up.items()}

    # --- what happens to seats ---------------------------------------------------------------------------------------

    def crash(self, seat: int) -> None:
        del self.up[Index(seat)]
        self._later(self.presence_ms, "presence", None)

    def reboot(self, seat: int) -> None:
        self._boot(Index(seat))
        self._later(self.presence_ms, "presence", None)

    def at(self, after_ms: int, action: Callable[[], None]) -> None:
        self._later(after_ms, "action", action)

    def ask(self, seat: int, items: Iterable[SignItem], redelivered: bool = False) -> Asked:
        request, raw = self.pod.record(items)
        asked = Asked(request, raw, Index(seat), Origin(seat % 12, len(self.asked), redelivered), self.now)
        self.asked[request.record_id] = asked
        self._feed(self.up[Index(seat)], RequestArrived(asked.origin, request, raw))
        return asked

    def ask_messages(self, seat: int, *messages: bytes, for_ms: int = 5_000) -> Asked:
        return self.ask(seat, [self.pod.item(message, self.now, for_ms) for message in messages])

    def take_over(self) -> None:
        """The group gives the partitions of dead seats to living ones: what was not finished comes again."""
        for asked in self.asked.values():
            if not asked.done and asked.seat not in self.up:
                asked.taken_over = True
                asked.seat = self.dice.choice(sorted(self.up))
                asked.origin = replace(asked.origin, redelivered=True)
                self._feed(self.up[asked.seat], RequestArrived(asked.origin, asked.request, asked.raw))

    def run(self, for_ms: int, until: Callable[[], bool] = lambda: False) -> None:
        end = self.now + for_ms
        while not until():
            wakes = [p.wake_at for p in self.up.values() if p.wake_at is not None]
            upcoming = [*wakes, *([self.line[0][0]] if self.line else [])]
            at = min(upcoming, default=end + 1)
            if at > end:
                self.now = end
                return
            self.now = max(self.now, at)
            if self.line and self.line[0][0] <= self.now:
                _, _, kind, what = heapq.heappop(self.line)
                self._happen(kind, what)
            for process in list(self.up.values()):
                if process.wake_at is not None and process.wake_at <= self.now:
                    self._feed(process, Tick())

    def run_until_answered(self, for_ms: int = 6_000) -> None:
        self.run(for_ms, lambda: all(asked.done for asked in self.asked.values()))

    # --- what came of it ---------------------------------------------------------------------------------------------

    def outcomes(self) -> dict[RequestId, Outcome]:
        """The one outcome of each item; fails if an item has a second one, a late signature, or one that is not valid.

        Only where a seat died between its answer and the offset may another seat have answered again.
        """
        found: dict[RequestId, Outcome] = {}
        for at, _, request, outcome in self.answers:
            item = next(item for item in request.items if item.request_id == outcome.request_id)
            assert at <= item.deadline_ms, "an answer after its deadline"
            if isinstance(outcome.result, Signed):
                check_signature(self.committee.public.group_key, item.message, outcome.result.signature)
            taken_over = self.asked[request.record_id].taken_over
            assert taken_over or outcome.request_id not in found, "two answers to one request"
            if not isinstance(outcome.result, Refused) or outcome.request_id not in found:
                found[outcome.request_id] = outcome
        return found

    def signed(self) -> dict[RequestId, Signed]:
        return {r: o.result for r, o in self.outcomes().items() if isinstance(o.result, Signed)}

    def noted(self, name: str) -> list[Note]:
        return [note for _, _, note in self.notes if note.name == name]

    # --- inside ------------------------------------------------------------------------------------------------------

    def _boot(self, seat: Index) -> None:
        boot_id = BootId(self.dice.uuid())
        process = Process(seat, boot_id, participant.start(seat, boot_id, WIRE), coordinator.start(seat, boot_id, WIRE))
        self.up[seat] = process
        self._feed_both(process, ViewChanged(self.views[seat]))

    def _presence(self) -> None:
        for process in list(self.up.values()):
            self._feed_both(process, PeersChanged(self.presence()))

    def _feed_both(self, process: Process, event: ViewChanged | PeersChanged) -> None:
        out = participant.step(process.participant, event, Instant(self.now), self.dice.entropy)
        process.participant = out.state
        self._do(process, out.send)
        self._feed(process, event)

    def _feed(self, process: Process, event: coordinator.Event) -> None:
        out = coordinator.step(process.coordinator, event, Instant(self.now), self.dice.entropy)
        process.coordinator = out.state
        process.wake_at = out.wake_at
        self.notes += [(self.now, process.seat, note) for note in out.notes]
        self._do(process, out.send)

    def _happen(self, kind: str, what: Any) -> None:
        if kind == "presence":
            self._presence()
        elif kind == "action":
            what()
        else:
            seat, raw = what
            if seat in self.up:
                self.deliver(seat, raw)

    def deliver(self, seat: Index, raw: bytes) -> None:
        process = self.up[seat]
        try:
            opened = envelope.open_envelope(raw, peer_topic(seat), self._keys_of)
            message = codec.decode_peer(opened.payload)
        except BadInput:
            self.refused_envelopes += 1
            return
        event = PeerArrived(Sender(Index(opened.index), opened.boot_id), message, raw)
        if isinstance(message, NonceRequest | SignPackage):
            out = participant.step(process.participant, event, Instant(self.now), self.dice.entropy)
            process.participant = out.state
            self._do(process, out.send)
        else:
            self._feed(process, event)

    def _do(self, process: Process, sends: tuple[Outgoing, ...]) -> None:
        adversary = self.adversaries.get(process.seat)
        for send in sends:
            match send:
                case ToPeer():
                    for changed in [send] if adversary is None else adversary(send):
                        self.sent.append((process.seat, changed))
                        self._transmit(process, changed)
                case ToAudit(event=event):
                    codec.encode(event)
                    self.audit += [(process.seat, entry) for entry in event.entries]
                case Answer(request=request, outcomes=outcomes):
                    self.answers += [(self.now, process.seat, request, outcome) for outcome in outcomes]
                case RecordDone(record_id=record_id):
                    self.done.append((process.seat, send))
                    if record_id in self.asked:
                        self.asked[record_id].done = True
                case InternalSigned():
                    self.internal.append(send)
                case _:
                    raise AssertionError(f"unexpected {send}")

    def _keys_of(self, role: Role, index: int) -> list[bytes]:
        key = self.identity_keys.get(Index(index))
        return [key] if role is Role.SIGNER and key is not None else []

    def seal(self, process: Process, send: ToPeer) -> bytes:
        private, _ = self.identities[process.seat]
        signer = envelope.Signer(Role.SIGNER, process.seat, process.boot_id, private)
        return envelope.seal(signer, peer_topic(send.seat), codec.encode(send.message))

    def _transmit(self, process: Process, send: ToPeer) -> None:
        raw = self.seal(process, send)
        dice, weather = self.dice, self.weather
        copies = 1 + (dice.random() < weather.repeat)
        for _ in range(copies):
            if dice.random() >= weather.drop:
                self._later(dice.randint(*weather.delay_ms), "record", (send.seat, raw))
        if dice.random() < weather.forge:
            forged = bytearray(raw)
            forged[dice.randrange(len(forged))] ^= 1 << dice.randrange(8)
            self._later(dice.randint(*weather.delay_ms), "record", (send.seat, bytes(forged)))

    def _later(self, after_ms: int, kind: str, what: Any) -> None:
        self.sequence += 1
        heapq.heappush(self.line, (self.now + after_ms, self.sequence, kind, what))


@cache
def check_signature(public: bytes, message: bytes, signature: bytes) -> None:
    """By two verifiers that share no code: libsodium and OpenSSL."""
    assert ed25519.verify(public, message, signature)
    Ed25519PublicKey.from_public_bytes(public).verify(signature, message)


def honest_share(world: World) -> tuple[Index, tuple[bytes, bytes, bytes]]:
    """A seat that gives seat 1 a good share, and what would prove a bad one: its commitments, package and answer."""
    raws: list[bytes] = []
    deliver = world.deliver

    def watch(seat: Index, raw: bytes) -> None:
        raws.append(raw)
        deliver(seat, raw)

    world.deliver = watch  # type: ignore[method-assign]
    world.ask_messages(1, b"honest")
    world.run_until_answered()
    answer = next(r for r in raws if isinstance(WIRE.open_envelope(r, world.identity_keys)[1], SignatureShares))
    seat = WIRE.open_envelope(answer, world.identity_keys)[0].index
    package = next(s.message for _, s in world.sent if isinstance(s.message, SignPackage))
    scope = world.committee.keys[Index(1)].scope
    batch = world.up[Index(1)].coordinator.stocks.pools[scope][seat].ready[0].envelope
    return seat, (batch, WIRE.encode_package(package), answer)


@dataclass
class NonceLog:
    """Every use of a nonce pair in a run, by its public commitment."""

    uses: list[tuple[bytes, bytes, tuple[bytes, ...]]] = field(default_factory=list)

    def check(self) -> None:
        """No pair was ever used twice, not even for the same message."""
        commitments = [commitment for commitment, _, _ in self.uses]
        assert len(commitments) == len(set(commitments)), "a pair of nonces was used twice"


def watch_nonces(monkeypatch: pytest.MonkeyPatch) -> NonceLog:
    """Record every signature share that any seat computes."""
    log = NonceLog()

    def watched(key: Any, nonces: Any, commitments: Any, message: bytes, context: Any = None) -> Any:
        listed = tuple(c.to_bytes() for c in commitments.values())
        log.uses.append((nonces.commitment.to_bytes(), message, listed))
        return sign_share(key, nonces, commitments, message, context)

    monkeypatch.setattr(participant, "sign_share", watched)
    monkeypatch.setattr(collect, "sign_share", watched)
    return log
