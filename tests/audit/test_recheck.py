"""Each check of a commit fails when the thing that it is about is changed; the fold would not let it come so far."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest

from common.ids import Index
from common.wire.messages import KeyRecord, VerificationShare
from signer_service.audit import recheck
from signer_service.audit.facts import DoesNotHold
from signer_service.audit.recheck import Heard, Source
from signer_service.protocol import transcript
from signer_service.protocol.log_state import Attempt
from tests import playbook
from tests.audit.logs import audited, long_log


@dataclass(frozen=True)
class Case:
    """The arguments of one re-check."""

    record: KeyRecord
    attempt: Attempt
    heard: Heard
    previous: KeyRecord | None
    source: Source

    def check(self) -> None:
        recheck.recheck(self.record, self.attempt, self.heard, self.previous, self.source)


@cache
def cases() -> tuple[Case, ...]:
    """Those that an honest log makes: one for each epoch."""
    found: list[Case] = []
    real = recheck.recheck

    def watched(*arguments: object) -> object:
        found.append(Case(*arguments))  # type: ignore[arg-type]
        return real(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recheck, "recheck", watched)
        assert audited(long_log()).problem is None
    return tuple(found)


def other_point() -> bytes:
    return playbook.public("another point")


def with_share(record: KeyRecord, element: bytes) -> KeyRecord:
    first, *rest = record.verification_shares
    return replace(record, verification_shares=(VerificationShare(first.index, element), *rest))


def without_deal(case: Case) -> Case:
    return replace(case, heard=replace(case.heard, deals=case.heard.deals[1:]))


def with_other_commitment(case: Case) -> Case:
    """Every dealer's commitments but the first one's last, which nobody has signed for as it is now."""
    (seat, deal), *rest = case.heard.deals
    changed = replace(deal, commitments=(*deal.commitments[:-1], other_point()))
    return replace(case, heard=replace(case.heard, deals=[(seat, changed), *rest]))


def with_more_dealers_needed(case: Case) -> Case:
    return replace(case, attempt=replace(case.attempt, old=replace(case.attempt.old, threshold=5)))


def without_announce(case: Case) -> Case:
    announced = {seat: each for seat, each in case.attempt.announced.items() if seat != 1}
    return replace(case, attempt=replace(case.attempt, announced=announced))


def after_other_shares(case: Case) -> Case:
    assert case.previous is not None
    return replace(case, previous=with_share(case.previous, other_point()))


ANY = [
    ("epoch-step", lambda case: replace(case, record=replace(case.record, epoch=case.record.epoch + 1))),
    ("counted-record", without_deal),
    ("counted-record", with_other_commitment),
    ("transcript-hash", without_announce),
    ("transcript-hash", lambda case: replace(case, record=replace(case.record, attestations=()))),
    ("qualified", with_more_dealers_needed),
    ("deal-commitments", lambda case: replace(case, record=replace(case.record, threshold=9))),
    ("verification-share", lambda case: replace(case, record=with_share(case.record, other_point()))),
    ("public-key", lambda case: replace(case, record=replace(case.record, public_key=other_point()))),
    ("log-position", lambda case: replace(case, record=replace(case.record, log_hash=bytes(64)))),
    ("log-position", lambda case: replace(case, source=replace(case.source, hash_at=lambda _: None))),
    ("attestation-elsewhere", lambda case: replace(case, heard=replace(case.heard, ready={}))),
    ("key-record", lambda case: replace(case, record=replace(case.record, signature=bytes(64)))),
    (
        "key-record",
        lambda case: replace(case, source=replace(case.source, operator_key=playbook.public("somebody else"))),
    ),
    ("key-record", lambda case: replace(case, source=replace(case.source, topic="other.signer.v1.ceremony"))),
]


@pytest.mark.parametrize("epoch", [1, 2, 4])
@pytest.mark.parametrize(("code", "change"), ANY)
def test_a_commit_with_one_thing_changed_does_not_hold(code: str, change: Callable[[Case], Case], epoch: int) -> None:
    honest = cases()[epoch - 1]
    honest.check()
    with pytest.raises(DoesNotHold) as found:
        change(honest).check()
    assert found.value.problem.code == code


@pytest.mark.parametrize("epoch", [2, 3, 4, 5])
def test_a_dealer_that_did_not_deal_its_share_of_the_epoch_before_does_not_hold(epoch: int) -> None:
    with pytest.raises(DoesNotHold) as found:
        after_other_shares(cases()[epoch - 1]).check()
    assert found.value.problem.code == "deal-constant"


def test_in_a_key_generation_the_constant_terms_are_proved_again() -> None:
    case = cases()[0]
    # The proofs of two dealers exchanged: under another open_id none of them verifies.
    attempt = replace(case.attempt, open_id=cases()[1].attempt.open_id)
    counted = recheck._counted(case.attempt, case.heard)
    commitments = recheck._commitments(case.record, counted.deals)
    with pytest.raises(DoesNotHold) as found:
        recheck._check_constants(attempt, counted, commitments, None)
    assert found.value.problem.code == "deal-constant"


def test_a_key_that_changes_from_one_epoch_to_the_next_does_not_hold() -> None:
    first, second = cases()[:2]
    assert first.record.public_key == second.record.public_key
    previous = replace(first.record, public_key=other_point())
    with pytest.raises(DoesNotHold) as found:
        replace(second, previous=previous).check()
    assert found.value.problem.code == "key-record"
    assert found.value.problem.detail.startswith("public-key-changed")


def test_an_attempt_is_named_by_its_opens_or_does_not_hold() -> None:
    said = playbook.reshare_open(1, 1, 1)
    opens = [(Index(1), said), (Index(2), said)]
    open_id = transcript.open_id(opens)
    recheck.check_opening(open_id, 2, opens)
    for threshold, wrong in [(2, opens[::-1]), (2, [opens[0], opens[0]]), (3, opens), (1, opens[:1])]:
        with pytest.raises(DoesNotHold):
            recheck.check_opening(open_id, threshold, wrong)
