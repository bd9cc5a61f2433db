"""Which findings of the ceremony log are told, and what goes to the audit topic.

There goes all blame, with the records that prove it, and each fact that somebody may ask for later.
"""

from collections.abc import Iterable, Iterator

from common.ids import Epoch, Index, Instant
from common.wire.messages import AuditEntry, AuditEvent, AuditKind
from signer_service.protocol.findings import Finding
from signer_service.protocol.machine import ToAudit

_TOLD = frozenset(
    {
        "announce-again",
        "announce-waits",
        "ceremony-committed",
        "ceremony-ended",
        "ceremony-opened",
        "checkpoint-refused",
        "late-record",
        "log-forked",
        "protocol-version",
        "roster-accepted",
        "roster-alarm",
    }
)
"""Facts that go to the audit topic besides blame."""

_ALARMS = frozenset({"log-forked", "roster-alarm", "protocol-version", "checkpoint-refused"})
"""Facts that are told even in a replay."""

_EVIDENCE_BYTES = 256 * 1024


def worth_telling(findings: tuple[Finding, ...], *, live: bool) -> tuple[Finding, ...]:
    """What happened before this process began was told then, by those who were there: of a replay only alarms."""
    return findings if live else tuple(each for each in findings if each.note.name in _ALARMS)


def events(findings: Iterable[Finding], now: Instant) -> Iterator[ToAudit]:
    """The records for the audit topic."""
    for finding in findings:
        facts = finding.note.fields
        if not finding.culprit and finding.note.name not in _TOLD:
            continue
        entry = AuditEntry(
            kind=AuditKind.BLAME if finding.culprit else AuditKind.CEREMONY,
            at_ms=now,
            request_id="",
            principal="",
            key_id=str(facts.get("key_id", "")),
            epoch=Epoch(int(facts.get("epoch", 0))),
            message_sha256=b"",
            signers=(Index(finding.culprit),) if finding.culprit else (),
            code=finding.note.name,
            detail=(finding.detail or str(facts.get("reason", "")))[:512],
            # A larger one would not fit into an audit record; its offset says where it stands.
            evidence=tuple(each for each in finding.evidence if len(each) <= _EVIDENCE_BYTES),
        )
        yield ToAudit(AuditEvent(f"ceremony/{facts['offset']}", (entry,)))
