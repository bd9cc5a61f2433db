"""One commit against what the log has of it: the checks that the fold has no need of, or makes in another way.

The fold says that a key record counts. Here is shown again, from the records as they stand in the log, that it had to
come out so: the hash of the counted records, the dealers' constant terms, each verification share from each Deal, the
unchanged key and the attestations.

Refusals are ``DoesNotHold``:

=====================  ================================================================================================
open-id                the attempt is not named by the hash of t Opens of different seats
epoch-step             not the epoch after the one before
counted-record         a record that was counted does not stand in the log
transcript-hash        an attestation has another hash of the counted records than the log gives
qualified              the attested dealers are too few, or are not those whose Deals the log has
deal-commitments       a Deal has not t commitments, or one is no point of the prime-order group
deal-constant          a dealer's constant term is not its share of the epoch before (generate: is not proved)
verification-share     a verification share is not what the Deals give
public-key             the group key is not what the Deals give
log-position           the key record names a place on the log, or its hash, that is not this log's
attestation-elsewhere  an attestation does not stand on this log, before the key record's place
key-record             ``trust.check_key_record`` refuses it; its code is in the detail
=====================  ================================================================================================
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from common.errors import BadInput
from common.ids import Index, OpenId
from common.trust import check_key_record
from common.wire import codec
from common.wire.messages import Announce, Deal, Envelope, KeyRecord, Open, Ready, Verdict
from signer_service.audit.facts import DoesNotHold, Remark
from signer_service.frost.group import Element, Scalar, decode_element, multiply_accumulate, total
from signer_service.frost.proofs import verify_proof
from signer_service.frost.sharing import evaluate_commitment, lagrange_weights
from signer_service.protocol import transcript
from signer_service.protocol.log_state import Attempt


@dataclass(slots=True)
class Heard:
    """What seats said in one attempt, all of it, in log order: seat and record.

    ``ready`` are whole envelopes with their offsets, ``reasons`` those of the Opens, ``blamed`` what the fold convicted
    whom of, ``witnessed`` what it told of a seat without blame.
    """

    reasons: tuple[str, ...] = ()
    announces: list[tuple[Index, Announce]] = field(default_factory=list)
    deals: list[tuple[Index, Deal]] = field(default_factory=list)
    verdicts: list[tuple[Index, Verdict]] = field(default_factory=list)
    ready: dict[bytes, int] = field(default_factory=dict)
    blamed: list[Remark] = field(default_factory=list)
    witnessed: list[Remark] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Counted:
    """Of these, what counted: by seat."""

    announces: Mapping[Index, Announce]
    deals: Mapping[Index, Deal]
    verdicts: Mapping[Index, Verdict]


@dataclass(frozen=True, slots=True)
class Source:
    """Whose log it is: the operator's key, the full name of the topic, and the running hash at each offset."""

    operator_key: bytes
    topic: str
    hash_at: Callable[[int], bytes | None]


def check_opening(open_id: OpenId, threshold: int, opens: Sequence[tuple[Index, Open]]) -> None:
    """Check that ``open_id`` is the hash of these Opens, t of them, each of another seat."""
    seats = {seat for seat, _ in opens}
    if len(opens) != threshold or len(seats) != threshold or transcript.open_id(opens) != open_id:
        raise DoesNotHold("open-id", "the attempt is not named by the hash of t Opens of different seats")


def recheck(record: KeyRecord, attempt: Attempt, heard: Heard, previous: KeyRecord | None, source: Source) -> Counted:
    """Check a key record that the fold took as the commit of ``attempt``. Returns what counted.

    Args:
        record: As the log has it.
        attempt: As it stood just before.
        heard: All that was said in it.
        previous: Key record of the epoch before, re-checked earlier; None: there was no epoch.
        source: Whose log.

    Raises:
        DoesNotHold: one of the codes above.
    """
    expected = previous.epoch + 1 if previous is not None else 1
    if record.epoch != expected:
        raise DoesNotHold("epoch-step", f"epoch {record.epoch}, where {expected} comes next")
    counted = _counted(attempt, heard)
    attested = [_ready(raw) for raw in record.attestations]
    _check_transcript(attempt, counted, attested)
    qualified = _check_qualified(attempt, counted, attested)
    commitments = _commitments(record, {dealer: counted.deals[dealer] for dealer in qualified})
    _check_constants(attempt, counted, commitments, previous)
    _check_shares(record, attempt, commitments, previous)
    check_position(record, source)
    for raw in record.attestations:
        if heard.ready.get(raw, record.log_offset + 1) > record.log_offset:
            raise DoesNotHold("attestation-elsewhere", "an attestation does not stand on this log where it should")
    check_belief(record, previous, source)
    return counted


# --- what was said ---------------------------------------------------------------------------------------------------


def _counted(attempt: Attempt, heard: Heard) -> Counted:
    """The records whose digests the fold kept, found again in the log."""
    announces = {(seat, transcript.announce_digest(seat, each)): each for seat, each in heard.announces}
    deals = {(seat, transcript.deal_digest(seat, each)): each for seat, each in heard.deals}
    verdicts = {(seat, transcript.verdict_digest(seat, each)): each for seat, each in heard.verdicts}
    try:
        return Counted(
            {seat: announces[seat, each.digest] for seat, each in attempt.announced.items()},
            {seat: deals[seat, digest] for seat, digest in attempt.dealt.items()},
            {seat: verdicts[seat, digest] for seat, digest in attempt.verdicts.items()},
        )
    except KeyError as missing:
        seat = missing.args[0][0]
        raise DoesNotHold("counted-record", f"a record of seat {seat} was counted that the log does not have") from None


def _ready(raw: bytes) -> Ready:
    try:
        return codec.decode(codec.decode(raw, Envelope).payload, Ready)
    except BadInput as bad:
        raise DoesNotHold("key-record", f"an attestation is no Ready: {bad}") from None


def _check_transcript(attempt: Attempt, counted: Counted, attested: Sequence[Ready]) -> None:
    expected = transcript.counted(
        attempt.open_id,
        {seat: transcript.announce_digest(seat, each) for seat, each in counted.announces.items()},
        {seat: transcript.deal_digest(seat, each) for seat, each in counted.deals.items()},
        {seat: transcript.verdict_digest(seat, each) for seat, each in counted.verdicts.items()},
    )
    if not attested or any(each.transcript_hash != expected for each in attested):
        raise DoesNotHold("transcript-hash", "the attestations have another hash of the counted records")


def _check_qualified(attempt: Attempt, counted: Counted, attested: Sequence[Ready]) -> tuple[Index, ...]:
    (qualified, *others) = {each.qualified for each in attested}
    if others or len(qualified) < attempt.dealers_needed or not set(qualified) <= set(counted.deals):
        raise DoesNotHold("qualified", f"the attested dealers {list(qualified)} are not dealers that this log has")
    return qualified


# --- arithmetic ------------------------------------------------------------------------------------------------------


def _commitments(record: KeyRecord, deals: Mapping[Index, Deal]) -> dict[Index, tuple[Element, ...]]:
    found: dict[Index, tuple[Element, ...]] = {}
    for dealer, deal in deals.items():
        if len(deal.commitments) != record.threshold:
            raise DoesNotHold("deal-commitments", f"dealer {dealer} made {len(deal.commitments)} commitments")
        try:
            found[dealer] = tuple(decode_element(each) for each in deal.commitments)
        except BadInput as bad:
            raise DoesNotHold("deal-commitments", f"dealer {dealer}: {bad.detail}") from None
    return found


def _check_constants(
    attempt: Attempt,
    counted: Counted,
    commitments: Mapping[Index, tuple[Element, ...]],
    previous: KeyRecord | None,
) -> None:
    held = {share.index: share.element for share in previous.verification_shares} if previous is not None else {}
    for dealer, points in commitments.items():
        if previous is not None:
            if points[0] != held.get(dealer):
                raise DoesNotHold("deal-constant", f"dealer {dealer} did not deal its share of the epoch before")
            continue
        try:
            context = transcript.constant_proof(attempt.open_id, dealer)
            verify_proof(points[0], context, counted.deals[dealer].constant_proof)
        except BadInput as bad:
            raise DoesNotHold("deal-constant", f"dealer {dealer}: {bad.detail}") from None


def _check_shares(
    record: KeyRecord,
    attempt: Attempt,
    commitments: Mapping[Index, tuple[Element, ...]],
    previous: KeyRecord | None,
) -> None:
    """Each dealer's polynomial at j first, then the dealers together: the fold adds first, and evaluates then."""
    dealers = tuple(sorted(commitments))
    weights = lagrange_weights(dealers) if previous is not None else {dealer: Scalar(1) for dealer in dealers}

    def together(points: Mapping[Index, Element]) -> Element:
        if previous is None:
            return total(points[dealer] for dealer in dealers)
        return multiply_accumulate((points[dealer], weights[dealer]) for dealer in dealers)

    if together({dealer: commitments[dealer][0] for dealer in dealers}) != record.public_key:
        raise DoesNotHold("public-key", "the group key is not what the Deals give")
    shares = {share.index: Element(share.element) for share in record.verification_shares}
    for seat, share in shares.items():
        given = together({dealer: evaluate_commitment(commitments[dealer], seat) for dealer in dealers})
        if seat not in attempt.announced or share != given:
            raise DoesNotHold("verification-share", f"the verification share of seat {seat} is not what the Deals give")


# --- belief ----------------------------------------------------------------------------------------------------------


def check_position(record: KeyRecord, source: Source) -> None:
    """Check that the key record's place on the log, with the running hash there, is this log's."""
    if source.hash_at(record.log_offset) != record.log_hash:
        raise DoesNotHold("log-position", f"its hash of the log at offset {record.log_offset} is not this log's")


def check_belief(record: KeyRecord, previous: KeyRecord | None, source: Source) -> None:
    """Check what everybody checks, signers and API pods alike (``common.trust``)."""
    try:
        check_key_record(record, source.operator_key, topic=source.topic, pinned=None, previous=previous)
    except BadInput as bad:
        raise DoesNotHold("key-record", f"{bad.code}: {bad.detail}") from None
