"""What whoever holds one seat's keys, and writes what he likes, does to the machines of the others.

The bytes are sealed in that seat's envelope, so that they get past the signature: what a stranger can write ends there,
and is what ``decoders`` is about. Inputs begin with what honest seats said at that very place, so most of what is made
of them is nearly right. The first bytes of an input choose the place and who speaks.
"""

import random  # noqa: TID251 - a test's dice, from a seed that reproduces the run
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from common.errors import BadInput
from common.ids import BootId, Index, Instant, Offset
from common.wire import codec
from common.wire.envelope import Signer, seal, sign_request
from common.wire.messages import Envelope, MsgToSign, NonceRequest, NonceScope, NonceWant, Role, SignPackage
from signer_service.protocol import ceremony, participant
from signer_service.protocol.ceremony_disk import durable, restore
from signer_service.protocol.ceremony_state import CeremonyState, LogRecord
from signer_service.protocol.fold import fold
from signer_service.protocol.log_state import LogState
from signer_service.protocol.machine import Origin, PeerArrived, RequestArrived, Sender, ToAudit, ToPeer
from signer_service.protocol.snapshot import pack, unpack
from tests import playbook
from tests.fuzz.changes import change_values, kind_of
from tests.fuzz.running import Decoder
from tests.protocol import signing_world, test_participant
from tests.protocol.signing_world import WIRE, Asked
from tests.world import World

SEATS: Final = 3
INPUTS_PER_WORLD: Final = 64
_RAW: Final = 0x80
HOUSE: Final = playbook.House()


# --- the ceremony log -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """The log before one of its records, seat 1 there, and what was said next."""

    log: LogState
    seat: CeremonyState
    now: int
    speaker: int
    said: bytes


@cache
def places() -> tuple[Place, ...]:
    """A key generation and a refresh, place by place."""
    world = World(2, SEATS)
    seen: dict[int, tuple[CeremonyState, int]] = {}
    world.watch = lambda seat, state: (
        seen.update({state.log.offset: (state, world.now)}) if seat.index == 1 else None  # the last one at each place
    )
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(1_500)
    world.ask_refresh(1)
    world.run(lambda: world.agrees(2))
    found, log = [], LogState()
    for at, raw in enumerate(world.log):
        if log.offset in seen:
            spoken = codec.decode(raw, Envelope)
            found.append(Place(log, *seen[log.offset], spoken.index, spoken.payload))
        log = fold(log, Offset(at), raw, HOUSE.trust).state
    return tuple(found)


def _sealed(place: Place, who: int, payload: bytes) -> bytes:
    name = f"seat {who}"
    seen_hash = place.log.running_hash if place.log.offset >= 0 else b""
    signer = Signer(Role.SIGNER, who, playbook.boot(f"{name} 1"), playbook.private(name))
    return seal(signer, playbook.TOPIC, payload, place.log.offset, seen_hash)


def hear_on_the_log(data: bytes) -> None:
    """Fold the record, and give it to a seat: both go on, and what they know can be written down and read again."""
    if len(data) < 3:
        return
    place = places()[data[0] % len(places())]
    who = 1 + (data[1] & 0x7F) % (SEATS + 1)  # one of them is nobody
    raw = data[2:] if data[1] & _RAW else _sealed(place, who, data[2:])
    at = Offset(place.log.offset + 1)
    after = fold(place.log, at, raw, HOUSE.trust).state
    assert after.offset == at, "the fold stands still"
    assert unpack(LogState, pack(LogState, after)) == after, "the fold cannot be written down"
    entropy = random.Random(1).randbytes
    moved = ceremony.step(place.seat, LogRecord(at, raw, Instant(place.now)), Instant(place.now), entropy)
    assert moved.state.log.offset == at, "a seat stands still"
    for each in moved.send:
        if isinstance(each, ToAudit):
            codec.encode(each.event)
    restore(durable(moved.state), Index(1), HOUSE.trust, playbook.QUICK, generation=1)


def log_seeds() -> list[bytes]:
    """Every record where it was said."""
    return [bytes([k, place.speaker - 1]) + place.said for k, place in enumerate(places())]


def vary_log(data: bytes, dice: random.Random) -> bytes:
    """The same record with other values; said somewhere else, or by somebody else, now and then."""
    place, who, payload = data[0], data[1], data[2:]
    if dice.random() < 0.2:
        place = dice.randrange(256)
    if dice.random() < 0.2:
        who = dice.randrange(SEATS + 1)
    return bytes([place, who]) + _vary_record(payload, dice)


def _vary_record(payload: bytes, dice: random.Random) -> bytes:
    return payload if kind_of(payload) is None else change_values(payload, dice)


# --- signing: a participant -------------------------------------------------------------------------------------------


def _scene() -> tuple[test_participant.Scene, NonceScope]:
    """Seat 2 with its nonces, the same each time."""
    test_participant.DICE.seed(7)
    scene = test_participant.Scene()
    return scene, scene.scope


@cache
def participant_seeds() -> tuple[bytes, ...]:
    """What a coordinator may ask for: nonces; then a share, with nonces that the scene has given out."""
    scene, scope = _scene()
    raw = scene.raw(scene.item(b"one"), scene.item(b"two"))
    grant = scene.nonces(4)
    package = SignPackage((scene.group(raw, scene.session(grant, 0), scene.session(grant, 1, 1)),))
    (want,) = (NonceRequest((NonceWant(scope, 4),)),)
    assert scene.ask(*package.groups), "a share is given for it"
    return b"\x00" + codec.encode(want), b"\x00" + codec.encode(package)


def ask_a_participant(data: bytes) -> None:
    """Bring the record to a fresh seat 2 that has given nonces to seat 1."""
    if not data:
        return
    message = codec.decode_peer(data[1:])
    scene, _ = _scene()
    scene.raw(scene.item(b"one"), scene.item(b"two"))
    scene.nonces(4)
    sender = (scene.me, Sender(Index(3), scene.boots[Index(3)]), Sender(Index(9), BootId("x")))[data[0] % 3]
    out = participant.step(
        scene.state, PeerArrived(sender, message, b""), Instant(scene.now), test_participant.DICE.entropy
    )
    for send in out.send:
        if isinstance(send, ToPeer):
            codec.encode(send.message)


def vary_peer(data: bytes, dice: random.Random) -> bytes:
    """The same record with other values."""
    return data[:1] + _vary_record(data[1:], dice)


# --- signing: a coordinator -------------------------------------------------------------------------------------------


class Table:
    """A committee in the middle of signing, made anew after so many inputs."""

    def __init__(self) -> None:
        self.left = 0

    def fresh(self) -> None:
        """Three requests under way at seat 1, nothing answered yet."""
        self.left = INPUTS_PER_WORLD
        self.world = signing_world.World(SEATS, 2)
        self.world.run(300)
        self.world.ask_messages(1, b"one", b"two", b"three")

    def hear(self, data: bytes) -> None:
        """A record from another seat, or a request: nothing is raised, and in the end each request has one outcome."""
        if not data:
            return
        kind = kind_of(data[1:])
        message = codec.decode(data[1:], MsgToSign) if kind is MsgToSign else codec.decode_peer(data[1:])
        if self.left == 0:
            self.fresh()
        self.left -= 1
        world = self.world
        process = world.up[Index(1)]
        try:
            if isinstance(message, MsgToSign):
                raw = sign_request(message, world.pod.private) if data[0] & 1 else data[1:]
                request = WIRE.decode_request(raw)
                origin = Origin(0, 10_000 - self.left)
                world.asked.setdefault(request.record_id, Asked(request, raw, Index(1), origin, world.now, done=True))
                world._feed(process, RequestArrived(origin, request, raw))
            else:
                who = Index(2 + data[0] % SEATS)
                boot = world.up[who].boot_id if who in world.up else BootId("x")
                world._feed(process, PeerArrived(Sender(who, boot), message, b""))
            world.run(1)
            if self.left == 0:
                world.run_until_answered()
        except BadInput:
            raise
        except Exception:
            self.left = 0  # what it left behind is no state
            raise


@cache
def coordinator_seeds() -> tuple[bytes, ...]:
    """What seats 2 and 3 say to seat 1 in that very world, and the request."""
    world = signing_world.World(SEATS, 2)
    world.run(300)
    asked = world.ask_messages(1, b"one", b"two", b"three")
    world.run_until_answered()
    heard = [
        bytes([seat - 2]) + codec.encode(sent.message)
        for seat, sent in world.sent
        if seat != 1 and sent.seat == 1 and not isinstance(sent.message, NonceRequest | SignPackage)
    ]
    assert heard, "somebody answers seat 1"
    return (*heard[:24], b"\x01" + asked.raw)


TABLE: Final = Table()


def machines() -> Sequence[Decoder]:
    """All of them."""
    return (
        Decoder("ceremony-log", hear_on_the_log, (), log_seeds, vary=vary_log, rounds=60),
        Decoder("participant", ask_a_participant, (BadInput,), participant_seeds, vary=vary_peer, rounds=100),
        Decoder("coordinator", TABLE.hear, (BadInput,), coordinator_seeds, vary=vary_peer, rounds=INPUTS_PER_WORLD),
    )
