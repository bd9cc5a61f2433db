"""From what the clients saw and what the topics hold, to what is wrong with it. Pure; an empty answer is the proof.

rule          what a finding of it says
----          ------------------------------------------------------------------------------------------------------
lost          a question has no answer
duplicate     a question has two answers, or two questions have one
hung          an answer came long after its deadline, or never
failed        a question got no signature, and no fault of that time explains it
wrong         a signature does not verify for exactly the message that was asked, or names another key
unasked       a signature exists for a message that nobody asked
unaudited     a signature was given and the audit does not tell of it
offset        an offset was committed past a request that had no outcome
unfinished    requests that no offset has passed, when all was over
unread        a topic was not read from its first to its last record, so nothing is proved
unreadable    a record that cannot be decoded, or a dead letter
epoch         the replicas do not all hold a share of one epoch, or the key is not one and the same
ceremony      an audit of the ceremony log finds that something does not hold, or an epoch that was committed twice

What may go wrong, and why it is no finding: a question whose pod was killed has no outcome that anybody knows (and
``LOST`` for its answer); while the broker is away, and until everybody is ready again, an outcome may be 503 or 504;
503 (or 429) with one of ``PUSH_BACK`` is said at once, of a request that was never sent to the signers.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from re import compile as pattern

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from common.wire.messages import Signed
from tests.chaos.evidence import Evidence, Item, digest
from tests.chaos.history import HUNG, LOST, NOBODY, Answer, Ask, Fault, Final, Row, only

LATE_MS = 3_000
"""After its deadline a question is hung: pods answer 504 at it, and this is for a machine that has more to do."""
PUSH_BACK = frozenset({"overloaded", "in-flight-limit", "rate-limited"})
TAKEN_OFF = frozenset({(503, "shutting-down"), (503, "not-ready"), (504, "interrupted")})
SHOWN = 5
"""Findings of one rule that are told in full; the rest are counted."""
_PROBE = pattern(rb"signer-flow demo [0-9a-f]{16}")
"""What a demo signs by itself, before it says that it is ready."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    rule: str
    detail: str


def check(rows: Iterable[Row], evidence: Evidence, seats: int, late_ms: int = LATE_MS) -> list[Finding]:
    """Everything that is wrong with a run of ``seats`` replicas.

    Args:
        rows: The whole history.
        evidence: All records of all topics.
        seats: n.
        late_ms: So long after its deadline a question is hung.
    """
    rows = list(rows)
    asks = {ask.op: ask for ask in only(rows, Ask)}
    answers, faults, finals = only(rows, Answer), only(rows, Fault), only(rows, Final)
    keys = {final.public_key for final in finals}
    key = next(iter(keys)) if len(keys) == 1 else None
    return [
        *_outcomes(asks, answers),
        *_in_time(asks, answers, late_ms),
        *_excused(asks, answers, faults, {item.request_id for item in evidence.items}),
        *_signatures(asks, answers, evidence, key),
        *_asked(asks, answers, evidence, key),
        *_audit(evidence),
        *_offsets(evidence, faults),
        *_complete(evidence),
        *_epochs(evidence, finals, seats),
    ]


def told(findings: Sequence[Finding]) -> list[str]:
    """The findings as lines: the first few of each rule, and how many more there are."""
    lines: list[str] = []
    counts = Counter(finding.rule for finding in findings)
    for rule, count in counts.items():
        shown = [finding.detail for finding in findings if finding.rule == rule][:SHOWN]
        lines += [f"{rule}: {detail}" for detail in shown]
        if count > SHOWN:
            lines.append(f"{rule}: and {count - SHOWN} more")
    return lines


# --- what the clients saw --------------------------------------------------------------------------------------------


def check_ceremonies(code: int, said: str, epochs: Sequence[int]) -> list[Finding]:
    """What an audit of the ceremony log ended with: each record counted once, so that each epoch follows the last."""
    if code != 0:
        return [Finding("ceremony", f"the audit ended with {code}: {said}")]
    if list(epochs) != list(range(1, len(epochs) + 1)):
        return [Finding("ceremony", f"the epochs that were committed are {list(epochs)}")]
    return []


def _outcomes(asks: dict[int, Ask], answers: list[Answer]) -> Iterable[Finding]:
    got = Counter((answer.op, answer.item) for answer in answers)
    for ask in asks.values():
        for item in range(len(ask.messages)):
            count = got.pop((ask.op, item), 0)
            if count == 0:
                yield Finding("lost", f"message {item} of operation {ask.op} ({ask.way}) has no answer")
            elif count > 1:
                yield Finding("duplicate", f"message {item} of operation {ask.op} ({ask.way}) has {count} answers")
    for op, item in got:
        yield Finding("unasked", f"an answer to message {item} of operation {op}, which nobody asked")
    named = Counter(answer.request_id for answer in answers if answer.status == 200)
    for request_id, count in named.items():
        if count > 1:
            yield Finding("duplicate", f"request {request_id} was the answer to {count} questions")


def _in_time(asks: dict[int, Ask], answers: list[Answer], late_ms: int) -> Iterable[Finding]:
    for answer in answers:
        ask = asks.get(answer.op)
        if ask is None or answer.status == NOBODY:
            continue
        took = answer.at_ms - ask.at_ms
        if answer.status == HUNG or took > ask.timeout_ms + late_ms:
            yield Finding("hung", f"{_name(answer)} had {ask.timeout_ms} ms and took {took} ms")


def _excused(
    asks: dict[int, Ask], answers: list[Answer], faults: list[Fault], accepted: AbstractSet[str]
) -> Iterable[Finding]:
    for answer in answers:
        ask = asks.get(answer.op)
        if ask is None or answer.status in (200, HUNG):
            continue
        during = [fault for fault in faults if fault.from_ms <= answer.at_ms and ask.at_ms <= fault.until_ms]
        if not any(explains(fault, answer) for fault in during) and not _pushed_back(answer, accepted):
            what = {LOST: "its connection broke", NOBODY: "no pod took it"}.get(answer.status, f"{answer.status}")
            meanwhile = ", ".join(f"{fault.kind} {fault.target}" for fault in during) or "nothing"
            took = answer.at_ms - ask.at_ms
            yield Finding(
                "failed",
                f"{_name(answer)} ({ask.way}, at {ask.at_ms}): {what} {answer.code} after {took} ms; "
                f"meanwhile: {meanwhile}",
            )


def _pushed_back(answer: Answer, accepted: AbstractSet[str]) -> bool:
    return answer.status in (429, 503) and answer.code in PUSH_BACK and answer.request_id not in accepted


def explains(fault: Fault, answer: Answer) -> bool:
    """Whether ``answer`` may be without a signature because of ``fault``, which overlaps it in time."""
    if fault.target == "broker":
        return answer.status in (503, 504)
    if fault.target != f"api {answer.pod}":
        return False  # with n-t replicas away no request may fail
    if fault.kind == "kill":
        return answer.status == LOST or (answer.status, answer.code) in TAKEN_OFF
    # Told to end, a pod answers what it has taken, and says of what it has not that it may be asked elsewhere.
    return (answer.status, answer.code) in TAKEN_OFF


def _name(answer: Answer) -> str:
    request = f", request {answer.request_id}" if answer.request_id else ""
    return f"message {answer.item} of operation {answer.op}{request}"


# --- signatures ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _public(key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(key)


def _verifies(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        _public(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _signatures(
    asks: dict[int, Ask], answers: list[Answer], evidence: Evidence, key: bytes | None
) -> Iterable[Finding]:
    messages = {item.request_id: item.message for item in evidence.items}
    for answer in answers:
        ask = asks.get(answer.op)
        if answer.status != 200 or ask is None or answer.item >= len(ask.messages):
            continue
        message = ask.messages[answer.item]
        if key is not None and answer.public_key != key:
            yield Finding("wrong", f"{_name(answer)} was signed with another key, {answer.public_key.hex()}")
        elif not _verifies(answer.public_key, message, answer.signature):
            yield Finding("wrong", f"the signature for {_name(answer)} does not verify for its message")
        elif messages.get(answer.request_id) != message:
            yield Finding("unasked", f"{_name(answer)} was answered, and the signers were asked something else")


def _asked(asks: dict[int, Ask], answers: list[Answer], evidence: Evidence, key: bytes | None) -> Iterable[Finding]:
    wanted = {message for ask in asks.values() for message in ask.messages}
    by_request: dict[str, set[bytes]] = defaultdict(set)
    by_message: dict[bytes, set[str]] = defaultdict(set)
    for item in evidence.items:
        by_request[item.request_id].add(item.message)
        by_message[item.message].add(item.request_id)
    for request_id, found in by_request.items():
        if len(found) > 1:
            yield Finding("unasked", f"request {request_id} asked for {len(found)} messages")
    for message, requests in by_message.items():
        # Each message is asked once by one caller, who never asks again: a pod that made two requests of it doubled it.
        if len(requests) > 1 and message in wanted:
            yield Finding("duplicate", f"{_show(message)} became {len(requests)} requests")
    for given in evidence.given:
        if not isinstance(given.result, Signed):
            continue
        messages = by_request.get(given.request_id, set())
        if not messages:
            yield Finding("unasked", f"a signature was given for request {given.request_id}, which no pod sent")
        for message in messages:
            if message not in wanted and _PROBE.fullmatch(message) is None:
                yield Finding("unasked", f"{_show(message)} was signed, and no client asked for it")
            if key is not None and not _verifies(key, message, given.result.signature):
                yield Finding("wrong", f"what was answered to request {given.request_id} is no signature of it")


def _show(message: bytes) -> str:
    return f"message {message[:48]!r}"


def _audit(evidence: Evidence) -> Iterable[Finding]:
    messages = {item.request_id: item.message for item in evidence.items}
    entries = {(each.request_id, each.message_sha256, each.epoch, each.signers) for each in evidence.audited}
    for given in evidence.given:
        message = messages.get(given.request_id)
        if isinstance(given.result, Signed) and message is not None:
            signed = given.result
            if (given.request_id, digest(message), signed.epoch, signed.signers) not in entries:
                signers = ", ".join(map(str, signed.signers))
                yield Finding(
                    "unaudited", f"a signature for {given.request_id} by {signers} in epoch {signed.epoch} was given"
                )


# --- the topics ------------------------------------------------------------------------------------------------------


def _offsets(evidence: Evidence, faults: list[Fault]) -> Iterable[Finding]:
    answered: dict[tuple[str, str], int] = {}
    for given in evidence.given:
        name = (given.record_id, given.request_id)
        answered[name] = min(given.at_ms, answered.get(name, given.at_ms))
    trouble = [fault for fault in faults if fault.target == "broker"]
    done: dict[tuple[int, int], tuple[float, str]] = {}
    for item in evidence.items:
        # What may be passed over may be answered all the same, later, by whoever read it again.
        at = min(answered.get((item.record_id, item.request_id), float("inf")), _over(item, trouble))
        place = (item.partition, item.offset)
        done[place] = max(done.get(place, (0.0, "")), (at, item.request_id))
    commits: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for commit in evidence.commits:
        commits[commit.partition].append((commit.offset, commit.at_ms))
    for partition, found in commits.items():
        places = sorted(place for place in done if place[0] == partition)
        at, position, latest = 0.0, 0, ""
        for offset, committed_ms in sorted(found):
            while position < len(places) and places[position][1] < offset:
                at, latest = max((at, latest), done[places[position]])
                position += 1
            if at > committed_ms:
                when = "never answered" if at == float("inf") else f"answered {at - committed_ms:.0f} ms later"
                yield Finding("offset", f"{partition}/{offset} was committed past request {latest}, {when}")
                break
    for (topic, partition), end in evidence.ends.items():
        if topic == f"{evidence.prefix}signer.v1" and end and evidence.commits:
            last = max((offset for offset, _ in commits.get(partition, [])), default=0)
            if last < end:
                yield Finding("unfinished", f"partition {partition} ends at {end}, and {last} was committed")


def _over(item: Item, trouble: list[Fault]) -> float:
    """When a request without an answer may be passed over: never, unless the broker could not take the answer.

    A signer tries for five seconds; then the answer is given up, and by then the deadline of the request is over.
    """
    if any(fault.from_ms <= item.deadline_ms and item.created_ms <= fault.until_ms for fault in trouble):
        return item.deadline_ms
    return float("inf")


def _complete(evidence: Evidence) -> Iterable[Finding]:
    for (topic, partition), end in evidence.ends.items():
        found = evidence.read.get((topic, partition), [])
        if topic == f"{evidence.prefix}signer.v1.keys":  # compacted: gaps are its nature
            continue
        if len(found) != end or any(offset != place for place, offset in enumerate(found)):
            yield Finding("unread", f"{topic}/{partition} has {end} records, and {len(found)} were read")
    for topic, partition, offset in evidence.unreadable:
        yield Finding("unreadable", f"{topic}/{partition}/{offset} cannot be decoded")
    for letter in evidence.letters:
        yield Finding(
            "unreadable", f"{letter.topic}/{letter.partition}/{letter.offset} is a dead letter: {letter.reason}"
        )


def _epochs(evidence: Evidence, finals: list[Final], seats: int) -> Iterable[Finding]:
    if len({final.public_key for final in finals}) != 1:
        yield Finding("epoch", f"the pods name {len({final.public_key for final in finals})} public keys")
    keys = {record.public_key for record in evidence.key_records} | {final.public_key for final in finals}
    if len(keys) > 1:
        yield Finding("epoch", f"the key changed: {len(keys)} public keys were committed or named")
    epochs = {seat: holder.epoch for seat, holder in sorted(evidence.holders.items())}
    if set(epochs) != set(range(1, seats + 1)) or len(set(epochs.values())) > 1:
        yield Finding("epoch", f"the replicas ended in different epochs: {epochs}")
    for seat, holder in sorted(evidence.holders.items()):
        if not holder.holds_share or holder.phase:
            yield Finding("epoch", f"replica {seat} ended with {holder}")
    named = {final.epoch for final in finals} | {max((record.epoch for record in evidence.key_records), default=0)}
    if len(named | set(epochs.values())) > 1:
        yield Finding("epoch", f"the pods and the key records name epochs {sorted(named)}, the replicas {epochs}")
