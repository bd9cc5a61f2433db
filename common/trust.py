"""What anybody believes about a roster or a key record: signers, API pods and auditors alike, by the same lines.

Everything hangs on one public key, the operator's. A broker, and fewer than t replicas together with it, must not be
able to make anybody believe in another committee or another group key. Pure: no IO, no clock.

Refusals are ``BadInput``; besides those of ``codec.decode``:

========================  =============================================================================================
roster-signature          not signed by the operator key
roster-seats              indices not ascending, or one stands twice
roster-keys               a key id stands twice, or a public key is not a point of the prime-order group
roster-threshold          t below 2 or above n
roster-identity           identity, edge and operator keys are not all valid and different
roster-checkpoint         not a key record of one of its keys
roster-conflict           two rosters of one version: the operator key signed twice, or is not the operator's alone
roster-pin                a newer roster changes or drops a key that an older one pinned
roster-generation         a newer roster names an older ceremony log, or one that is no newer a newer log
unknown-key               the key is not in the record's own roster
threshold                 not the roster's threshold
public-key-roster         not the public key that the roster pins
public-key-pinned         not the public key that the settings pin
public-key-changed        not the public key of the record before
public-key                not a point of the prime-order group
epoch-down                an older epoch than the record before: replayed
epoch-conflict            another record of the same epoch: a fork
verification-shares       not ascending, not seats of the roster, not points, or fewer than t
attestation               one is not a Ready of a seat in its envelope on the ceremony log
attestation-duplicate     a seat attests twice
attestation-mismatch      a Ready of another key, epoch, attempt, public key or set of shares, or unlike the others
attestation-holder        a seat attests that has no verification share
too-few-attestations      fewer than q seats (epoch 1: than all) attest
group-signature           the group key did not sign the record
========================  =============================================================================================

One thing is left to the signers, who have the group arithmetic: that the verification shares interpolate to the public
key. Each Ready attests it, and q of them agree; wrong shares could spoil blame, never a signature's validity.
"""

from dataclasses import replace
from itertools import pairwise

from common import ed25519
from common.errors import BadInput
from common.ids import Index
from common.quorum import commit_quorum
from common.wire import codec, transcript
from common.wire.envelope import Opened, open_envelope
from common.wire.messages import NO_SIGNATURE, KeyRecord, Ready, Role, Roster, RosterKey
from common.wire.signatures import ROSTER_DOMAIN, is_signed_by


def read_roster(raw: bytes, operator_key: bytes) -> Roster:
    """Return the roster in ``raw`` if ``operator_key`` (32 bytes) signed it and it makes sense.

    Raises:
        BadInput: the ``roster-`` codes above but for those of ``newer``.
    """
    roster = codec.decode(raw, Roster)
    # The signature first: what the operator did not sign is not worth a word about what is in it.
    if not is_signed_by(ROSTER_DOMAIN, raw, operator_key):
        raise BadInput("roster-signature", "the roster is not signed by this system's operator key", "signature")
    if not all(a.index < b.index for a, b in pairwise(roster.seats)):
        raise BadInput("roster-seats", "seat indices must ascend, each once", "seats.index")
    _check_roster_keys(roster)
    identities = [*(seat.identity_key for seat in roster.seats), *roster.edge_keys]
    # One key in two roles would let a seat speak as an API pod, or as another seat.
    if len({*identities, operator_key}) != len(identities) + 1 or not all(map(ed25519.is_valid_point, identities)):
        raise BadInput("roster-identity", "identity, edge and operator keys must be valid, and all different")
    return roster


def _check_roster_keys(roster: Roster) -> None:
    names = {key.key_id for key in roster.keys}
    if len(names) != len(roster.keys):
        raise BadInput("roster-keys", "a key id stands twice", "keys.key_id")
    for key in roster.keys:
        if not 2 <= key.threshold <= len(roster.seats):
            raise BadInput(
                "roster-threshold",
                f"key {key.key_id}: threshold {key.threshold} is not between 2 and the {len(roster.seats)} seats",
                "keys.threshold",
            )
        if key.public_key and not ed25519.is_valid_point(key.public_key):
            raise BadInput("roster-keys", f"key {key.key_id}: the public key is not valid", "keys.public_key")
    for checkpoint in roster.checkpoints:
        try:
            record = codec.decode(checkpoint, KeyRecord)
        except BadInput as bad:
            raise BadInput("roster-checkpoint", f"a checkpoint is no key record: {bad}", "checkpoints") from None
        if record.key_id not in names:
            raise BadInput("roster-checkpoint", f"a checkpoint is of key {record.key_id}, which is not in the roster")


def newer(old: Roster, new: Roster) -> Roster:
    """Return which of two rosters (each from ``read_roster``) counts: the one of the higher version.

    Raises:
        BadInput: ``roster-conflict``, ``roster-pin``, ``roster-generation``: an alarm, nothing to go on with.
    """
    if new.version == old.version and new != old:
        raise BadInput("roster-conflict", f"two different rosters of version {new.version} are signed", "version")
    if new.version <= old.version and new.log_generation > old.log_generation:
        raise BadInput(
            "roster-generation", f"version {new.version} of a newer log is not above {old.version}", "version"
        )
    if new.version <= old.version:
        return old
    now = {key.key_id: key.public_key for key in new.keys}
    for key in old.keys:
        if key.public_key and now.get(key.key_id, key.public_key) != key.public_key:
            raise BadInput("roster-pin", f"version {new.version} changes the public key of {key.key_id}", "keys")
    if new.log_generation < old.log_generation:
        raise BadInput("roster-generation", f"version {new.version} goes back to an older log", "log_generation")
    return new


def check_key_record(
    record: bytes | KeyRecord,
    operator_key: bytes,
    *,
    topic: str,
    pinned: bytes | None,
    previous: KeyRecord | None,
) -> KeyRecord:
    """Return ``record`` if it can be believed by somebody who has the operator's public key and nothing else.

    Args:
        record: As it came, or decoded.
        operator_key: 32 bytes.
        topic: Full name of the ceremony topic, prefix included: attestations count only as said there.
        pinned: The public key (32 bytes) that the settings demand of this key, if they do.
        previous: The record of the same key that was believed before, if there was one.

    Raises:
        BadInput: one of the codes above.
    """
    if not isinstance(record, KeyRecord):
        record = codec.decode(record, KeyRecord)
    roster = read_roster(record.roster, operator_key)
    key = next((key for key in roster.keys if key.key_id == record.key_id), None)
    if key is None:
        raise BadInput("unknown-key", f"key {record.key_id} is not in the record's roster", "key_id")
    if record.threshold != key.threshold:
        raise BadInput("threshold", f"threshold {record.threshold}, the roster says {key.threshold}", "threshold")
    _check_public_key(record, key, pinned)
    if previous is not None:
        _check_succession(previous, record)
    _check_verification_shares(record, roster)
    _check_attestations(record, roster, topic)
    if not ed25519.verify(record.public_key, transcript.key_record_message(record), record.signature):
        raise BadInput("group-signature", "the group key did not sign this record", "signature")
    return record


def _check_public_key(record: KeyRecord, key: RosterKey, pinned: bytes | None) -> None:
    if not ed25519.is_valid_point(record.public_key):
        raise BadInput("public-key", "the group key is not a point of the prime-order group", "public_key")
    if key.public_key and record.public_key != key.public_key:
        raise BadInput("public-key-roster", "not the public key that the roster pins", "public_key")
    if pinned is not None and record.public_key != pinned:
        raise BadInput("public-key-pinned", "not the public key that the settings pin", "public_key")


def _check_succession(previous: KeyRecord, record: KeyRecord) -> None:
    if record.key_id != previous.key_id:
        raise BadInput("unknown-key", f"a record of {record.key_id} does not follow one of {previous.key_id}", "key_id")
    if record.public_key != previous.public_key:
        raise BadInput("public-key-changed", "the public key of a key never changes", "public_key")
    if record.epoch < previous.epoch:
        raise BadInput("epoch-down", f"epoch {record.epoch} after epoch {previous.epoch}", "epoch")
    if record.epoch == previous.epoch and facts(record) != facts(previous):
        raise BadInput("epoch-conflict", f"two different records of epoch {record.epoch}", "epoch")


def facts(record: KeyRecord) -> KeyRecord:
    """What two records of one epoch must agree in: any t holders sign it, any q Ready attest it."""
    return replace(record, attestations=(), signature=NO_SIGNATURE)


def _check_verification_shares(record: KeyRecord, roster: Roster) -> None:
    shares = record.verification_shares
    seats = {seat.index for seat in roster.seats}
    if not all(a.index < b.index for a, b in pairwise(shares)):
        raise BadInput("verification-shares", "seat indices must ascend, each once", "verification_shares.index")
    if not seats.issuperset(share.index for share in shares):
        raise BadInput("verification-shares", "a share of a seat that the roster does not have", "verification_shares")
    if len(shares) < record.threshold:
        raise BadInput("verification-shares", f"{len(shares)} shares for threshold {record.threshold}")
    if not all(ed25519.is_valid_point(share.element) for share in shares):
        raise BadInput("verification-shares", "a share is not a point of the prime-order group", "verification_shares")


def _check_attestations(record: KeyRecord, roster: Roster, topic: str) -> None:
    # Epoch 1 comes from key generation, where nothing is at stake yet and every seat has to be there.
    size = len(roster.seats)
    needed = size if record.epoch == 1 else commit_quorum(record.threshold, size)
    if len(record.attestations) < needed:
        raise BadInput("too-few-attestations", f"{len(record.attestations)} of {needed} seats attest", "attestations")
    identities = {seat.index: seat.identity_key for seat in roster.seats}
    shares = {share.index: share.element for share in record.verification_shares}
    expected = (
        record.open_id,
        record.key_id,
        record.epoch,
        record.public_key,
        transcript.verification_hash(shares),
    )
    attested: set[int] = set()
    said: set[tuple[bytes, tuple[Index, ...]]] = set()
    for attestation in record.attestations:
        opened, ready = _open_attestation(attestation, topic, identities)
        if opened.index in attested:
            raise BadInput("attestation-duplicate", f"seat {opened.index} attests twice", "attestations")
        if opened.index not in shares:
            raise BadInput("attestation-holder", f"seat {opened.index} attests without a share", "attestations")
        if (ready.open_id, ready.key_id, ready.epoch, ready.public_key, ready.verification_hash) != expected:
            raise BadInput("attestation-mismatch", f"seat {opened.index} attests something else", "attestations")
        attested.add(opened.index)
        said.add((ready.transcript_hash, ready.qualified))
    if len(said) != 1:
        raise BadInput("attestation-mismatch", "the seats do not attest the same ceremony", "attestations")


def _open_attestation(raw: bytes, topic: str, identities: dict[Index, bytes]) -> tuple[Opened, Ready]:
    def keys_of(role: Role, index: int) -> tuple[bytes, ...]:
        key = identities.get(Index(index)) if role is Role.SIGNER else None
        return () if key is None else (key,)

    try:
        opened = open_envelope(raw, topic, keys_of)
        return opened, codec.decode(opened.payload, Ready)
    except BadInput as bad:
        raise BadInput("attestation", f"not a Ready of a seat: {bad}", "attestations") from None
