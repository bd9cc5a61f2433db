"""The checker finds what is planted, and nothing in a run in which nothing is wrong."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.ids import Epoch, Index, KeyId, Offset, OpenId
from common.wire.messages import KeyRecord, RefusalCode, Refused, Signed
from tests.chaos import commits, history
from tests.chaos.checker import check, check_ceremonies, told
from tests.chaos.commits import Commit
from tests.chaos.evidence import Audited, Evidence, Given, Holder, Item, digest
from tests.chaos.history import LOST, Answer, Ask, Fault, Final, Row

SEATS = 3
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
STARTED_MS = 1_000_000


@dataclass
class Run:
    """A run in which nothing is wrong: every message asked on its own, answered after 20 ms, committed after 100."""

    rows: list[Row] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)

    def ask(self, op: int, at_ms: int) -> None:
        message = b"message %d" % op
        request_id, record_id = f"request-{op}", f"record-{op}"
        signed = Signed(KEY.sign(message), KeyId("default"), Epoch(1), (Index(1), Index(2)))
        self.rows.append(Ask(op, "single", (message,), 5_000, at_ms))
        self.rows.append(Answer(op, 0, 0, 200, "", request_id, signed.signature, PUBLIC, 1, at_ms + 20))
        seen = self.evidence
        seen.items.append(Item(record_id, request_id, message, at_ms + 1, at_ms + 5_001, 0, op))
        seen.given.append(Given(record_id, request_id, signed, at_ms + 10))
        seen.audited.append(Audited(request_id, digest(message), 1, signed.signers))
        seen.commits.append(Commit(0, op + 1, at_ms + 100))
        seen.read["signer.v1", 0].append(op)
        seen.ends["signer.v1", 0] = op + 1

    def find(self) -> dict[str, list[str]]:
        """Details by rule."""
        found: dict[str, list[str]] = {}
        for finding in check(self.rows, self.evidence, SEATS):
            found.setdefault(finding.rule, []).append(finding.detail)
        return found

    def answer(self, op: int) -> Answer:
        return next(row for row in self.rows if isinstance(row, Answer) and row.op == op)

    def swap(self, old: Answer, new: Answer) -> None:
        self.rows[self.rows.index(old)] = new


@pytest.fixture
def run() -> Run:
    made = Run()
    for op in range(8):
        made.ask(op, STARTED_MS + 1_000 * op)
    made.rows += [Final(0, PUBLIC, 1), Final(1, PUBLIC, 1)]
    made.evidence.key_records.append(
        KeyRecord(KeyId("default"), Epoch(1), OpenId(bytes(64)), 2, PUBLIC, (), b"", Offset(0), b"", ())
    )
    made.evidence.holders = {seat: Holder(1, True, "") for seat in range(1, SEATS + 1)}
    return made


def test_a_run_in_which_nothing_is_wrong_has_no_finding(run: Run) -> None:
    # The demo's own signature before the run is nobody's question, and no finding.
    probe = b"signer-flow demo 0123456789abcdef"
    run.evidence.items.append(Item("record-p", "request-p", probe, STARTED_MS, STARTED_MS + 5_000, 1, 0))
    signed = Signed(KEY.sign(probe), KeyId("default"), Epoch(1), (Index(2), Index(3)))
    run.evidence.given.append(Given("record-p", "request-p", signed, STARTED_MS + 5))
    run.evidence.audited.append(Audited("request-p", digest(probe), 1, signed.signers))
    assert run.find() == {}


def lose_an_answer(run: Run) -> None:
    run.rows.remove(run.answer(3))


def answer_twice(run: Run) -> None:
    run.rows.append(replace(run.answer(3), at_ms=run.answer(3).at_ms + 1))


def answer_two_questions_with_one_request(run: Run) -> None:
    run.swap(run.answer(3), replace(run.answer(3), request_id="request-4"))


def make_two_requests_of_one_question(run: Run) -> None:
    run.evidence.items.append(replace(run.evidence.items[3], request_id="request-again", record_id="record-3"))


def answer_after_the_deadline(run: Run) -> None:
    run.swap(run.answer(3), replace(run.answer(3), at_ms=run.answer(3).at_ms + 9_000))


def never_answer(run: Run) -> None:
    run.swap(run.answer(3), replace(run.answer(3), status=history.HUNG))


def end_at_the_deadline(run: Run) -> None:
    run.swap(run.answer(3), replace(run.answer(3), status=504, code="deadline"))


def refuse_what_was_accepted(run: Run) -> None:
    run.swap(run.answer(3), replace(run.answer(3), status=503, code="overloaded"))


def break_a_connection(run: Run) -> None:
    run.swap(run.answer(3), replace(run.answer(3), status=LOST))


def fail_in_the_loss_of_one_replica(run: Run) -> None:
    end_at_the_deadline(run)
    run.rows.append(Fault("kill", "signer 2", STARTED_MS, STARTED_MS + 60_000))


def answer_with_the_signature_of_another_message(run: Run) -> None:
    run.swap(run.answer(3), replace(run.answer(3), signature=run.answer(4).signature))


def answer_with_another_key(run: Run) -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    forged = replace(
        run.answer(3),
        signature=other.sign(b"message 3"),
        public_key=other.public_key().public_bytes_raw(),
    )
    run.swap(run.answer(3), forged)


def give_a_wrong_signature_on_the_topic(run: Run) -> None:
    given = run.evidence.given[3]
    assert isinstance(given.result, Signed)
    flipped = bytes([given.result.signature[0] ^ 1]) + given.result.signature[1:]
    run.evidence.given[3] = replace(given, result=replace(given.result, signature=flipped))


def sign_what_no_client_asked(run: Run) -> None:
    message = b"pay everything to me"
    run.evidence.items.append(Item("record-x", "request-x", message, STARTED_MS, STARTED_MS + 5_000, 1, 0))
    signed = Signed(KEY.sign(message), KeyId("default"), Epoch(1), (Index(1), Index(2)))
    run.evidence.given.append(Given("record-x", "request-x", signed, STARTED_MS + 5))
    run.evidence.audited.append(Audited("request-x", digest(message), 1, signed.signers))


def sign_what_no_pod_sent(run: Run) -> None:
    signed = Signed(KEY.sign(b"message 3"), KeyId("default"), Epoch(1), (Index(1), Index(2)))
    run.evidence.given.append(Given("record-x", "request-x", signed, STARTED_MS + 5))


def sign_another_message_than_was_asked(run: Run) -> None:
    run.evidence.items[3] = replace(run.evidence.items[3], message=b"message three")


def leave_a_signature_out_of_the_audit(run: Run) -> None:
    del run.evidence.audited[3]


def audit_only_one_of_two_signatures(run: Run) -> None:
    given = run.evidence.given[3]
    assert isinstance(given.result, Signed)
    run.evidence.given.append(replace(given, result=replace(given.result, signers=(Index(2), Index(3)))))


def audit_another_message(run: Run) -> None:
    run.evidence.audited[3] = replace(run.evidence.audited[3], message_sha256=digest(b"another"))


def commit_before_the_answer(run: Run) -> None:
    run.evidence.commits[3] = replace(run.evidence.commits[3], at_ms=STARTED_MS + 3_009)


def commit_past_what_was_never_answered(run: Run) -> None:
    del run.evidence.given[3]


def leave_the_last_request_uncommitted(run: Run) -> None:
    del run.evidence.commits[-1]


def miss_a_record(run: Run) -> None:
    run.evidence.read["signer.v1", 0].remove(3)


def keep_a_record_that_cannot_be_read(run: Run) -> None:
    run.evidence.unreadable.append(("signer.v1.resp0", 0, 3))


def end_in_two_epochs(run: Run) -> None:
    run.evidence.holders[2] = Holder(2, True, "")


def end_with_a_replica_missing(run: Run) -> None:
    del run.evidence.holders[3]


def end_without_a_share(run: Run) -> None:
    run.evidence.holders[2] = Holder(1, False, "")


def end_with_two_keys(run: Run) -> None:
    run.rows.append(Final(1, bytes(32), 1))


PLANTED: tuple[tuple[Callable[[Run], None], str], ...] = (
    (lose_an_answer, "lost"),
    (answer_twice, "duplicate"),
    (answer_two_questions_with_one_request, "duplicate"),
    (make_two_requests_of_one_question, "duplicate"),
    (answer_after_the_deadline, "hung"),
    (never_answer, "hung"),
    (end_at_the_deadline, "failed"),
    (refuse_what_was_accepted, "failed"),
    (break_a_connection, "failed"),
    (fail_in_the_loss_of_one_replica, "failed"),
    (answer_with_the_signature_of_another_message, "wrong"),
    (answer_with_another_key, "wrong"),
    (give_a_wrong_signature_on_the_topic, "wrong"),
    (sign_what_no_client_asked, "unasked"),
    (sign_what_no_pod_sent, "unasked"),
    (sign_another_message_than_was_asked, "unasked"),
    (leave_a_signature_out_of_the_audit, "unaudited"),
    (audit_only_one_of_two_signatures, "unaudited"),
    (audit_another_message, "unaudited"),
    (commit_before_the_answer, "offset"),
    (commit_past_what_was_never_answered, "offset"),
    (leave_the_last_request_uncommitted, "unfinished"),
    (miss_a_record, "unread"),
    (keep_a_record_that_cannot_be_read, "unreadable"),
    (end_in_two_epochs, "epoch"),
    (end_with_a_replica_missing, "epoch"),
    (end_without_a_share, "epoch"),
    (end_with_two_keys, "epoch"),
)


@pytest.mark.parametrize(("plant", "rule"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_what_is_planted_is_found(run: Run, plant: Callable[[Run], None], rule: str) -> None:
    assert run.find() == {}
    plant(run)
    assert rule in run.find()


def test_a_killed_pod_excuses_a_broken_connection_and_nothing_else(run: Run) -> None:
    run.rows.append(Fault("kill", "api 0", STARTED_MS + 2_900, STARTED_MS + 3_500))
    break_a_connection(run)
    assert run.find() == {}
    run.swap(run.answer(3), replace(run.answer(3), pod=1))
    assert "failed" in run.find()


@pytest.mark.parametrize("way", ["single", "batch", "socket"])
def test_a_pod_that_was_told_to_end_breaks_no_connection(run: Run, way: str) -> None:
    run.rows.append(Fault("term", "api 0", STARTED_MS + 2_900, STARTED_MS + 3_500))
    run.rows = [replace(row, way=way) if isinstance(row, Ask) else row for row in run.rows]
    break_a_connection(run)
    assert "failed" in run.find()


def test_a_pod_may_turn_away_what_it_never_sent_to_the_signers(run: Run) -> None:
    run.rows.append(Ask(90, "single", (b"message 90",), 5_000, STARTED_MS))
    run.rows.append(Answer(90, 0, 0, 503, "overloaded", "request-90", b"", b"", 0, STARTED_MS + 5))
    assert run.find() == {}


def test_a_pod_that_is_told_to_end_breaks_no_connection_of_a_question(run: Run) -> None:
    run.rows.append(Fault("term", "api 0", STARTED_MS + 2_900, STARTED_MS + 3_500))
    break_a_connection(run)
    assert "failed" in run.find()


def test_a_broker_that_is_away_excuses_a_deadline_in_its_time_only(run: Run) -> None:
    end_at_the_deadline(run)
    away = Fault("kill", "broker", STARTED_MS + 2_900, STARTED_MS + 3_500)
    run.rows.append(away)
    assert run.find() == {}
    # What was passed over because no answer could be given is excused as well, once its time is over, whether somebody
    # who read it again answered it later or not.
    signed = run.evidence.given[3].result
    del run.evidence.given[3], run.evidence.audited[3]
    run.evidence.commits[3:] = [replace(each, at_ms=each.at_ms + 60_000) for each in run.evidence.commits[3:]]
    assert run.find() == {}
    run.evidence.given.append(Given("record-3", "request-3", signed, STARTED_MS + 120_000))
    assert "offset" not in run.find()
    run.evidence.given.pop()
    run.rows[run.rows.index(away)] = replace(away, from_ms=away.from_ms + 60_000, until_ms=away.until_ms + 60_000)
    assert {"failed", "offset"} <= run.find().keys()


def test_a_refusal_is_an_outcome_and_moves_the_offset(run: Run) -> None:
    run.evidence.given[3] = replace(
        run.evidence.given[3], result=Refused(RefusalCode.OVERLOADED, "busy", retryable=True)
    )
    assert "offset" not in run.find()


def test_of_many_findings_the_first_few_are_told_and_the_rest_counted(run: Run) -> None:
    run.rows = [row for row in run.rows if not isinstance(row, Answer)]
    lines = told(check(run.rows, run.evidence, SEATS))
    assert sum(line.startswith("lost: message") for line in lines) == 5
    assert "lost: and 3 more" in lines


def test_a_history_is_read_as_it_was_written(run: Run) -> None:
    rows = [*run.rows, history.Turned(1, 0, 5), Fault("kill", "broker", 1, 2), history.Refresh(409, "running", 3)]
    assert [history.from_line(history.to_line(row)) for row in rows] == rows


def test_the_commits_of_our_group_are_read_from_the_group_coordinators_log() -> None:
    def key(version: int, group: bytes, topic: bytes) -> bytes:
        return struct.pack(f">hh{len(group)}sh{len(topic)}si", version, len(group), group, len(topic), topic, 7)

    values = (
        struct.pack(">hqhq", 2, 42, 0, 9),
        struct.pack(">hqih", 3, 42, -1, 0) + struct.pack(">q", 9),
        struct.pack(">hqih3sq", 3, 42, -1, 3, b"why", 9),
        struct.pack(">hqiBqB", 4, 42, -1, 1, 9, 0),
    )
    for value in values:
        assert commits.parse(key(1, b"signer", b"signer.v1"), value, "signer", "signer.v1") == Commit(7, 42, 9)
    assert commits.parse(key(1, b"others", b"signer.v1"), value, "signer", "signer.v1") is None
    assert commits.parse(key(2, b"signer", b"signer.v1"), value, "signer", "signer.v1") is None
    assert commits.parse(key(1, b"signer", b"signer.v1"), b"", "signer", "signer.v1") is None
    with pytest.raises(ValueError, match="not an offset"):
        commits.parse(key(1, b"signer", b"signer.v1")[:9], value, "signer", "signer.v1")


def test_an_audit_that_does_not_hold_and_an_epoch_that_counts_twice_are_found() -> None:
    assert check_ceremonies(0, "", [1, 2, 3]) == []
    for found in (check_ceremonies(1, "does not hold", []), check_ceremonies(0, "", [1, 2, 2, 3])):
        assert [finding.rule for finding in found] == ["ceremony"]
