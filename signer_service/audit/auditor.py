"""Follows the ceremony log record by record: ``protocol.fold`` judges, this keeps what there is to tell and re-checks.

Pure: records in, a report out. The first thing that does not hold is kept; reading goes on, so that the report has all
there is, but what comes after a fork or a failed check is told as the fold sees it and proves nothing more.

What does not hold, besides the codes of ``recheck``:

==================  ===================================================================================================
empty-log           there is no record
log-start           the first record is not at offset 0: what came before is gone
log-gap, log-order  an offset is left out; comes again, or too late
no-roster           no record is a roster that this operator key signed: another operator's log, or another system's
log-forked          a seat has signed that it saw another history: records were changed, left out, moved or put in
roster-alarm        the operator's key signed rosters that contradict each other
checkpoint-refused  a key record from which a new log goes on does not stand for itself
protocol-version    the log goes on by rules that this program does not know
key-record-foreign  a key record that anybody would believe belongs to another history of this log
==================  ===================================================================================================

A fork that the operator settled with a roster of the next ``log_generation`` is told and held against nobody.
"""

import math
from collections import Counter
from dataclasses import replace
from typing import Final

from common.errors import BadInput
from common.ids import Index, KeyId, Offset, OpenId
from common.wire.messages import (
    Announce,
    CeremonyRecord,
    Deal,
    Envelope,
    Erased,
    KeyRecord,
    Open,
    PhaseVote,
    Ready,
    Roster,
    Verdict,
)
from common.wire.signatures import ENVELOPE_DOMAIN, is_signed_by
from signer_service.audit import recheck
from signer_service.audit.chain import Chain
from signer_service.audit.facts import (
    DoesNotHold,
    Ended,
    EpochFacts,
    KeyFacts,
    Logged,
    Problem,
    Remark,
    Report,
    RosterFacts,
)
from signer_service.audit.recheck import Heard, Source
from signer_service.audit.told import WORDS, what_it_was, who_did_not_deal
from signer_service.protocol.findings import Finding
from signer_service.protocol.fold import equal_opens, fold
from signer_service.protocol.fold_roster import begins_anew
from signer_service.protocol.log_state import Attempt, KeyLog, LogState, identities
from signer_service.protocol.log_wire import LogTrust

MAX_REMARKS: Final = 1_000
"""Kept one by one; anybody with access to the broker can write rubbish without end. All are counted."""

_PROBLEMS: Final = {
    "roster-alarm": "the operator's key signed a roster that contradicts an earlier one",
    "checkpoint-refused": "a key record that the operator's roster goes on from does not stand for itself",
    "protocol-version": "the log goes on by rules that this program does not know: use a newer one",
}
_UNHEARD: Final = frozenset({"garbage-on-log", "unknown-sender", "foreign-roster"})
_COUNTED_ONLY: Final = frozenset({"late-record", "idle-open", "stale-record"})


class Auditor:
    """Feed it the log with ``take``, in order and from the beginning; ``report`` says what was found."""

    def __init__(self, trust: LogTrust, operator_key: bytes) -> None:
        self._trust = trust
        self._chain = Chain()
        self._source = Source(operator_key, trust.topic, self._chain.at)
        self._log = LogState()
        self._stopped = False
        self._problem: Problem | None = None
        self._rosters: list[RosterFacts] = []
        self._epochs: dict[KeyId, list[EpochFacts]] = {}
        self._records: dict[KeyId, KeyRecord] = {}
        self._ended: dict[KeyId, list[Ended]] = {}
        self._heard: dict[OpenId, Heard] = {}
        self._remarks: list[Remark] = []
        self._counts: Counter[str] = Counter()

    def stop(self, problem: Problem) -> None:
        """Nothing more can be read: the file is damaged, or the reading was refused."""
        self._stopped = True
        self._keep(problem)

    def _keep(self, problem: Problem) -> None:
        if self._problem is None:
            self._problem = problem

    # --- one record --------------------------------------------------------------------------------------------------

    def take(self, logged: Logged) -> None:
        """Take the next record. Never raises for what stands in it."""
        if self._stopped:
            return
        expected = len(self._chain)
        if logged.offset != expected:
            self.stop(_misplaced(logged.offset, expected))
            return
        before = self._log
        offset, raw = Offset(logged.offset), logged.value
        self._chain.add(offset, raw)
        folded = fold(before, offset, raw, self._trust)
        self._log = folded.state
        envelope, record = self._decode(raw)
        for finding in folded.findings:
            self._find(finding, record)
        names = {finding.note.name for finding in folded.findings}
        if envelope is not None and record is not None and not names & _UNHEARD:
            self._chain.follow(envelope, offset, forked="log-forked" in names, roster=isinstance(record, Roster))
            self._hear(Index(envelope.index), offset, raw, record)
        elif envelope is not None and "unknown-sender" in names and self._of_roster(envelope, raw):
            # Not its turn to say this, as the log is now; what the seat had seen it signed all the same. So the Erased
            # after a commit that was changed tell of it.
            self._chain.follow(envelope, offset, forked=False, roster=False)
        try:
            self._changes(before, logged, envelope, record, folded.findings)
            if isinstance(record, KeyRecord) and "late-record" in names:
                self._uncounted(record)
        except DoesNotHold as found:
            self._keep(replace(found.problem, offset=logged.offset))
        if folded.state.halted_by:
            self._stopped = True

    def _decode(self, raw: bytes) -> tuple[Envelope | None, CeremonyRecord | None]:
        try:
            envelope = self._trust.wire.decode_envelope(raw)
            return envelope, self._trust.wire.decode_record(envelope.payload)
        except BadInput:
            return None, None

    def _of_roster(self, envelope: Envelope, raw: bytes) -> bool:
        """Whether the seat that stands in the envelope, as the newest roster has it, signed it."""
        seats = identities(self._log.roster) if self._log.roster is not None else {}
        identity = seats.get(Index(envelope.index))
        return identity is not None and is_signed_by(ENVELOPE_DOMAIN, raw, identity)

    def _find(self, finding: Finding, record: CeremonyRecord | None) -> None:
        name, offset = finding.note.name, int(finding.note.fields["offset"])
        if name in _PROBLEMS:
            code = finding.note.fields.get("code") or finding.note.fields.get("version")
            self._keep(Problem(name, f"{_PROBLEMS[name]} ({code})", offset))
        elif name in _COUNTED_ONLY:
            self._counts[name] += 1
        elif name in _UNHEARD:
            self._remark(Remark(offset, name, str(finding.note.fields.get("code", "signed by nobody who may say it"))))
        elif finding.detail and name != "log-forked":
            self._tell(finding, name, offset, record)

    def _tell(self, finding: Finding, name: str, offset: int, record: CeremonyRecord | None) -> None:
        seat = finding.culprit or int(finding.note.fields.get("seat", 0))
        remark = Remark(offset, name, f"{WORDS.get(name, name)}: {finding.detail}", seat)
        self._remark(remark)
        heard = self._heard.get(getattr(record, "open_id", OpenId(b"")))
        if heard is not None:
            (heard.blamed if finding.culprit else heard.witnessed).append(remark)

    def _remark(self, remark: Remark) -> None:
        self._counts[remark.what] += 1
        if len(self._remarks) < MAX_REMARKS:
            self._remarks.append(remark)

    # --- what was said -----------------------------------------------------------------------------------------------

    def _hear(self, seat: Index, offset: Offset, raw: bytes, record: CeremonyRecord) -> None:
        if isinstance(record, Erased):
            self._erased(seat, offset, record)
        if not isinstance(record, Announce | Deal | Verdict | Ready | PhaseVote):
            return
        heard = self._heard.get(record.open_id)
        if heard is None:
            return
        if isinstance(record, Announce):
            heard.announces.append((seat, record))
        elif isinstance(record, Deal):
            heard.deals.append((seat, record))
        elif isinstance(record, Verdict):
            heard.verdicts.append((seat, record))
        elif isinstance(record, Ready):
            heard.ready.setdefault(raw, offset)

    def _erased(self, seat: Index, offset: Offset, said: Erased) -> None:
        epochs = self._epochs.get(said.key_id, [])
        for number, each in enumerate(epochs):
            over = said.epoch == each.epoch < epochs[-1].epoch
            if over and seat in each.verification_shares and seat not in each.erased:
                epochs[number] = replace(each, erased={**each.erased, seat: offset})

    def _uncounted(self, record: KeyRecord) -> None:
        """A key record that this log does not count, and that anybody who is shown it alone would believe."""
        try:
            recheck.check_belief(record, None, self._source)
        except DoesNotHold:
            return
        under_way = (key.attempt.open_id for key in self._log.keys.values() if key.attempt is not None)
        # Of one that is under way it is rather the log that was changed since: that has a name of its own.
        if record.open_id not in under_way and self._chain.at(record.log_offset) != record.log_hash:
            raise DoesNotHold(
                "key-record-foreign",
                f"a key record of {record.key_id}, epoch {record.epoch}, stands for itself and was made on another "
                "history of this log",
            )

    # --- what changed ------------------------------------------------------------------------------------------------

    def _changes(
        self,
        before: LogState,
        logged: Logged,
        envelope: Envelope | None,
        record: CeremonyRecord | None,
        findings: tuple[Finding, ...],
    ) -> None:
        after = self._log
        roster = after.roster
        if roster is not None and roster is not before.roster:
            self._new_roster(before.roster, roster, Offset(logged.offset), logged.value)
        for key_id, key in after.keys.items():
            was = before.keys.get(key_id, KeyLog(key_id))
            if key is was:
                continue
            committed = key.current is not None and key.current.offset == logged.offset and key.current != was.current
            over = was.attempt is not None and (key.attempt is None or key.attempt.open_id != was.attempt.open_id)
            if was.attempt is not None and over and not committed:
                self._attempt_ended(was.attempt, logged.offset, findings)
            if committed:
                self._committed(was.attempt, key, logged)
            elif key.current is not None and was.current is not None and key.current.ready != was.current.ready:
                epochs = self._epochs[key_id]
                epochs[-1] = replace(epochs[-1], ready=key.current.ready)
            if key.attempt is not None and (was.attempt is None or was.attempt.open_id != key.attempt.open_id):
                self._opened(was, key.attempt, envelope, record)

    def _new_roster(self, old: Roster | None, new: Roster, offset: Offset, raw: bytes) -> None:
        seats = tuple(seat.index for seat in new.seats)
        keys = tuple((key.key_id, key.threshold) for key in new.keys)
        self._rosters.append(RosterFacts(offset, new.version, new.log_generation, seats, keys))
        if begins_anew(old, new):
            self._chain.begin_anew(offset, raw)
        if self._chain.fork is not None and old is not None and new.log_generation > old.log_generation:
            settled = f"{self._chain.fork.detail}; settled by the operator at offset {offset}"
            self._remark(Remark(self._chain.fork.offset or 0, "log-forked", settled))
            self._chain.fork = None

    def _opened(self, was: KeyLog, attempt: Attempt, envelope: Envelope | None, record: CeremonyRecord | None) -> None:
        self._heard[attempt.open_id] = Heard()
        if envelope is None or not isinstance(record, Open):
            raise DoesNotHold("open-id", "an attempt was opened by something else than an Open")
        opens = [*equal_opens(was, record), (Index(envelope.index), record)]
        self._heard[attempt.open_id].reasons = tuple(dict.fromkeys(said.reason.value for _, said in opens))
        recheck.check_opening(attempt.open_id, attempt.old.threshold, opens)

    def _attempt_ended(self, attempt: Attempt, offset: int, findings: tuple[Finding, ...]) -> None:
        heard = self._heard.pop(attempt.open_id, Heard())
        told = (each.note.fields for each in findings if each.note.name == "ceremony-ended")
        # A roster of a new log generation ends attempts without a word: what was before it counts no more.
        said = next((each for each in told if each["key_id"] == attempt.key_id), {})
        ended = Ended(
            attempt.key_id,
            attempt.from_epoch,
            attempt.number,
            Offset(offset),
            str(said.get("phase", attempt.phase.value)),
            str(said.get("reason", "a new log generation")),
            tuple(Index(int(seat)) for seat in str(said.get("awaited", "")).split(",") if seat),
            tuple(heard.blamed),
        )
        self._ended.setdefault(attempt.key_id, []).append(ended)

    def _committed(self, attempt: Attempt | None, key: KeyLog, logged: Logged) -> None:
        commit = key.current
        if commit is None:
            return
        record, previous = commit.record, self._records.get(key.key_id)
        heard = self._heard.pop(record.open_id, Heard())
        self._records[key.key_id] = record
        expected = commit.expected
        qualified = expected.qualified if expected is not None else ()
        checkpoint = attempt is None or attempt.open_id != record.open_id
        what = "checkpoint" if checkpoint or attempt is None else what_it_was(attempt, commit.shares)
        facts = EpochFacts(
            key_id=key.key_id,
            epoch=record.epoch,
            what=what,
            reasons=heard.reasons,
            attempt=attempt.number if attempt is not None and not checkpoint else 0,
            opened=attempt.opened if attempt is not None and not checkpoint else None,
            committed=commit.offset,
            written_ms=logged.written_ms,
            threshold=record.threshold,
            seats=tuple(sorted(commit.committee.identities)),
            public_key=record.public_key,
            qualified=qualified,
            no_deal=who_did_not_deal(attempt, qualified, (*heard.witnessed, *heard.blamed))
            if attempt is not None and not checkpoint
            else (),
            verification_shares=commit.shares,
            attested=self._attested(record),
            ready=commit.ready,
            transcript_hash=expected.transcript_hash if expected is not None else b"",
            verification_hash=expected.verification_hash if expected is not None else b"",
        )
        self._epochs.setdefault(key.key_id, []).append(facts)
        if checkpoint or attempt is None:
            # Another log's commit: the fold has checked that it stands for itself, and nothing here can say more.
            recheck.check_belief(record, previous, self._source)
        else:
            recheck.recheck(record, attempt, heard, previous, self._source)

    def _attested(self, record: KeyRecord) -> tuple[Index, ...]:
        return tuple(sorted(Index(self._trust.wire.decode_envelope(raw).index) for raw in record.attestations))

    # --- the end -----------------------------------------------------------------------------------------------------

    def report(self) -> Report:
        """What was found so far."""
        problems = [each for each in (self._problem, self._chain.fork, self._nothing()) if each is not None]
        keys = []
        for key_id in sorted({*self._log.keys, *self._epochs}):
            key = self._log.keys.get(key_id)
            phase = key.attempt.phase.value if key is not None and key.attempt is not None else ""
            epochs, ended = tuple(self._epochs.get(key_id, ())), tuple(self._ended.get(key_id, ()))
            keys.append(KeyFacts(key_id, epochs, ended, phase))
        return Report(
            topic=self._trust.topic,
            operator_key=self._source.operator_key,
            records=len(self._chain),
            end=len(self._chain) - 1,
            running_hash=self._chain.last,
            rosters=tuple(self._rosters),
            keys=tuple(keys),
            remarks=tuple(self._remarks),
            counts=dict(self._counts),
            problem=min(problems, key=lambda each: math.inf if each.offset is None else each.offset, default=None),
        )

    def _nothing(self) -> Problem | None:
        if self._rosters or self._problem is not None:
            return None
        if not len(self._chain):
            return Problem("empty-log", "there is no record on this log", None)
        foreign = next((each for each in self._remarks if each.what == "foreign-roster"), None)
        if foreign is None:
            return Problem("no-roster", "no record on this log is a roster", None)
        return Problem(
            "no-roster",
            "no roster on this log is signed by this operator key: it is another operator's log, or the wrong key file",
            foreign.offset,
        )


def _misplaced(found: int, expected: int) -> Problem:
    if expected == 0:
        return Problem("log-start", f"the log begins at offset {found}, not 0: what came before is gone", found)
    if found > expected:
        return Problem("log-gap", f"offset {found} follows {expected - 1}: what was between is left out", found)
    return Problem("log-order", f"offset {found} follows {expected - 1}: records are not in order", found)
