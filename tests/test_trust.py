"""What anybody believes about a roster and a key record, and the forgeries that nobody may believe.

The group key is a plain Ed25519 key here: how a signature came about is not trust's business, only that it verifies.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from common import ed25519
from common.errors import BadInput
from common.ids import BootId, Epoch, Index, KeyId, Offset, OpenId
from common.quorum import commit_quorum
from common.secret import Secret
from common.trust import check_key_record, newer, read_roster
from common.wire import codec, transcript
from common.wire.envelope import Signer, seal, sign_roster
from common.wire.messages import Erased, KeyRecord, Ready, Role, Roster, RosterKey, Seat, VerificationShare

TOPIC = "demo.signer.v1.ceremony"
BOOT = BootId("6f9619ff-8b86-4011-b42d-00c04fc964ff")
KEY = KeyId("default")
SMALL_ORDER = bytes.fromhex("0100000000000000000000000000000000000000000000000000000000000000")


def pair(number: int) -> tuple[Secret[bytes], bytes]:
    return ed25519.generate_keypair(number.to_bytes(32, "big"))


OPERATOR, OPERATOR_PUBLIC = pair(1000)
STRANGER, STRANGER_PUBLIC = pair(1001)
GROUP, GROUP_PUBLIC = pair(1002)
OTHER_GROUP, OTHER_GROUP_PUBLIC = pair(1003)
EDGE, EDGE_PUBLIC = pair(1004)


def a_roster(size: int = 3, threshold: int = 2, **changes: Any) -> Roster:
    roster = Roster(
        version=1,
        protocol_version=1,
        log_generation=0,
        seats=tuple(Seat(Index(i), pair(i)[1]) for i in range(1, size + 1)),
        keys=(RosterKey(KEY, threshold, b""),),
        edge_keys=(EDGE_PUBLIC,),
        checkpoints=(),
    )
    return replace(roster, **changes)


def roster_refused(roster: Roster, code: str, private: Secret[bytes] = OPERATOR) -> None:
    with pytest.raises(BadInput) as caught:
        read_roster(sign_roster(roster, private), OPERATOR_PUBLIC)
    assert caught.value.code == code


# --- rosters ----------------------------------------------------------------------------------------------------------


def test_the_operators_roster_is_believed() -> None:
    raw = sign_roster(a_roster(), OPERATOR)

    assert read_roster(raw, OPERATOR_PUBLIC) == replace(a_roster(), signature=raw[-64:])


def test_another_operators_roster_is_not() -> None:
    roster_refused(a_roster(), "roster-signature", STRANGER)


def test_a_roster_with_one_byte_changed_is_not() -> None:
    raw = sign_roster(a_roster(), OPERATOR)
    raw = raw.replace(SEATS[0].identity_key, STRANGER_PUBLIC)
    with pytest.raises(BadInput, match="roster-signature"):
        read_roster(raw, OPERATOR_PUBLIC)


SEATS = a_roster().seats


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"seats": (SEATS[1], SEATS[0], SEATS[2])}, "roster-seats"),
        ({"seats": (SEATS[0], SEATS[0], SEATS[2])}, "roster-seats"),
        ({"keys": (RosterKey(KEY, 1, b""),)}, "roster-threshold"),
        ({"keys": (RosterKey(KEY, 4, b""),)}, "roster-threshold"),
        ({"keys": (RosterKey(KEY, 2, b""), RosterKey(KEY, 3, b""))}, "roster-keys"),
        ({"keys": (RosterKey(KEY, 2, SMALL_ORDER),)}, "roster-keys"),
        ({"seats": (*SEATS[:2], Seat(Index(3), SEATS[0].identity_key))}, "roster-identity"),
        ({"seats": (*SEATS[:2], Seat(Index(3), SMALL_ORDER))}, "roster-identity"),
        ({"seats": (*SEATS[:2], Seat(Index(3), EDGE_PUBLIC))}, "roster-identity"),
        ({"edge_keys": (EDGE_PUBLIC, EDGE_PUBLIC)}, "roster-identity"),
        ({"edge_keys": (OPERATOR_PUBLIC,)}, "roster-identity"),
        ({"checkpoints": (b"no key record",)}, "roster-checkpoint"),
    ],
)
def test_a_roster_that_makes_no_sense_is_refused_although_it_is_signed(changes: dict[str, Any], code: str) -> None:
    roster_refused(a_roster(**changes), code)


def test_a_checkpoint_is_of_a_key_of_the_roster() -> None:
    record = codec.encode(Committee().record())

    assert read_roster(sign_roster(a_roster(checkpoints=(record,)), OPERATOR), OPERATOR_PUBLIC).checkpoints == (record,)
    roster_refused(a_roster(checkpoints=(record,), keys=(RosterKey(KeyId("other"), 2, b""),)), "roster-checkpoint")


def test_the_higher_version_counts() -> None:
    old, new = a_roster(), a_roster(version=2, seats=SEATS[:2])

    assert newer(old, new) is new
    assert newer(new, old) is new
    assert newer(old, a_roster()) is old


def test_two_rosters_of_one_version_are_an_alarm() -> None:
    with pytest.raises(BadInput, match="roster-conflict"):
        newer(a_roster(), a_roster(edge_keys=()))


def test_a_pinned_public_key_may_be_added_but_not_changed() -> None:
    bare = a_roster()
    pinned = a_roster(version=2, keys=(RosterKey(KEY, 2, GROUP_PUBLIC),))
    assert newer(bare, pinned) is pinned

    for public in (OTHER_GROUP_PUBLIC, b""):
        with pytest.raises(BadInput, match="roster-pin"):
            newer(pinned, a_roster(version=3, keys=(RosterKey(KEY, 2, public),)))


def test_a_newer_roster_does_not_go_back_to_an_older_log() -> None:
    with pytest.raises(BadInput, match="roster-generation"):
        newer(a_roster(log_generation=1), a_roster(version=2))
    with pytest.raises(BadInput, match="roster-generation"):
        newer(a_roster(version=3), a_roster(version=2, log_generation=1))
    old = a_roster(version=3, log_generation=1)
    assert newer(old, a_roster(version=2)) is old


# --- key records ------------------------------------------------------------------------------------------------------


@dataclass
class Committee:
    """Makes key records: right ones, and wrong ones by changing what it is asked to change."""

    size: int = 3
    threshold: int = 2
    epoch: int = 1
    open_id: OpenId = OpenId(bytes(64))
    group: tuple[Secret[bytes], bytes] = (GROUP, GROUP_PUBLIC)
    operator: Secret[bytes] = OPERATOR
    topic: str = TOPIC
    roster_changes: dict[str, Any] = field(default_factory=dict)
    record_changes: dict[str, Any] = field(default_factory=dict)
    ready_changes: dict[int, dict[str, Any]] = field(default_factory=dict)
    attesting: tuple[int, ...] | None = None
    sealed_by: dict[int, Signer] = field(default_factory=dict)
    payloads: dict[int, bytes] = field(default_factory=dict)

    def record(self) -> KeyRecord:
        shares = tuple(VerificationShare(Index(i), pair(100 * self.epoch + i)[1]) for i in range(1, self.size + 1))
        bare = KeyRecord(
            key_id=KEY,
            epoch=Epoch(self.epoch),
            open_id=self.open_id,
            threshold=self.threshold,
            public_key=self.group[1],
            verification_shares=shares,
            roster=sign_roster(a_roster(self.size, self.threshold, **self.roster_changes), self.operator),
            log_offset=Offset(40),
            log_hash=bytes(64),
            attestations=(),
        )
        bare = replace(bare, **self.record_changes)
        seats = tuple(range(1, self.size + 1)) if self.attesting is None else self.attesting
        bare = replace(bare, attestations=tuple(self._attestation(bare, seat) for seat in seats))
        return replace(bare, signature=ed25519.sign(self.group[0], transcript.key_record_message(bare)))

    def _attestation(self, record: KeyRecord, seat: int) -> bytes:
        shares = {share.index: share.element for share in record.verification_shares}
        ready = Ready(
            open_id=record.open_id,
            key_id=record.key_id,
            epoch=record.epoch,
            transcript_hash=bytes(64),
            qualified=tuple(Index(i) for i in range(1, self.size + 1)),
            public_key=record.public_key,
            verification_hash=transcript.verification_hash(shares),
            share_proof=bytes(64),
        )
        ready = replace(ready, **self.ready_changes.get(seat, {}))
        signer = self.sealed_by.get(seat, Signer(Role.SIGNER, seat, BOOT, pair(seat)[0]))
        return seal(signer, self.topic, self.payloads.get(seat, codec.encode(ready)), Offset(30), bytes(64))


def believed(record: KeyRecord | bytes, pinned: bytes | None = None, previous: KeyRecord | None = None) -> KeyRecord:
    return check_key_record(record, OPERATOR_PUBLIC, topic=TOPIC, pinned=pinned, previous=previous)


def refused(
    record: KeyRecord | bytes, code: str, pinned: bytes | None = None, previous: KeyRecord | None = None
) -> None:
    with pytest.raises(BadInput) as caught:
        believed(record, pinned, previous)
    assert caught.value.code == code


@pytest.mark.parametrize(("size", "threshold"), [(3, 2), (5, 3), (2, 2)])
def test_a_record_of_the_whole_committee_is_believed(size: int, threshold: int) -> None:
    record = Committee(size, threshold).record()

    assert believed(record) == record
    assert believed(codec.encode(record), pinned=GROUP_PUBLIC, previous=record) == record


@pytest.mark.parametrize(("size", "threshold"), [(3, 2), (5, 3), (7, 5)])
def test_after_epoch_1_q_seats_are_enough_and_one_less_is_not(size: int, threshold: int) -> None:
    q = commit_quorum(threshold, size)
    seats = tuple(range(1, size + 1))

    believed(Committee(size, threshold, epoch=2, attesting=seats[-q:]).record())
    refused(Committee(size, threshold, epoch=2, attesting=seats[: q - 1]).record(), "too-few-attestations")


def test_epoch_1_needs_every_seat() -> None:
    refused(Committee(attesting=(1, 2)).record(), "too-few-attestations")


def test_a_seat_counts_once() -> None:
    refused(Committee(attesting=(1, 2, 2)).record(), "attestation-duplicate")


def test_a_record_under_another_operators_roster_is_refused() -> None:
    refused(Committee(operator=STRANGER).record(), "roster-signature")


def test_a_record_is_of_a_key_of_its_roster() -> None:
    refused(Committee(roster_changes={"keys": (RosterKey(KeyId("other"), 2, b""),)}).record(), "unknown-key")


def test_the_threshold_is_the_rosters() -> None:
    refused(Committee(record_changes={"threshold": 3}).record(), "threshold")


def test_a_group_key_that_somebody_else_made_is_refused_by_each_pin() -> None:
    genuine = Committee().record()
    other = Committee(group=(OTHER_GROUP, OTHER_GROUP_PUBLIC), epoch=2)

    refused(other.record(), "public-key-pinned", pinned=GROUP_PUBLIC)
    refused(other.record(), "public-key-changed", previous=genuine)
    pinning = {"keys": (RosterKey(KEY, 2, GROUP_PUBLIC),)}
    refused(replace(other, roster_changes=pinning).record(), "public-key-roster")
    refused(Committee(record_changes={"public_key": SMALL_ORDER}).record(), "public-key")


def test_an_older_epoch_is_a_replay() -> None:
    refused(Committee(epoch=1).record(), "epoch-down", previous=Committee(epoch=2).record())


def test_another_record_of_the_same_epoch_is_a_fork() -> None:
    genuine = Committee(epoch=2).record()
    fork = Committee(epoch=2, open_id=OpenId(bytes([1]) * 64)).record()
    believed(fork)

    refused(fork, "epoch-conflict", previous=genuine)


def test_the_same_epoch_attested_by_other_seats_is_no_fork() -> None:
    first = Committee(epoch=2, attesting=(1, 2)).record()
    second = Committee(epoch=2, attesting=(2, 3)).record()

    assert believed(second, previous=first) == second


def test_a_record_of_another_key_does_not_follow() -> None:
    previous = replace(Committee().record(), key_id=KeyId("other"))

    refused(Committee().record(), "unknown-key", previous=previous)


def test_verification_shares_are_points_of_seats_of_the_roster_ascending_and_at_least_t() -> None:
    one, two, three = Committee().record().verification_shares
    for shares in (
        (two, one, three),
        (one, one, three),
        (one,),
        (one, two, VerificationShare(Index(4), three.element)),
        (one, two, VerificationShare(Index(3), SMALL_ORDER)),
        (one, two, VerificationShare(Index(3), b"\xff" * 32)),
    ):
        refused(Committee(record_changes={"verification_shares": shares}).record(), "verification-shares")


def test_a_seat_without_a_verification_share_cannot_attest() -> None:
    shares = Committee(epoch=2).record().verification_shares[:2]
    short = Committee(epoch=2, record_changes={"verification_shares": shares}, attesting=(1, 2))
    believed(short.record())

    refused(replace(short, attesting=(1, 3)).record(), "attestation-holder")


def test_verification_shares_that_the_seats_did_not_attest_are_refused() -> None:
    record = Committee().record()
    swapped = (*record.verification_shares[:2], VerificationShare(Index(3), pair(77)[1]))
    bare = replace(record, verification_shares=swapped)

    refused(replace(bare, signature=ed25519.sign(GROUP, transcript.key_record_message(bare))), "attestation-mismatch")


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": Epoch(2)},
        {"key_id": KeyId("other")},
        {"open_id": OpenId(bytes([9]) * 64)},
        {"public_key": OTHER_GROUP_PUBLIC},
        {"verification_hash": bytes([9]) * 64},
        {"transcript_hash": bytes([9]) * 64},
        {"qualified": (Index(1), Index(2))},
    ],
)
def test_a_seat_that_attests_something_else_does_not_count(change: dict[str, Any]) -> None:
    refused(Committee(ready_changes={3: change}).record(), "attestation-mismatch")


def test_the_proof_of_each_seats_own_share_may_differ() -> None:
    believed(Committee(ready_changes={3: {"share_proof": bytes([9]) * 64}}).record())


def test_an_attestation_said_on_another_topic_is_void() -> None:
    refused(Committee(topic="signer.v1.ceremony").record(), "attestation")


def test_an_attestation_has_to_be_the_seats_own_ready() -> None:
    not_its_key = Signer(Role.SIGNER, 3, BOOT, pair(2)[0])
    no_seat = Signer(Role.SIGNER, 4, BOOT, pair(4)[0])
    a_pod = Signer(Role.API, 3, BOOT, EDGE)
    as_a_pod = Signer(Role.API, 3, BOOT, pair(3)[0])
    for liar in (not_its_key, no_seat, a_pod, as_a_pod):
        refused(Committee(sealed_by={3: liar}).record(), "attestation")
    refused(Committee(payloads={3: codec.encode(Erased(KEY, Epoch(1)))}).record(), "attestation")


def test_attestations_of_a_smaller_roster_do_not_serve_a_larger_one() -> None:
    record = Committee(size=3).record()
    larger = sign_roster(a_roster(5, 2), OPERATOR)
    bare = replace(record, roster=larger)

    refused(replace(bare, signature=ed25519.sign(GROUP, transcript.key_record_message(bare))), "too-few-attestations")


@pytest.mark.parametrize(
    "change",
    [{"log_offset": Offset(41)}, {"log_hash": bytes([1]) * 64}, {"signature": bytes(64)}],
)
def test_the_group_key_has_to_sign_all_of_it(change: dict[str, Any]) -> None:
    refused(replace(Committee().record(), **change), "group-signature")


def test_bytes_that_are_no_key_record_are_refused_as_such() -> None:
    refused(codec.encode(Erased(KEY, Epoch(1))), "unexpected-record")
    refused(b"garbage", "not-single-object")
