"""The records of an open attempt up to its result: Announce, Deal, Verdict. What counts, what puts a dealer out.

Where each phase closes, and what comes after, is in ``fold_closing``. What comes for a phase after its close counts no
more.
"""

from dataclasses import replace

from common.errors import BadInput
from common.ids import Index
from common.secret import Secret
from common.wire.messages import Announce, Complaint, Deal, Phase, Verdict
from signer_service.frost.group import Element, Scalar, decode_element, decode_scalar
from signer_service.frost.proofs import verify_equal, verify_proof
from signer_service.frost.sealing import open_sealed
from signer_service.frost.sharing import check_sub_share
from signer_service.protocol import transcript
from signer_service.protocol.findings import Finding, Said, blame, late, witnessed
from signer_service.protocol.log_state import Announced, Attempt, Dealt

Outcome = tuple[Attempt, tuple[Finding, ...]]


# --- announce --------------------------------------------------------------------------------------------------------


def may_lack_share(attempt: Attempt, seat: Index) -> bool:
    """Whether the seat may announce without a proof that it holds a share: in a reshare a seat whose identity is new,
    or the one that is being healed. Whoever stole only an identity cannot take the seat otherwise."""
    return attempt.generate or seat == attempt.heal_seat or seat in attempt.newcomers


def announce(attempt: Attempt, said: Said, record: Announce) -> Outcome:
    """Take an Announce."""
    digest = transcript.announce_digest(said.seat, record)
    before = attempt.announced.get(said.seat)
    if (before is not None and before.digest == digest) or said.seat in attempt.void:
        return attempt, ()
    if attempt.phase is not Phase.ANNOUNCE or said.seat not in attempt.new.identities:
        return attempt, (late(said, record),)
    try:
        proved = _check_announce(attempt, said, record)
    except BadInput as bad:
        return attempt, (blame("announce-refused", said, bad.detail),)
    if not proved and _another_lacks_share(attempt, said.seat):
        # It could not know: both announced at the same time. Its turn is the next ceremony.
        return attempt, (witnessed("announce-waits", said, "one seat without a share a ceremony, and another came"),)
    if before is not None:
        if attempt.generate or (before.proved and not proved):
            # A seat that lost its disk in between says another, and so does whoever has stolen no more than its name.
            return attempt, (witnessed("announce-again", said, "a second, different Announce"),)
        if before.proved == proved:
            # Somebody else has this seat's identity, and all else that it could prove. Neither can be told from the
            # other; and a seat that lost its disk in between could open nothing that is sealed to the first.
            rest = {seat: each for seat, each in attempt.announced.items() if seat != said.seat}
            voided = replace(attempt, announced=rest, void=(*attempt.void, said.seat))
            if proved:
                return voided, (blame("announce-void", said, "two different Announces, both with a proof"),)
            return voided, (witnessed("announce-void", said, "two different Announces, none with a proof"),)
    announced = {**attempt.announced, said.seat: Announced(record.transport_key, proved, digest)}
    return replace(attempt, announced=announced), ()


def _check_announce(attempt: Attempt, said: Said, record: Announce) -> bool:
    public = decode_element(record.transport_key)
    verify_proof(public, transcript.transport_proof(attempt.open_id, said.seat), record.transport_proof)
    if record.share_proof:
        held = attempt.old_shares.get(said.seat)
        if attempt.generate or held is None:
            raise BadInput("announce", "a proof of a share that does not exist")
        context = transcript.held_share_proof(attempt.open_id, said.seat, public)
        verify_proof(Element(held), context, record.share_proof)
        return True
    if not may_lack_share(attempt, said.seat):
        raise BadInput("announce", "no proof that it holds its share, and no right to come without one")
    return False


def _another_lacks_share(attempt: Attempt, seat: Index) -> bool:
    others = (other for other, each in attempt.announced.items() if not each.proved and other != seat)
    return not attempt.generate and next(others, None) is not None


def announce_expected(attempt: Attempt) -> set[Index]:
    """Who has yet to announce. A seat with a share that came without proof is still expected with one."""
    seats = set(attempt.new.identities)
    if attempt.generate:
        return seats - set(attempt.announced)
    holders = {seat for seat in seats if seat in attempt.old_shares}
    missing = {s for s in holders if s not in attempt.announced or not attempt.announced[s].proved}
    if all(each.proved for each in attempt.announced.values()):
        missing |= {seat for seat in seats - holders if may_lack_share(attempt, seat)}
    return missing - set(attempt.void)


# --- deal ------------------------------------------------------------------------------------------------------------


def dealers_allowed(attempt: Attempt) -> set[Index]:
    """Who may deal: in a key generation every seat; in a reshare the holders, but for one that lost its share."""
    if attempt.generate:
        return set(attempt.announced)
    lost = {seat for seat, each in attempt.announced.items() if not each.proved}
    return {seat for seat in attempt.old_shares if seat in attempt.old.identities} - lost - set(attempt.void)


def dealers_expected(attempt: Attempt) -> set[Index]:
    """Who has yet to deal: those who announced; and seats that leave only if those are too few without them.

    A dead machine is the usual reason to leave a seat out of a roster: nothing may wait for its Deal in vain.
    """
    allowed = dealers_allowed(attempt)
    missing = (allowed & set(attempt.announced)) - set(attempt.dealt)
    if not missing and len(attempt.deals) < attempt.dealers_needed:
        missing = (allowed - set(attempt.new.identities)) - set(attempt.dealt)
    return missing


def deal(attempt: Attempt, said: Said, record: Deal) -> Outcome:
    """Take a Deal."""
    digest = transcript.deal_digest(said.seat, record)
    before = attempt.dealt.get(said.seat)
    if before == digest:
        return attempt, ()
    if attempt.phase is not Phase.DEAL or said.seat not in dealers_allowed(attempt):
        return attempt, (late(said, record),)
    if before is not None:
        if said.seat in attempt.out:
            return attempt, ()
        return _put_out(attempt, said.seat), (blame("deal-twice", said, "two Deals with different content"),)
    attempt = replace(attempt, dealt={**attempt.dealt, said.seat: digest})
    try:
        dealt = _check_deal(attempt, said, record)
    except BadInput as bad:
        return _put_out(attempt, said.seat), (blame("deal-refused", said, bad.detail),)
    return replace(attempt, deals={**attempt.deals, said.seat: dealt}), ()


def _check_deal(attempt: Attempt, said: Said, record: Deal) -> Dealt:
    # Before anything is computed with them: one commitment more or less is another threshold.
    if len(record.commitments) != attempt.new.threshold:
        raise BadInput("deal", f"{len(record.commitments)} commitments, not {attempt.new.threshold}")
    commitments = tuple(decode_element(each) for each in record.commitments)
    if attempt.generate:
        verify_proof(commitments[0], transcript.constant_proof(attempt.open_id, said.seat), record.constant_proof)
    elif record.constant_proof or commitments[0] != attempt.old_shares[said.seat]:
        raise BadInput("deal", "the constant term is not the dealer's share")
    ephemeral = decode_element(record.ephemeral_key)
    verify_proof(ephemeral, transcript.ephemeral_proof(attempt.open_id, said.seat), record.ephemeral_proof)
    if tuple(each.recipient for each in record.sealed) != attempt.recipients:
        raise BadInput("deal", "not one sealed sub-share for each recipient")
    return Dealt(commitments, ephemeral, {each.recipient: each.ciphertext for each in record.sealed})


def _put_out(attempt: Attempt, dealer: Index) -> Attempt:
    deals = {seat: each for seat, each in attempt.deals.items() if seat != dealer}
    return replace(attempt, deals=deals, out=(*attempt.out, dealer))


# --- verdict ---------------------------------------------------------------------------------------------------------


def verdict(attempt: Attempt, said: Said, record: Verdict) -> Outcome:
    """Take a Verdict: each complaint in it is decided here and now, by everybody alike."""
    digest = transcript.verdict_digest(said.seat, record)
    if attempt.verdicts.get(said.seat) == digest:
        return attempt, ()
    if attempt.phase is not Phase.VERDICT or said.seat not in attempt.announced or said.seat in attempt.verdicts:
        return attempt, (late(said, record),)
    attempt = replace(attempt, verdicts={**attempt.verdicts, said.seat: digest})
    findings: list[Finding] = []
    out = set(attempt.out)
    for complaint in record.complaints:
        if complaint.dealer not in attempt.deals:
            findings.append(blame("complaint-idle", said, "a complaint about a seat without a Deal"))
        elif _is_true(attempt, said.seat, complaint):
            out.add(complaint.dealer)
            findings.append(blame("deal-convicted", said, "what it sealed does not fit", culprit=complaint.dealer))
        else:
            out.add(said.seat)
            findings.append(blame("complaint-false", said, "a complaint that does not hold"))
    # Deals stay until the close: a later complaint about a dealer that is out already is still decided.
    return replace(attempt, out=tuple(sorted(out))), tuple(findings)


def _is_true(attempt: Attempt, seat: Index, complaint: Complaint) -> bool:
    """Whether the dealer sealed something else to ``seat`` than it committed to. K opens this one ciphertext only."""
    dealt, transport = attempt.deals[complaint.dealer], Element(attempt.announced[seat].transport_key)
    try:
        shared = decode_element(complaint.shared_key)
        context = transcript.complaint_proof(attempt.open_id, seat, complaint.dealer)
        verify_equal(transport, Element(dealt.ephemeral_key), shared, context, complaint.proof)
    except BadInput:
        return False
    return open_sub_share(attempt, complaint.dealer, seat, shared) is None


def open_sub_share(attempt: Attempt, dealer: Index, seat: Index, shared: Element) -> Secret[Scalar] | None:
    """The sub-share that ``dealer`` sealed to ``seat``, opened with their shared point; None if it does not fit."""
    sub_share = unseal_sub_share(attempt, dealer, seat, shared)
    try:
        if sub_share is not None:
            check_sub_share(sub_share, seat, tuple(Element(each) for each in attempt.deals[dealer].commitments))
    except BadInput:
        return None
    return sub_share


def unseal_sub_share(attempt: Attempt, dealer: Index, seat: Index, shared: Element) -> Secret[Scalar] | None:
    """As ``open_sub_share``, but not compared with what the dealer committed to: for who compares the sum of all."""
    dealt = attempt.deals[dealer]
    transport = attempt.announced[seat].transport_key
    context = transcript.sealing(attempt.open_id, dealer, seat, dealt.ephemeral_key, transport)
    try:
        return Secret(decode_scalar(open_sealed(shared, context, dealt.sealed[seat])))
    except BadInput:
        return None
