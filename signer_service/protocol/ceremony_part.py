"""This seat's part in ceremonies: what it makes, keeps and erases, given the fold. Level-triggered, so that it does not
matter whether a phase was followed live or is found in a replay.

Made only when all was read (``may_speak``): Announce, Deal, Verdict. Made in a replay too: the staged share, for a seat
that was down while the others committed finishes from the log with the transport key it kept.
"""

from collections.abc import Set as AbstractSet
from dataclasses import replace

from common.errors import BadInput
from common.ids import Epoch, Index, OpenId
from common.secret import Secret
from common.wire.messages import Announce, Complaint, Deal, Phase, Ready, SealedSubShare, Verdict
from signer_service.frost import proofs
from signer_service.frost.group import Element, Scalar, base_mul, encode_scalar, mul, random_scalar
from signer_service.frost.sealing import seal
from signer_service.frost.sharing import Polynomial, combine_sub_shares, commit_polynomial, random_polynomial
from signer_service.protocol import transcript
from signer_service.protocol.ceremony_state import CeremonyState, HeldShare, KeySecrets, OwnPart
from signer_service.protocol.fold_commit import may_erase
from signer_service.protocol.fold_phases import dealers_allowed, may_lack_share, open_sub_share, unseal_sub_share
from signer_service.protocol.log_state import Attempt, Commit, KeyLog, PastEpoch, identities
from signer_service.protocol.machine import Entropy, Note


def settle(state: CeremonyState, entropy: Entropy) -> tuple[CeremonyState, tuple[Note, ...]]:
    """Bring this seat's secrets to what the fold calls for. Returns the same state where nothing is to be done."""
    notes: list[Note] = []
    secrets = dict(state.secrets)
    for key_id, key in state.log.keys.items():
        before = state.of_key(key_id)
        mine = _finish(state, key, before, entropy, notes)
        if key.attempt is not None:
            mine = _take_part(state, key, key.attempt, mine, entropy, notes)
        if key_id not in state.soft.draining:
            mine = _erase(key, mine, notes)
        if mine != before:
            secrets[key_id] = mine
    changed = secrets.keys() != state.secrets.keys() or any(secrets[k] is not state.secrets[k] for k in secrets)
    return (replace(state, secrets=secrets) if changed else state), tuple(notes)


# --- attempts that are over ------------------------------------------------------------------------------------------


def _finish(state: CeremonyState, key: KeyLog, mine: KeySecrets, entropy: Entropy, notes: list[Note]) -> KeySecrets:
    part = mine.part
    if part is None or (key.attempt is not None and key.attempt.open_id == part.open_id):
        return mine
    if key.current is None or key.current.record.open_id != part.open_id:
        # Of a failed attempt everything goes: a Deal of it, kept in the log for ever, must never open.
        return replace(mine, part=None)
    staged = part.staged
    if staged is not None and part.ready is not None:
        if staged.verification_share != key.current.shares.get(state.seat):
            # It was made where a broker showed another end of the same attempt.
            notes.append(Note("share-of-another-history", {"key_id": key.key_id, "epoch": staged.epoch}))
            return replace(mine, part=None)
        notes.append(Note("share-held", {"key_id": key.key_id, "epoch": staged.epoch}))
        # One of another history may have the same number. Whether it is of use is for the operator to say.
        known = mine.find(staged.epoch, staged.verification_share)
        others = (each for each in mine.held if each is not known)
        mine = replace(mine, held=(*others, staged), ever_held=True)
        # From here on Ready says that this seat has seen the commit, too: without that nobody erases the epoch before.
        part = replace(part, ready=_committed(state.seat, part.open_id, staged, part.ready, entropy))
    # It stays until it is seen in the log. One of a seat that has left never counts.
    newest = identities(state.log.roster) if state.log.roster is not None else {}
    said = part.ready is None or state.seat in key.current.seen or state.seat not in newest
    kept = None if said else OwnPart(part.open_id, ready=part.ready)
    return replace(mine, part=kept)


def _committed(seat: Index, attempt: OpenId, held: HeldShare, ready: Ready, entropy: Entropy) -> Ready:
    context = transcript.committed_share_proof(attempt, seat)
    return replace(ready, share_proof=proofs.prove(held.share, Element(held.verification_share), context, entropy(64)))


def _erase(key: KeyLog, mine: KeySecrets, notes: list[Note]) -> KeySecrets:
    """Erase the shares of older epochs: all once r seats have said that they saw the commit. Until then they stay,
    sealed and unused; but for those of epochs of which everybody who has a share has said that he saw this commit, and
    that it takes no more of them: whoever could go on with that epoch can go on with this one.

    So a seat that is away, and that the others refresh without again and again, leaves them few shares to keep, and to
    have stolen. Which of them it could come back with cannot be known: it may have been shown another end of the log.
    """
    commit = key.current
    if commit is None or all(each.epoch >= commit.epoch for each in mine.held):
        return mine
    useless = {past.epoch for past in key.past if _is_covered(past, commit)}
    gone = {e for e in (each.epoch for each in mine.held) if e < commit.epoch and (may_erase(commit) or e in useless)}
    return _without(mine, gone, notes)


def _is_covered(past: PastEpoch, commit: Commit) -> bool:
    return past.threshold >= commit.committee.threshold and past.holders.keys() <= set(commit.seen)


def replaced(mine: KeySecrets, commit: Commit, notes: list[Note]) -> KeySecrets:
    """Erase what ``commit``, which was current so far, has left to be erased: there may have been no time for it, and
    from now on another commit is asked. Who reads several at once comes to what the others have."""
    return _without(mine, {e.epoch for e in mine.held if e.epoch < commit.epoch and may_erase(commit)}, notes)


def _without(mine: KeySecrets, gone: AbstractSet[Epoch], notes: list[Note]) -> KeySecrets:
    if not gone:
        return mine
    notes.extend(Note("share-erased", {"key_id": mine.key_id, "epoch": epoch}) for epoch in sorted(gone))
    return replace(mine, held=tuple(each for each in mine.held if each.epoch not in gone))


# --- the open attempt ------------------------------------------------------------------------------------------------


def _take_part(
    state: CeremonyState, key: KeyLog, attempt: Attempt, mine: KeySecrets, entropy: Entropy, notes: list[Note]
) -> KeySecrets:
    seat, speak = state.seat, state.may_speak
    part = mine.part
    if attempt.phase is Phase.ANNOUNCE:
        if part is None and speak and _may_announce(attempt, seat, mine):
            part = _announce(attempt, seat, mine, entropy)
    elif part is not None and part.transport is not None and not _counted(attempt, seat, part):
        # Too late, void, or another process speaks for this seat: the transport key can open nothing any more.
        notes.append(Note("announce-not-counted", {"key_id": key.key_id, "attempt": attempt.number}))
        part = OwnPart(attempt.open_id)
    if attempt.phase is Phase.DEAL and speak and seat in dealers_allowed(attempt) and seat not in attempt.dealt:
        # A seat that leaves deals without an Announce; one that stays has announced, or it does not deal.
        leaves = seat not in attempt.new.identities
        if leaves and part is None:
            part = OwnPart(attempt.open_id)
        if part is not None and part.deal is None and (leaves or part.transport is not None):
            part = replace(part, deal=_deal(attempt, seat, mine, entropy))
    if part is not None and part.transport is not None:
        if attempt.phase is Phase.VERDICT and speak and part.verdict is None and seat not in attempt.verdicts:
            part = replace(part, verdict=_verdict(attempt, seat, part.transport, entropy))
        if attempt.made is not None:
            part = _stage(attempt, seat, part, entropy, notes)
    return mine if part is mine.part else replace(mine, part=part)


def _may_announce(attempt: Attempt, seat: Index, mine: KeySecrets) -> bool:
    if seat not in attempt.new.identities or seat in attempt.void:
        return False
    if attempt.generate:
        return not mine.ever_held and seat not in attempt.announced
    # Although somebody has announced in our name: the proof takes the seat back, and without one nobody gets it.
    return _held(attempt, seat, mine) is not None or may_lack_share(attempt, seat)


def _held(attempt: Attempt, seat: Index, mine: KeySecrets) -> HeldShare | None:
    """The share that this seat deals. One of another history of the log proves nothing here, and is not dealt."""
    return mine.find(attempt.from_epoch, attempt.old_shares.get(seat))


def announce_is_seen(attempt: Attempt, seat: Index, said: Announce | None) -> bool:
    """Whether an Announce need not be sent again: it counts, or nothing more can come of it."""
    announced = attempt.announced.get(seat)
    if announced is None or said is None:
        return seat in attempt.void
    return attempt.generate or announced.digest == transcript.announce_digest(seat, said)


def _counted(attempt: Attempt, seat: Index, part: OwnPart) -> bool:
    announced = attempt.announced.get(seat)
    if announced is None or part.announce is None:
        return False
    return announced.digest == transcript.announce_digest(seat, part.announce)


def _announce(attempt: Attempt, seat: Index, mine: KeySecrets, entropy: Entropy) -> OwnPart:
    transport = Secret(_fresh_scalar(entropy))
    public = base_mul(transport.expose())
    held = None if attempt.generate else _held(attempt, seat, mine)
    share_proof = b""
    if held is not None:
        context = transcript.held_share_proof(attempt.open_id, seat, public)
        share_proof = proofs.prove(held.share, Element(held.verification_share), context, entropy(64))
    proof = proofs.prove(transport, public, transcript.transport_proof(attempt.open_id, seat), entropy(64))
    return OwnPart(attempt.open_id, Announce(attempt.open_id, public, proof, share_proof), transport)


def _deal(attempt: Attempt, seat: Index, mine: KeySecrets, entropy: Entropy) -> Deal | None:
    """Polynomial and ephemeral scalar live in this call and nowhere else."""
    held = _held(attempt, seat, mine)
    if attempt.generate:
        constant = Secret(_fresh_scalar(entropy))
    elif held is not None:
        constant = held.share
    else:
        return None
    threshold = attempt.new.threshold
    return make_deal(attempt, seat, random_polynomial(constant, threshold, entropy(64 * (threshold - 1))), entropy)


def make_deal(attempt: Attempt, seat: Index, polynomial: Polynomial, entropy: Entropy) -> Deal:
    """A Deal of ``polynomial``: commitments, and a sub-share for each recipient, sealed under a fresh ephemeral key."""
    commitments = commit_polynomial(polynomial)
    constant_proof = b""
    if attempt.generate:
        constant = Secret(polynomial.coefficients.expose()[0])
        context = transcript.constant_proof(attempt.open_id, seat)
        constant_proof = proofs.prove(constant, commitments[0], context, entropy(64))
    ephemeral = Secret(_fresh_scalar(entropy))
    public = base_mul(ephemeral.expose())
    context = transcript.ephemeral_proof(attempt.open_id, seat)
    ephemeral_proof = proofs.prove(ephemeral, public, context, entropy(64))
    sealed = []
    for recipient in attempt.recipients:
        transport = Element(attempt.announced[recipient].transport_key)
        context = transcript.sealing(attempt.open_id, seat, recipient, public, transport)
        plain = encode_scalar(polynomial.evaluate(recipient).expose())
        sealed.append(SealedSubShare(recipient, seal(mul(transport, ephemeral.expose()), context, plain)))
    return Deal(attempt.open_id, commitments, constant_proof, public, ephemeral_proof, tuple(sealed))


def _verdict(attempt: Attempt, seat: Index, transport: Secret[Scalar], entropy: Entropy) -> Verdict:
    complaints = []
    for dealer in sorted(attempt.deals):
        ephemeral = Element(attempt.deals[dealer].ephemeral_key)
        shared = mul(ephemeral, transport.expose())
        if open_sub_share(attempt, dealer, seat, shared) is None:
            context = transcript.complaint_proof(attempt.open_id, seat, dealer)
            proof = proofs.prove_equal(transport, ephemeral, shared, context, entropy(64))
            complaints.append(Complaint(dealer, bytes(shared), proof))
    return Verdict(attempt.open_id, tuple(complaints))


def _stage(attempt: Attempt, seat: Index, part: OwnPart, entropy: Entropy, notes: list[Note]) -> OwnPart:
    """Compute the new share, check it against the public Y', and let the transport key go. Ready follows from that."""
    made = attempt.made
    transport = part.transport
    if made is None or transport is None:
        return part
    gone = replace(part, transport=None)
    share = _new_share(attempt, seat, transport)
    verification_share = made.shares.get(seat)
    if share is None or verification_share is None or base_mul(share.expose()) != verification_share:
        # A dealer sealed garbage while this seat was down, or its Y' is the identity: to be healed.
        notes.append(Note("no-share-from-ceremony", {"key_id": attempt.key_id, "attempt": attempt.number}))
        return gone
    context = transcript.new_share_proof(attempt.open_id, seat, made.expected.transcript_hash)
    proof = proofs.prove(share, Element(verification_share), context, entropy(64))
    staged = HeldShare(made.expected.epoch, share, verification_share)
    return replace(gone, staged=staged, ready=replace(made.expected, share_proof=proof))


def _new_share(attempt: Attempt, seat: Index, transport: Secret[Scalar]) -> Secret[Scalar] | None:
    made = attempt.made
    sub_shares: dict[Index, Secret[Scalar]] = {}
    for dealer in made.qualified if made is not None else ():
        shared = mul(Element(attempt.deals[dealer].ephemeral_key), transport.expose())
        # One that does not fit is seen in what they come to: comparing each again would cost t-1 multiplications.
        sub_share = unseal_sub_share(attempt, dealer, seat, shared)
        if sub_share is None:
            return None
        sub_shares[dealer] = sub_share
    try:
        return combine_sub_shares(attempt.kind, sub_shares)
    except BadInput:
        return None


def _fresh_scalar(entropy: Entropy) -> Scalar:
    """A random scalar that is not zero (which would come once in 2**252, and prove nothing)."""
    while (scalar := random_scalar(entropy(64))) == 0:
        pass
    return scalar


def held_now(commit: Commit, seat: Index, mine: KeySecrets) -> HeldShare | None:
    """This seat's share of the current epoch, if it holds one."""
    return mine.find(commit.epoch, commit.shares.get(seat))
