"""Rosters, identities and doors to bytes for tests of ceremonies, all from labels: the same label, the same bytes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from hashlib import shake_256
from itertools import combinations

from common import ed25519, trust
from common.ids import BootId, Epoch, Index, Instant, KeyId, OpenId, RecordId, RequestId
from common.secret import Secret
from common.wire import codec
from common.wire.envelope import Signer, edge_key_id, seal, sign_request, sign_roster
from common.wire.messages import (
    Announce,
    CeremonyKind,
    CeremonyRecord,
    Envelope,
    Mode,
    MsgToSign,
    Open,
    OpenReason,
    Role,
    Roster,
    RosterKey,
    Seat,
    SignItem,
)
from signer_service.frost import proofs
from signer_service.frost.group import Element, base_mul, random_scalar
from signer_service.frost.keys import KeyPackage, PublicKeyPackage
from signer_service.protocol import transcript
from signer_service.protocol.ceremony_state import CeremonyTiming, HeldShare
from signer_service.protocol.log_state import LogState
from signer_service.protocol.log_wire import LogTrust, LogWire
from signer_service.protocol.machine import Entropy
from signer_service.protocol.view import EpochKeys
from tests.frost.keymaker import Group, sign

TOPIC = "signer.v1.ceremony"
KEY = KeyId("default")

QUICK = CeremonyTiming(
    patience_ms=1_000,
    patience_max_ms=20_000,
    absent_holder_ms=3_000,
    heal_delay_ms=5_000,
    refresh_interval_ms=10**9,
    min_interval_ms=500,
    drain_window_ms=400,
    resend_ms=700,
    takeover_ms=300,
)


def seed(label: str, size: int = 32) -> bytes:
    return shake_256(label.encode()).digest(size)


@cache
def private(label: str) -> Secret[bytes]:
    return Secret(seed(label))


@cache
def public(label: str) -> bytes:
    return ed25519.public_key(private(label))


def boot(label: str) -> BootId:
    text = seed("boot " + label, 16).hex()
    return BootId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")


@dataclass(frozen=True)
class House:
    """One system: an operator, and who sits where."""

    operator: str = "operator"

    @property
    def trust(self) -> LogTrust:
        key = public(self.operator)
        wire = LogWire(
            decode_envelope=lambda raw: codec.decode(raw, Envelope),
            decode_record=codec.decode_ceremony,
            encode_record=codec.encode,
            decode_request=lambda raw: codec.decode(raw, MsgToSign),
            read_roster=lambda raw: trust.read_roster(raw, key),
            newer=trust.newer,
            check_key_record=lambda raw: trust.check_key_record(raw, key, topic=TOPIC, pinned=None, previous=None),
        )
        return LogTrust(TOPIC, wire)

    def roster(
        self,
        threshold: int,
        seats: Iterable[int],
        version: int = 1,
        keys: Iterable[str] = (KEY,),
        names: Mapping[int, str] | None = None,
        pins: Mapping[str, bytes] | None = None,
        **changes: object,
    ) -> bytes:
        """A signed roster. ``names`` gives seats another identity than their usual one."""
        who = {index: (names or {}).get(index, f"seat {index}") for index in seats}
        roster = Roster(
            version=version,
            protocol_version=1,
            log_generation=1,
            seats=tuple(Seat(Index(index), public(who[index])) for index in sorted(who)),
            keys=tuple(RosterKey(KeyId(key), threshold, (pins or {}).get(key, b"")) for key in keys),
            edge_keys=(public("edge"),),
            checkpoints=(),
        )
        return sign_roster(replace(roster, **changes), private(self.operator))  # type: ignore[arg-type]


def say(
    seat: int, record: CeremonyRecord, log: LogState, name: str | None = None, topic: str = TOPIC, life: str = ""
) -> bytes:
    """``record`` in the envelope of a seat that has seen the log as far as ``log``."""
    name = name or f"seat {seat}"
    signer = Signer(Role.SIGNER, seat, boot(f"{name} {life}"), private(name))
    seen_hash = log.running_hash if log.offset >= 0 else b""
    return seal(signer, topic, codec.encode(record), log.offset, seen_hash)


def sign_with(keys: Mapping[int, EpochKeys], subset: Iterable[int], message: bytes, label: str = "") -> bytes:
    """A group signature by exactly the seats of ``subset``, each with its own share."""
    chosen = sorted(subset)
    packages: dict[Index, KeyPackage] = {}
    for seat in chosen:
        package = keys[seat].share
        assert package is not None, f"seat {seat} holds no share"
        packages[Index(seat)] = package
    group: PublicKeyPackage = keys[chosen[0]].public
    return sign(Group(group, packages), chosen, message, label)


def every_subset_signs(keys: Mapping[int, EpochKeys], message: bytes = b"every subset") -> None:
    """Each t of the holders make a signature that plain Ed25519 takes."""
    some = next(iter(keys.values()))
    for subset in combinations(sorted(keys), some.threshold):
        signature = sign_with(keys, subset, message, f"{subset}")
        assert ed25519.verify(some.public.group_key, message, signature), subset


def refresh_request(key_id: KeyId, now: int, edge: str = "edge") -> bytes:
    """What an API pod sends to have a key refreshed, signed with its edge key."""
    label = boot(f"refresh {key_id} {now}")
    item = SignItem(RequestId(label), key_id, Mode.REFRESH, b"", "anonymous", Instant(now), Instant(now + 5_000))
    request = MsgToSign(RecordId(label), (item,), "signer.v1.resp0", label, edge_key_id(public(edge)))
    return sign_request(request, private(edge))


def announce(open_id: OpenId, seat: Index, entropy: Entropy, held: HeldShare | None = None) -> Announce:
    """An Announce by whoever has a seat's identity; with ``held``, its share too."""
    secret = Secret(random_scalar(entropy(64)))
    point = base_mul(secret.expose())
    proof = proofs.prove(secret, point, transcript.transport_proof(open_id, seat), entropy(64))
    share_proof = b""
    if held is not None:
        context = transcript.held_share_proof(open_id, seat, point)
        share_proof = proofs.prove(held.share, Element(held.verification_share), context, entropy(64))
    return Announce(open_id, bytes(point), proof, share_proof)


def reshare_open(epoch: int, attempt: int, version: int) -> Open:
    """An Open that nobody sees a reason for."""
    nonce = seed(f"open {epoch} {attempt}")
    return Open(KEY, CeremonyKind.RESHARE, Epoch(epoch), attempt, version, OpenReason.SCHEDULE, nonce, b"")
