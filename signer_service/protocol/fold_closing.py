"""Where each of the five phases of an attempt closes, and what the attempt came to; Ready and votes.

A phase closes at the offset where everybody expected has spoken, or where q seats' votes for it stand, of the committee
that deals or of the one that receives: of the first there may be too few left, if dead machines are being replaced.
What comes for a phase after its close counts no more.

=========  =====================================  ====================================  ==============================
phase      who is expected                        next                                  ends the attempt
=========  =====================================  ====================================  ==============================
announce   every seat that may take part          all spoke (reshare: or q votes)       reshare: fewer than q announced
deal       dealers that announced (else leavers)  all spoke, or q votes                 fewer than t_old valid dealers
verdict    every recipient                        all spoke, or q votes                 QUAL below t_old; no group key
ready      every recipient that got a share       all spoke, or q votes                 fewer than q Ready (generate: n)
commit     a KeyRecord (``fold_commit``)          -                                     q votes
=========  =====================================  ====================================  ==============================
"""

from collections.abc import Mapping
from dataclasses import replace

from common.errors import BadInput
from common.ids import Epoch, Index, Offset
from common.wire.messages import NO_SIGNATURE, Phase, PhaseVote, Ready
from common.wire.transcript import verification_hash
from signer_service.frost.group import IDENTITY, Element
from signer_service.frost.proofs import verify_proof
from signer_service.frost.sharing import combine_commitments, evaluate_commitment, holds_no_share
from signer_service.protocol import transcript
from signer_service.protocol.findings import Finding, Said, blame, fact, late
from signer_service.protocol.fold_phases import announce_expected, dealers_expected
from signer_service.protocol.log_state import Attempt, KeyLog, Made

Outcome = tuple[Attempt, tuple[Finding, ...]]


# --- ready -----------------------------------------------------------------------------------------------------------


def ready(attempt: Attempt, said: Said, record: Ready, running_hash: bytes) -> Outcome:
    """Take a Ready. One that comes when the phase was voted closed, but nothing ended, counts for erasing."""
    if attempt.phase not in {Phase.READY, Phase.COMMIT} or attempt.made is None:
        return attempt, (late(said, record),)
    if any(seat == said.seat for seat, _ in attempt.ready):
        return attempt, ()
    fault = ready_fault(attempt.made.expected, attempt.made.shares, said, record)
    if fault:
        return attempt, (blame("ready-refused", said, fault),)
    attempt = replace(attempt, ready=(*attempt.ready, (said.seat, said.raw)))
    if len(attempt.ready) == attempt.ready_needed:
        attempt = replace(attempt, position=(said.offset, running_hash))
    return attempt, ()


def ready_fault(
    expected: Ready, shares: Mapping[Index, bytes], said: Said, record: Ready, *, committed: bool = False
) -> str:
    """Why this Ready is not equal to ``expected``, or does not prove the seat's new share; empty if it is and does.
    ``committed`` asks for the proof of a seat that has seen the commit."""
    if replace(record, share_proof=NO_SIGNATURE) != expected:
        return "it tells of another result than the log gives"
    share = shares.get(said.seat)
    if share is None:
        return "a seat that got no share"
    if committed:
        context = transcript.committed_share_proof(expected.open_id, said.seat)
    else:
        context = transcript.new_share_proof(expected.open_id, said.seat, expected.transcript_hash)
    try:
        verify_proof(Element(share), context, record.share_proof)
    except BadInput as bad:
        return bad.detail
    return ""


# --- votes and closing -----------------------------------------------------------------------------------------------


def vote(attempt: Attempt, said: Said, record: PhaseVote) -> Outcome:
    """Take a vote to close the present phase. A key generation waits for every Announce: nothing is at stake yet."""
    if record.phase is not attempt.phase or said.seat in attempt.votes or said.seat not in attempt.voters:
        return attempt, ()
    if attempt.generate and attempt.phase is Phase.ANNOUNCE:
        return attempt, ()
    return replace(attempt, votes=(*attempt.votes, said.seat)), ()


def awaited(attempt: Attempt) -> set[Index]:
    """Who has yet to speak in the present phase. In the commit phase: nobody in particular."""
    if attempt.phase is Phase.ANNOUNCE:
        return announce_expected(attempt)
    if attempt.phase is Phase.DEAL:
        return dealers_expected(attempt)
    if attempt.phase is Phase.VERDICT:
        return set(attempt.announced) - set(attempt.verdicts)
    if attempt.phase is Phase.READY and attempt.made is not None:
        return set(attempt.made.shares) - {seat for seat, _ in attempt.ready}
    return set()


def close(attempt: Attempt, key: KeyLog, offset: Offset) -> tuple[Attempt | None, tuple[Finding, ...]]:
    """Close the present phase if it is over, and every one after it that is over at once. None: the attempt ended."""
    findings: list[Finding] = []
    while _is_over(attempt):
        reason = _why_it_ends(attempt)
        if not reason:
            attempt = replace(attempt, phase=_NEXT[attempt.phase], votes=())
            if attempt.phase is Phase.READY:
                made = _make(attempt, key)
                attempt = replace(attempt, made=made)
                reason = "no group key of enough seats" if made is None else ""
        if reason:
            return None, (*findings, ended(attempt, offset, reason))
        findings.append(
            fact("ceremony-phase", offset, key_id=key.key_id, attempt=attempt.number, phase=attempt.phase.value)
        )
    return attempt, tuple(findings)


_NEXT = {
    Phase.ANNOUNCE: Phase.DEAL,
    Phase.DEAL: Phase.VERDICT,
    Phase.VERDICT: Phase.READY,
    Phase.READY: Phase.COMMIT,
}


def _is_over(attempt: Attempt) -> bool:
    if any(
        len(each.identities.keys() & set(attempt.votes)) >= each.commit_quorum for each in (attempt.old, attempt.new)
    ):
        return True
    return attempt.phase is not Phase.COMMIT and not awaited(attempt)


def _why_it_ends(attempt: Attempt) -> str:
    """Why the attempt cannot go on when its present phase closes as it is; empty if it can."""
    if attempt.phase is Phase.ANNOUNCE:
        return "too few announced" if len(attempt.announced) < attempt.ready_needed else ""
    if attempt.phase is Phase.DEAL:
        return "too few deals" if len(attempt.deals) < attempt.dealers_needed else ""
    if attempt.phase is Phase.VERDICT:
        return "too few deals" if len(_qualified(attempt)) < attempt.dealers_needed else ""
    if attempt.phase is Phase.READY:
        return "" if attempt.attested else "too few ready"
    return "no key record"


def _qualified(attempt: Attempt) -> tuple[Index, ...]:
    return tuple(sorted(set(attempt.deals) - set(attempt.out)))


def _make(attempt: Attempt, key: KeyLog) -> Made | None:
    """What QUAL's commitments come to. None: not a group key that may count, or too few seats would hold shares."""
    qualified = _qualified(attempt)
    commitments = {dealer: tuple(map(Element, attempt.deals[dealer].commitments)) for dealer in qualified}
    combined = combine_commitments(attempt.kind, commitments)
    public_key = combined[0]
    if public_key == IDENTITY or (key.current is not None and public_key != key.current.record.public_key):
        return None
    # The last dealer can make another seat's Y' the identity: that seat then holds no share, and nothing crashes.
    computed = {seat: evaluate_commitment(combined, seat) for seat in attempt.recipients}
    shares = {seat: bytes(share) for seat, share in computed.items() if not holds_no_share(share)}
    if len(shares) < attempt.ready_needed:
        return None
    announces = {seat: each.digest for seat, each in attempt.announced.items()}
    expected = Ready(
        open_id=attempt.open_id,
        key_id=attempt.key_id,
        epoch=Epoch(attempt.from_epoch + 1),
        transcript_hash=transcript.counted(attempt.open_id, announces, attempt.dealt, attempt.verdicts),
        qualified=qualified,
        public_key=bytes(public_key),
        verification_hash=verification_hash(shares),
        share_proof=NO_SIGNATURE,
    )
    return Made(qualified, bytes(public_key), shares, expected)


def ended(attempt: Attempt, offset: Offset, reason: str) -> Finding:
    """The fact that an attempt came to nothing."""
    return fact(
        "ceremony-ended",
        offset,
        key_id=attempt.key_id,
        attempt=attempt.number,
        phase=attempt.phase.value,
        reason=reason,
        awaited=",".join(map(str, sorted(awaited(attempt)))),
    )
