"""Blame: what a coordinator publishes when a seat is proven bad, and how anybody checks it.

Late, silent, declining or wrong about a hash is not provable and never blamed: the coordinator could have made it up.
Two things are:

* ``bad-share``: the seat's signed batch with its commitment, the group that the coordinator sent, and the seat's signed
  answer, which names the hash of that group and a share that does not verify;
* ``bad-commitment``: the seat's signed batch with a commitment that is no pair of group elements.
"""

from collections.abc import Mapping
from typing import Final

from common.errors import BadInput
from common.ids import Epoch, Index, Instant
from common.wire.messages import AuditEntry, AuditKind, NonceBatch, Share, SignatureShares, SignPackage
from signer_service.frost.errors import InvalidScalar, InvalidShare
from signer_service.frost.group import decode_scalar
from signer_service.frost.keys import PublicKeyPackage
from signer_service.frost.nonces import Commitment, collect
from signer_service.frost.signing import SignatureShare, verify_share
from signer_service.protocol.package import group_hash, well_formed
from signer_service.protocol.wire import Wire

BAD_SHARE: Final = "bad-share"
BAD_COMMITMENT: Final = "bad-commitment"


def blame_entry(
    code: str, culprit: Index, key_id: str, epoch: Epoch, now: Instant, session_id: int, evidence: tuple[bytes, ...]
) -> AuditEntry:
    """The audit entry that accuses ``culprit``; ``evidence`` as ``check_blame_evidence`` takes it."""
    return AuditEntry(
        kind=AuditKind.BLAME,
        at_ms=now,
        request_id="",
        principal="",
        key_id=key_id,
        epoch=epoch,
        message_sha256=b"",
        signers=(culprit,),
        code=code,
        detail=f"session {session_id}",
        evidence=evidence,
    )


def check_blame_evidence(
    entry: AuditEntry,
    wire: Wire,
    identity_keys: Mapping[Index, bytes],
    public: PublicKeyPackage,
    internal_message: bytes | None = None,
) -> Index:
    """Return the seat that ``entry`` proves bad. For auditors: nothing that the accuser says is believed.

    Args:
        entry: Of kind BLAME.
        wire: The way to read signed records.
        identity_keys: The seats' identity keys of that time.
        public: The verification shares of the entry's key in the entry's epoch.
        internal_message: What a session without a request signed: the key record's bytes, if it was one.

    Raises:
        BadInput: code ``no-proof`` with the reason: the evidence does not prove it. Other codes: it cannot be read.
    """
    if entry.kind is not AuditKind.BLAME:
        raise _no_proof("not an accusation")
    if entry.code == BAD_COMMITMENT and len(entry.evidence) == 1:
        culprit = _check_commitments(entry.evidence[0], wire, identity_keys)
    elif entry.code == BAD_SHARE and len(entry.evidence) == 3:
        culprit = _check_share(entry, wire, identity_keys, public, internal_message)
    else:
        raise _no_proof("an unknown accusation, or the wrong number of records")
    # Whoever counts accusations by the seats that they name must not count one against a bystander.
    if entry.signers != (culprit,):
        raise _no_proof("the accusation names another seat than its evidence")
    return culprit


def _check_commitments(envelope: bytes, wire: Wire, identity_keys: Mapping[Index, bytes]) -> Index:
    sender, batch = wire.open_envelope(envelope, identity_keys)
    if not isinstance(batch, NonceBatch):
        raise _no_proof("the record is not a batch of commitments")
    for grant in batch.grants:
        for raw in grant.commitments:
            try:
                Commitment.from_bytes(raw)
            except BadInput:
                return sender.index
    raise _no_proof("every commitment of the batch is good")


def _check_share(
    entry: AuditEntry,
    wire: Wire,
    identity_keys: Mapping[Index, bytes],
    public: PublicKeyPackage,
    internal_message: bytes | None,
) -> Index:
    batch_raw, package_raw, answer_raw = entry.evidence
    sender, answer = wire.open_envelope(answer_raw, identity_keys)
    committer, batch = wire.open_envelope(batch_raw, identity_keys)
    package = wire.decode_package(package_raw)
    if not isinstance(answer, SignatureShares) or not isinstance(batch, NonceBatch):
        raise _no_proof("the records are not a batch of commitments and an answer")
    if committer != sender:
        raise _no_proof("commitments and answer are not of one boot of one seat")
    # ``public`` was looked up by what the accuser wrote: a good share of one epoch is a bad one by another's numbers.
    if any((group.scope.key_id, group.epoch) != (entry.key_id, entry.epoch) for group in package.groups):
        raise _no_proof("the group is of another key or epoch than the accusation")
    return _judge(sender.index, batch, package, answer, wire, public, internal_message)


def _judge(
    seat: Index,
    batch: NonceBatch,
    package: SignPackage,
    answer: SignatureShares,
    wire: Wire,
    public: PublicKeyPackage,
    internal_message: bytes | None,
) -> Index:
    if len(package.groups) != 1 or not well_formed(package.groups[0]):
        raise _no_proof("the package is not one well-formed group")
    group = package.groups[0]
    if seat not in group.signers or not set(group.signers) <= set(public.verification_shares):
        raise _no_proof("the group is not of this committee, or the seat not in it")
    request = wire.decode_request(group.request) if group.request else None
    if request is None and internal_message is None:
        raise _no_proof("what the session signed is not known here")
    digest = group_hash(group, internal_message or b"" if request is None else b"")
    position = group.signers.index(seat)
    granted = {
        grant.first_counter + k: raw
        for grant in batch.grants
        if grant.scope == group.scope
        for k, raw in enumerate(grant.commitments)
    }
    shares: dict[int, list[Share]] = {}
    for given in answer.answers:
        if isinstance(given, Share) and given.package_hash == digest:
            shares.setdefault(given.session_id, []).append(given)
    for session in group.sessions:
        given_here = shares.get(session.session_id, [])
        # A share over a commitment that the seat never made would be wrong through no fault of its own.
        if not given_here or granted.get(session.counters[position]) != session.commitments[position]:
            continue
        if request is not None and session.item >= len(request.items):
            continue
        message = (internal_message or b"") if request is None else request.items[session.item].message
        commitments = collect(
            (signer, Commitment.from_bytes(raw)) for signer, raw in zip(group.signers, session.commitments, strict=True)
        )
        for share in given_here:
            try:
                verify_share(public, seat, SignatureShare(decode_scalar(share.share)), commitments, message)
            except (InvalidShare, InvalidScalar):
                return seat
    raise _no_proof("no share for this group, or every one of them is good")


def _no_proof(detail: str) -> BadInput:
    return BadInput("no-proof", detail)
