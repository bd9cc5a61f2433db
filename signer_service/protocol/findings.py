"""What the fold has to tell: facts for logs and metrics, and blame with the record that proves it."""

from dataclasses import dataclass

from common.ids import Index, Offset
from signer_service.protocol.log_state import LogState
from signer_service.protocol.machine import Note


@dataclass(frozen=True, slots=True)
class Said:
    """A record of the log whose envelope was checked: which seat, where, and the bytes as they stand there."""

    seat: Index
    offset: Offset
    raw: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """A fact. ``culprit`` is a seat that did what no honest seat does, with ``evidence``; 0: nobody is to blame."""

    note: Note
    culprit: int = 0
    detail: str = ""
    evidence: tuple[bytes, ...] = ()


def fact(name: str, offset: Offset, **fields: str | float | bool) -> Finding:
    """A finding without blame."""
    return Finding(Note(name, {"offset": offset, **fields}))


def late(said: Said, record: object) -> Finding:
    """A record that came when its phase was over, or that belongs to no open attempt: kept, and counts for nothing."""
    note = Note("late-record", {"offset": said.offset, "seat": said.seat, "record": type(record).__name__})
    return Finding(note, evidence=(said.raw,))


def blame(name: str, said: Said, detail: str, *, culprit: Index | None = None) -> Finding:
    """A finding against the sender of ``said``, or against ``culprit``, whom ``said`` convicts."""
    guilty = said.seat if culprit is None else culprit
    return Finding(Note(name, {"offset": said.offset, "seat": guilty}), guilty, detail, (said.raw,))


def witnessed(name: str, said: Said, detail: str) -> Finding:
    """Something that a person should see, with the record that shows it, but that an honest seat may come to say."""
    return Finding(Note(name, {"offset": said.offset, "seat": said.seat}), 0, detail, (said.raw,))


@dataclass(frozen=True, slots=True)
class Folded:
    """The state after one record, and what there is to tell of it."""

    state: LogState
    findings: tuple[Finding, ...] = ()
