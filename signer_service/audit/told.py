"""In words: what a ceremony was for, who did not deal, and why."""

from collections.abc import Mapping, Sequence
from typing import Final

from common.ids import Index
from signer_service.audit.facts import NoDeal, Remark
from signer_service.protocol.fold_phases import dealers_allowed
from signer_service.protocol.log_state import Attempt

WORDS: Mapping[str, str] = {
    "announce-refused": "Announce refused",
    "announce-again": "announced twice",
    "announce-void": "void",
    "announce-waits": "has to wait for the next ceremony",
    "deal-refused": "Deal refused",
    "deal-twice": "dealt twice",
    "deal-convicted": "convicted by a complaint",
    "complaint-false": "complained falsely",
    "complaint-idle": "complained idly",
    "ready-refused": "Ready refused",
    "key-record-refused": "key record refused",
}


def what_it_was(attempt: Attempt, shares: Mapping[Index, bytes]) -> str:
    """generate, refresh, heal, grow, shrink or change (of threshold or of who sits where)."""
    if attempt.generate:
        return "generate"
    before, after = set(attempt.old.identities), set(attempt.new.identities)
    if len(before) != len(after):
        return "grow" if len(before) < len(after) else "shrink"
    if attempt.old.threshold != attempt.new.threshold or attempt.newcomers or before != after:
        return "change"
    return "heal" if set(shares) - set(attempt.old_shares) or _came_without_share(attempt) else "refresh"


def _came_without_share(attempt: Attempt) -> set[Index]:
    return {seat for seat, each in attempt.announced.items() if not each.proved} if not attempt.generate else set()


_AFTER_DEALING: Final = frozenset({"ready-refused", "key-record-refused"})


def who_did_not_deal(attempt: Attempt, qualified: Sequence[Index], told: Sequence[Remark]) -> tuple[NoDeal, ...]:
    """Every seat of the old and the new committee that is not in QUAL, and why. Of what was ``told`` of a seat in this
    attempt the last counts."""
    against = {
        each.seat: NoDeal(Index(each.seat), each.detail, each.offset)
        for each in told
        if each.what not in _AFTER_DEALING
    }
    seats = sorted({*attempt.old.identities, *attempt.new.identities} - set(qualified))
    return tuple(_why(attempt, seat, against.get(seat)) for seat in seats)


def _why(attempt: Attempt, seat: Index, blame: NoDeal | None) -> NoDeal:
    # What was refused of a seat that dealt well in the end is not why it is missing; nor is what came too late.
    if blame is not None and (seat in attempt.out or seat in attempt.void or seat not in attempt.announced):
        return blame
    if seat in _came_without_share(attempt):
        return NoDeal(seat, "joins: it held no share" if seat in attempt.newcomers else "is healed: it held no share")
    if seat not in attempt.new.identities:
        return NoDeal(seat, "leaves: its Deal was not needed")
    if seat not in attempt.announced:
        return NoDeal(seat, "did not announce in time")
    if seat in dealers_allowed(attempt) and seat not in attempt.dealt:
        return NoDeal(seat, "did not deal in time")
    return blame or NoDeal(seat, "its Deal did not count")
