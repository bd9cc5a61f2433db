"""What an audit finds, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.ids import Epoch, Index, KeyId, Offset


@dataclass(frozen=True, slots=True)
class Logged:
    """One record of the log. ``written_ms`` is the broker's word (Unix milliseconds), if there is one."""

    offset: int
    written_ms: int | None
    value: bytes


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not hold: a stable code, one line for a person, and where."""

    code: str
    detail: str
    offset: int | None


class DoesNotHold(Exception):
    """Carries a ``Problem`` to whoever reports it."""

    def __init__(self, code: str, detail: str, offset: int | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.problem = Problem(code, detail, offset)


@dataclass(frozen=True, slots=True)
class Remark:
    """Worth knowing, and no reason to doubt the log: rubbish that was passed over, a seat that was blamed."""

    offset: int
    what: str
    detail: str
    seat: int = 0


@dataclass(frozen=True, slots=True)
class NoDeal:
    """A seat that might have dealt and is not in QUAL, and why; ``offset`` of what convicts it, if anything does."""

    seat: Index
    why: str
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class EpochFacts:
    """An epoch that was re-checked.

    ``what``: generate, refresh, heal, grow, shrink, change, or checkpoint (the operator says from which key record a
    new log goes on: this log does not show how that epoch came to be, and only its key record was checked).
    ``ready`` are the seats that proved their new share, ``attested`` those in the key record. ``erased`` is where each
    holder said that its share of this epoch is gone.
    """

    key_id: KeyId
    epoch: Epoch
    what: str
    reasons: tuple[str, ...]
    attempt: int
    opened: Offset | None
    committed: Offset
    written_ms: int | None
    threshold: int
    seats: tuple[Index, ...]
    public_key: bytes
    qualified: tuple[Index, ...]
    no_deal: tuple[NoDeal, ...]
    verification_shares: Mapping[Index, bytes]
    attested: tuple[Index, ...]
    ready: tuple[Index, ...]
    transcript_hash: bytes
    verification_hash: bytes
    erased: Mapping[Index, Offset] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[Index, ...]:
        """Holders that have not said Erased."""
        return tuple(seat for seat in sorted(self.verification_shares) if seat not in self.erased)

    @property
    def can_be_stolen(self) -> bool:
        """Whether t holders may still have their shares."""
        return len(self.missing) >= self.threshold


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that came to nothing."""

    key_id: KeyId
    from_epoch: Epoch
    number: int
    offset: Offset
    phase: str
    reason: str
    awaited: tuple[Index, ...]
    blamed: tuple[Remark, ...]


@dataclass(frozen=True, slots=True)
class RosterFacts:
    """A roster that counts from ``offset`` on."""

    offset: Offset
    version: int
    generation: int
    seats: tuple[Index, ...]
    keys: tuple[tuple[KeyId, int], ...]


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """One key: its epochs, oldest first, and what else there is of it. ``phase``: of the open attempt, or empty."""

    key_id: KeyId
    epochs: tuple[EpochFacts, ...]
    ended: tuple[Ended, ...]
    phase: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. ``problem`` is the first thing on the log that does not hold; None: everything does.

    ``remarks`` are at most ``auditor.MAX_REMARKS``; ``counts`` has how many of each kind there were.
    """

    topic: str
    operator_key: bytes
    records: int
    end: int
    running_hash: bytes
    rosters: tuple[RosterFacts, ...]
    keys: tuple[KeyFacts, ...]
    remarks: tuple[Remark, ...]
    counts: Mapping[str, int]
    problem: Problem | None
