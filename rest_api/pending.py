"""What the table of pending requests is made of: what it knows of each, what it asks, and what it says must be done."""

from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from common.ids import BootId, Index, KeyId, RecordId
from common.wire.messages import Accepted, Refused, Signed, SignItem


class View(Protocol):
    """What the machine asks of the routing table. All answers are as of now."""

    def live(self) -> AbstractSet[Index]:
        """Seats that a request can be sent to: heard lately, not draining, with a partition of their own."""

    def suspected(self, seat: Index, boot: BootId) -> bool:
        """That start of that seat is silent for too long, or another start of it was heard."""

    def draining(self, seat: Index) -> bool:
        """The seat said that it is going away."""

    def owner(self, partition: int) -> tuple[Index, BootId] | None:
        """Who reads that partition, if a live seat claims it."""

    def dark(self, partition: int) -> bool:
        """Nobody has read that partition for so long that whatever is in it should go elsewhere."""

    def blocking(self, key_id: KeyId) -> int:
        """n - t + 1: with so many seats unwilling, fewer than t are left and nobody can sign."""

    def threshold(self, key_id: KeyId) -> int:
        """t: so many seats cannot all be lying, nor all wait for others to join in a ceremony."""


class End(Enum):
    """Ends of a request that are no answer of a signer."""

    DEADLINE = "deadline"
    ABANDONED = "abandoned"
    UNSENT = "unsent"


@dataclass(frozen=True, slots=True)
class Completed:
    """The one outcome of a request."""

    item: SignItem
    result: Signed | Accepted | Refused | End


@dataclass(frozen=True, slots=True)
class Resend:
    """Send this item again, to a seat that is not in ``exclude``; then call ``sent`` or ``put_back``."""

    item: SignItem
    exclude: frozenset[Index]
    reason: str


@dataclass(slots=True)
class Step:
    """What the shell must do now, and what it should count (``kind`` of the answers metric)."""

    completed: list[Completed] = field(default_factory=list)
    resend: list[Resend] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Send:
    """One record that the request went out in, and who has it now."""

    record_id: RecordId
    partition: int
    seat: Index | None
    boot: BootId | None
    open: bool = True


@dataclass(slots=True)
class Pending:
    """A request without an outcome. ``queued``: it is about to be sent."""

    item: SignItem
    expires_at: float
    sends: list[Send] = field(default_factory=list)
    refused: dict[Index, Refused] = field(default_factory=dict)
    queued: bool = True

    @property
    def time_s(self) -> float:
        """How long it may take."""
        return (self.item.deadline_ms - self.item.created_ms) / 1000

    def age(self, now: float) -> float:
        """How long it has taken, in seconds."""
        return now - (self.expires_at - self.time_s)
