"""The public state of the ceremony log: what every replica that has read it up to one offset knows, and all the same.

Immutable values, no secrets. ``fold`` makes the next one of each record; ``snapshot`` writes it down.

    LogState   position and running hash, newest roster, alarms
      KeyLog     one key: its current epoch, Opens that wait for more, the open attempt, who asks to be healed
        Commit     an epoch that counts: its KeyRecord, where it stands, who has said Ready
        Attempt    a ceremony under way, in one of five phases
          Made       what came out when the Verdicts were in: QUAL, group key, Y' of each seat, the Ready to be said
        PastEpoch  an older epoch, until its holders have said Erased
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from common.ids import NO_OFFSET, Epoch, Index, KeyId, Offset, OpenId
from common.quorum import commit_quorum, erase_quorum
from common.wire.messages import CeremonyKind, KeyRecord, Open, Phase, Ready, Roster, RosterKey
from common.wire.transcript import LOG_START_HASH

PROTOCOL_VERSION: Final = 1
"""Rules by which this program folds. A roster that demands more stops its ceremonies until it is upgraded."""

WINDOW: Final = 1024
"""How many last running hashes are kept. A record whose sender had seen less than that does not count."""

HASH_PREFIX: Final = 32
"""Bytes kept of each running hash: a collision would take 2**128 work."""

ENVELOPE_BYTES: Final = 512
"""Most that an envelope adds to what is in it (an honest one stays below 450)."""

MAX_PAST: Final = 8
"""Older epochs whose erasure is followed, per key."""


@dataclass(frozen=True, slots=True)
class Committee:
    """Seats and the keys they sign with, and how many of them it takes."""

    threshold: int
    identities: Mapping[Index, bytes]

    @property
    def size(self) -> int:
        """n."""
        return len(self.identities)

    @property
    def commit_quorum(self) -> int:
        """q: votes that close a phase, Ready records that commit."""
        return commit_quorum(self.threshold, self.size)

    @property
    def erase_quorum(self) -> int:
        """r: seats that have said that they saw the commit, before old shares are erased."""
        return erase_quorum(self.threshold, self.size)


@dataclass(frozen=True, slots=True)
class Commit:
    """An epoch that counts. ``expected`` is the Ready that its seats say (with no proof in it); late ones count.

    ``seen``: of the seats that are Ready, those that have signed that they saw the attempt committed, too. That binds
    attempt and seat and not the place: a broker may have shown it to them at another offset, or in another log.
    """

    record: KeyRecord
    offset: Offset
    committee: Committee
    expected: Ready | None
    ready: tuple[Index, ...]
    seen: tuple[Index, ...] = ()

    @property
    def epoch(self) -> Epoch:
        """The epoch."""
        return self.record.epoch

    @property
    def shares(self) -> dict[Index, bytes]:
        """Y_j of each holder."""
        return {share.index: share.element for share in self.record.verification_shares}


@dataclass(frozen=True, slots=True)
class PastEpoch:
    """Holders of an older epoch and the keys they sign with, and which of them have said that they erased it."""

    epoch: Epoch
    threshold: int
    holders: Mapping[Index, bytes]
    erased: tuple[Index, ...] = ()

    @property
    def can_be_stolen(self) -> bool:
        """Whether t holders may still have their shares: until n-t+1 of them have said Erased."""
        return len(self.holders) - len(self.erased) >= self.threshold


@dataclass(frozen=True, slots=True)
class Announced:
    """A seat takes part: X_j, and whether it proved that it holds a share of the current epoch."""

    transport_key: bytes
    proved: bool
    digest: bytes


@dataclass(frozen=True, slots=True)
class Dealt:
    """A Deal that is well formed and proved. Points were checked."""

    commitments: tuple[bytes, ...]
    ephemeral_key: bytes
    sealed: Mapping[Index, bytes]


@dataclass(frozen=True, slots=True)
class Made:
    """What an attempt came to. ``shares``: Y'_j of each recipient but those where it is the identity."""

    qualified: tuple[Index, ...]
    public_key: bytes
    shares: Mapping[Index, bytes]
    expected: Ready


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at one ceremony. ``old`` deals, ``new`` receives, both vote; in a key generation they are the same.

    ``newcomers`` are seats whose identity the current epoch's roster does not have; ``heal_seat`` lost its share
    (0: none).
    ``deals`` are those not known to be bad; ``dealt`` are digests of each seat's first Deal, good or bad; ``out`` are
    dealers that do not count. ``votes`` are those to close the present phase. ``ready`` is in log order, each with the
    envelope as it stands in the log; ``position`` is where the one stands that made them enough.
    """

    open_id: OpenId
    key_id: KeyId
    kind: CeremonyKind
    from_epoch: Epoch
    number: int
    opened: Offset
    old: Committee
    new: Committee
    old_shares: Mapping[Index, bytes]
    newcomers: tuple[Index, ...] = ()
    heal_seat: int = 0
    phase: Phase = Phase.ANNOUNCE
    announced: Mapping[Index, Announced] = field(default_factory=dict)
    void: tuple[Index, ...] = ()
    dealt: Mapping[Index, bytes] = field(default_factory=dict)
    deals: Mapping[Index, Dealt] = field(default_factory=dict)
    out: tuple[Index, ...] = ()
    verdicts: Mapping[Index, bytes] = field(default_factory=dict)
    votes: tuple[Index, ...] = ()
    made: Made | None = None
    ready: tuple[tuple[Index, bytes], ...] = ()
    position: tuple[Offset, bytes] = (NO_OFFSET, b"")

    @property
    def generate(self) -> bool:
        """Whether a new key is made."""
        return self.kind is CeremonyKind.GENERATE

    @property
    def recipients(self) -> tuple[Index, ...]:
        """Seats whose Announce counts, ascending."""
        return tuple(sorted(self.announced))

    @property
    def voters(self) -> frozenset[Index]:
        """Seats whose votes count."""
        return frozenset((*self.old.identities, *self.new.identities))

    @property
    def dealers_needed(self) -> int:
        """Fewest valid dealers: the old threshold, for it is the old shares that they interpolate."""
        return self.old.threshold

    @property
    def ready_needed(self) -> int:
        """How many equal Ready records a commit takes: all n in a key generation, where nothing is at stake yet."""
        return self.new.size if self.generate else self.new.commit_quorum

    @property
    def attested(self) -> bool:
        """Whether enough seats have said Ready for a KeyRecord."""
        return len(self.ready) >= self.ready_needed


@dataclass(frozen=True, slots=True)
class KeyLog:
    """One key. ``ended`` counts the attempts from the current epoch that came to nothing; ``heals`` are offsets."""

    key_id: KeyId
    current: Commit | None = None
    past: tuple[PastEpoch, ...] = ()
    opens: tuple[tuple[Index, Open], ...] = ()
    attempt: Attempt | None = None
    ended: int = 0
    heals: Mapping[Index, Offset] = field(default_factory=dict)

    @property
    def epoch(self) -> Epoch:
        """The current epoch, 0 if there is none."""
        return self.current.epoch if self.current is not None else Epoch(0)


@dataclass(frozen=True, slots=True)
class LogState:
    """All of the log up to and including ``offset``.

    ``window`` are the last running hashes, ``HASH_PREFIX`` bytes each, that of ``offset`` last. ``forked``:
    somebody's envelope tells of another history than ours. ``halted_by``: a roster at ``offset`` + 1 demands rules that
    this program does not know; nothing after it is folded.
    """

    offset: Offset = NO_OFFSET
    running_hash: bytes = LOG_START_HASH
    window: bytes = b""
    roster_raw: bytes = b""
    roster: Roster | None = None
    keys: Mapping[KeyId, KeyLog] = field(default_factory=dict)
    forked: bool = False
    halted_by: int = 0

    def roster_key(self, key_id: KeyId) -> RosterKey | None:
        """What the newest roster says of this key."""
        keys = self.roster.keys if self.roster is not None else ()
        return next((key for key in keys if key.key_id == key_id), None)

    def with_key(self, key: KeyLog) -> "LogState":
        """The same with ``key`` in place of what was there."""
        return replace(self, keys={**self.keys, key.key_id: key})


def identities(roster: Roster) -> dict[Index, bytes]:
    """Identity keys of a roster's seats."""
    return {seat.index: seat.identity_key for seat in roster.seats}


def newest_committee(state: LogState, key_id: KeyId) -> Committee | None:
    """The committee that should hold this key, by the newest roster; None if that does not know the key."""
    wanted = state.roster_key(key_id)
    if wanted is None or state.roster is None:
        return None
    return Committee(wanted.threshold, identities(state.roster))


def dealing_committee(state: LogState, key_id: KeyId) -> Committee | None:
    """The committee that opens, deals and votes: that of the current epoch, or the newest where there is no epoch.

    A seat whose identity key the newest roster replaced speaks with the new one: the old one is revoked. A seat that
    the newest roster leaves out speaks with its own: a leaver may deal; but not once another seat has that key, or one
    key would count twice.
    """
    key = state.keys.get(key_id)
    if key is None or key.current is None or state.roster is None:
        return newest_committee(state, key_id)
    newest = identities(state.roster)
    old = key.current.committee
    taken = set(newest.values())
    return Committee(
        old.threshold,
        {seat: newest.get(seat, b"" if mine in taken else mine) for seat, mine in old.identities.items()},
    )
