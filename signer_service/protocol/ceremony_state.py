"""What a seat's ceremony machine is given, and what it is: events, timing, secrets, and what it may forget.

CeremonyState
  log       the public fold: the same at every replica
  secrets   per key: shares it holds, and what it made for the open attempt; durable before anything is sent
  soft      clocks, who is live, what was sent: gone with the process, and never missed
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from common.ids import Epoch, Index, Instant, KeyId, Offset, OpenId
from common.secret import Secret
from common.wire.messages import Announce, CeremonyRecord, Deal, KeyRecord, Open, Phase, Ready, Roster, Verdict
from signer_service.frost.group import Scalar
from signer_service.protocol.log_state import Attempt, LogState
from signer_service.protocol.log_wire import LogTrust
from signer_service.protocol.machine import InternalSigned, Peer, PeersChanged, RefreshAsked, Tick
from signer_service.protocol.view import EpochKeys

# --- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LogRecord:
    """The next record of the ceremony log. ``written_ms`` is the broker's time, if it has one; the fold ignores it."""

    offset: Offset
    raw: bytes
    written_ms: Instant | None = None


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """The end that the log had when this process started was reached: from now on records may be sent."""


@dataclass(frozen=True, slots=True)
class LogLost:
    """The log does not go on where the journal ends: sign on, hold no ceremonies, alarm."""


@dataclass(frozen=True, slots=True)
class RosterFile:
    """The roster as this process has it as a file. Fed at start, and whenever the file changes."""

    raw: bytes


@dataclass(frozen=True, slots=True)
class KeyCopySeen:
    """What stands on ``signer.v1.keys`` for this key; None: the record there cannot be believed."""

    key_id: KeyId
    record: KeyRecord | None


@dataclass(frozen=True, slots=True)
class SendFailed:
    """The broker did not take a record that was sent: it may be sent again."""

    record: CeremonyRecord


@dataclass(frozen=True, slots=True)
class Hears:
    """Whether this seat hears what is said on the broker. While it does not, it cannot know who is late."""

    hears: bool


Event: TypeAlias = (
    LogRecord
    | CaughtUp
    | LogLost
    | RosterFile
    | RefreshAsked
    | KeyCopySeen
    | SendFailed
    | Hears
    | PeersChanged
    | InternalSigned
    | Tick
)


@dataclass(frozen=True, slots=True)
class CeremonyTiming:
    """How patient this seat is, on its own clock. All in milliseconds. The fold knows none of it."""

    patience_ms: int = 5_000
    """Until a seat votes to close a phase; doubles with each attempt of a key."""
    patience_max_ms: int = 300_000
    absent_holder_ms: int = 30_000
    """Least patience while a holder of the current epoch has not announced: it could be cut off from the key."""
    heal_delay_ms: int = 600_000
    """How long a HealRequest has to stand unopposed: time for the seat it names to say that it is not its own."""
    refresh_interval_ms: int = 86_400_000
    min_interval_ms: int = 60_000
    """Least time between two Opens of this seat for one key: nobody can burn nonce pools by opening."""
    drain_window_ms: int = 2_000
    """How long sessions of the epoch before may go on after a commit."""
    retry_ms: int = 250
    """After the broker refused a record, until it is sent again."""
    resend_ms: int = 5_000
    """A record that is not seen in the log so long after it was sent is sent again."""
    takeover_ms: int = 1_500
    """The lowest live seat acts first; each next one waits so much longer."""
    republish_ms: int = 3_600_000
    """How often the copy of a key record is written again."""
    republish_doubt_ms: int = 30_000
    """The same while the log is lost or forked."""


# --- secrets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeldShare:
    """s_j of one epoch, with its public side Y_j = s_j * B."""

    epoch: Epoch
    share: Secret[Scalar]
    verification_share: bytes


@dataclass(frozen=True, slots=True)
class OwnPart:
    """What this seat made for one attempt. Records are kept as made, so that a restart sends the same bytes.

    ``transport`` (x_j) goes when the share is staged. No polynomial and no ephemeral scalar is ever here: they are gone
    before the Deal is sent. A seat that leaves the committee deals without an Announce of its own.
    """

    open_id: OpenId
    announce: Announce | None = None
    transport: Secret[Scalar] | None = None
    deal: Deal | None = None
    verdict: Verdict | None = None
    staged: HeldShare | None = None
    ready: Ready | None = None


@dataclass(frozen=True, slots=True)
class KeySecrets:
    """All that this seat keeps of one key. ``ever_held``: it never takes part in another generation of this key."""

    key_id: KeyId
    held: tuple[HeldShare, ...] = ()
    part: OwnPart | None = None
    ever_held: bool = False

    def of_epoch(self, epoch: Epoch) -> HeldShare | None:
        """A share of an epoch with this number, if there is one; of which history of the log is left open."""
        return next((each for each in self.held if each.epoch == epoch), None)

    def find(self, epoch: Epoch, verification_share: bytes | None) -> HeldShare | None:
        """The share of this epoch with that public side, if there is one."""
        return next((h for h in self.held if (h.epoch, h.verification_share) == (epoch, verification_share)), None)


# --- what may be forgotten -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Since:
    """The phase that a key's attempt is in, and since when by this seat's clock; and since when enough are Ready.

    Time in which this seat was deaf does not count: ``at`` is later by that. ``grace_ms`` is how much later it is for
    what was said meanwhile to arrive.
    """

    open_id: OpenId
    phase: Phase
    at: Instant
    attested: Instant | None = None
    grace_ms: int = 0


@dataclass(frozen=True, slots=True)
class Anchor:
    """One key's newest record, and its attempt as it stood when enough seats had said Ready (``ceremony_place``)."""

    record: KeyRecord
    roster: Roster
    attempt: Attempt

    @property
    def position(self) -> tuple[Offset, bytes]:
        """Offset of the Ready that made them enough, and the running hash there."""
        return self.record.log_offset, self.record.log_hash


@dataclass(frozen=True, slots=True)
class Anchoring:
    """Reading began at key records that are not proven yet.

    ``before`` is where it would have begun otherwise; ``waiting`` are keys whose record stands further on, ``unproven``
    those of which only the commit was not read yet; ``votes`` are seats that voted against one.
    """

    before: LogState
    waiting: tuple[Anchor, ...]
    unproven: tuple[Anchor, ...]
    votes: Mapping[KeyId, frozenset[Index]] = field(default_factory=dict)
    refuted: bool = False


@dataclass(frozen=True, slots=True)
class Draining:
    """The epoch before the current one, while its sessions may end."""

    keys: EpochKeys
    until: Instant


@dataclass(frozen=True, slots=True)
class Soft:
    """Clocks and hearsay. A restart begins with none of it."""

    caught_up: bool = False
    lost: bool = False
    deaf_since: Instant | None = None
    """What others say does not arrive: nobody is voted late."""
    told_deaf: bool = False
    live: Mapping[Index, Peer] = field(default_factory=dict)
    roster_raw: bytes = b""
    roster: Roster | None = None
    since: Mapping[KeyId, Since] = field(default_factory=dict)
    ended: Mapping[KeyId, tuple[Epoch, int, Instant]] = field(default_factory=dict)
    """Last ended attempt of each key (epoch, number), and when this seat saw it end."""
    heals: Mapping[KeyId, Mapping[Index, tuple[Offset, Instant | None]]] = field(default_factory=dict)
    """HealRequests that stand, and since when nothing contradicts each (None: its own seat's beats do)."""
    asked: Mapping[KeyId, tuple[Epoch, bytes]] = field(default_factory=dict)
    """Refresh requests that were accepted, with the epoch they want to leave."""
    sent: Mapping[tuple[str, ...], Instant] = field(default_factory=dict)
    signatures: Mapping[OpenId, bytes] = field(default_factory=dict)
    draining: Mapping[KeyId, Draining] = field(default_factory=dict)
    published: Mapping[KeyId, tuple[Epoch, Instant]] = field(default_factory=dict)
    """Of which epoch the copy on ``signer.v1.keys`` is, and when it was seen or written."""
    rivals: Mapping[KeyId, tuple[Epoch, Instant]] = field(default_factory=dict)
    """Where another record of our epoch stood there, and when it was last seen."""
    current_since: Mapping[KeyId, tuple[Epoch, Instant]] = field(default_factory=dict)
    anchoring: Anchoring | None = None
    """Reading began at key records that are not proven yet: nothing is sent, signed, written or erased."""


@dataclass(frozen=True, slots=True)
class CeremonyState:
    """One seat's ceremony machine. Immutable.

    ``committed`` is when each key's epoch was committed, by broker time. ``opens`` are Opens of this seat that are not
    in the log yet, ``opened`` when it last made one: durable, so that no restart makes it open more often.
    """

    seat: Index
    trust: LogTrust
    timing: CeremonyTiming
    log: LogState = field(default_factory=LogState)
    secrets: Mapping[KeyId, KeySecrets] = field(default_factory=dict)
    committed: Mapping[KeyId, Instant] = field(default_factory=dict)
    opens: Mapping[KeyId, Open] = field(default_factory=dict)
    opened: Mapping[KeyId, Instant] = field(default_factory=dict)
    soft: Soft = field(default_factory=Soft)

    def of_key(self, key_id: KeyId) -> KeySecrets:
        """This seat's secrets of a key; empty where it has none."""
        return self.secrets.get(key_id, KeySecrets(key_id))

    def with_soft(self, **changes: object) -> "CeremonyState":
        """The same with these fields of ``soft`` changed."""
        return replace(self, soft=replace(self.soft, **changes))  # type: ignore[arg-type]

    @property
    def awaits_new_log(self) -> bool:
        """Whether the operator has declared a newer log than what was read so far belongs to.

        What stands before its roster may be old records that anybody has put there: nothing is done on their word.
        """
        file, known = self.soft.roster, self.log.roster
        return file is not None and (known is None or known.log_generation < file.log_generation)

    @property
    def in_doubt(self) -> bool:
        """Whether the log is not to be written to until a person has done something about it."""
        return self.soft.lost or self.log.halted_by > 0 or self.log.forked

    @property
    def may_bring_roster(self) -> bool:
        """Whether a newer roster may be appended to the log."""
        return self.soft.caught_up and not (self.soft.lost or self.log.halted_by)

    @property
    def may_speak(self) -> bool:
        """Whether the log may be written to: all read, and no doubt about it. Signing does not depend on it."""
        return self.soft.caught_up and not self.in_doubt
