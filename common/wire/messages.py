"""Every record that travels, as a frozen value: no bytes of Avro, no IO, no checks of signatures.

A value of one of these classes that came out of ``common.wire.codec.decode`` obeys the bounds below. Whether its
sender may say it, and whether it is true, is for ``envelope``, ``trust`` and the machines to find out.

Three families, by who signs them:

* ``MsgToSign``, ``Roster`` and ``Envelope`` end in their own 64-byte signature over the bytes before it;
* everything between replicas, and every answer and beat, is the payload of an ``Envelope``;
* ``KeyRecord`` stands for itself (``common.trust``); ``DeadLetter`` is nobody's word.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from common.ids import BootId, EdgeKeyId, Epoch, Index, Instant, KeyId, Offset, OpenId, RecordId, RequestId

MAX_MESSAGE_BYTES: Final = 64 * 1024
MAX_ITEMS: Final = 64
MAX_MSG_TO_SIGN_BYTES: Final = 512 * 1024
MAX_SIGN_PACKAGE_BYTES: Final = 768 * 1024
MAX_PEER_RECORD_BYTES: Final = 256 * 1024
MAX_RECORD_BYTES: Final = 1024 * 1024
MAX_DEADLINE_MS: Final = 30_000
RESERVED_PREFIX: Final = b"signer-flow/internal/v1\x00"
"""What the group key signs for ourselves begins so; a user's message that does is refused by every participant."""

NO_SIGNATURE: Final = bytes(64)


# --- requests and answers -------------------------------------------------------------------------------------------


class Mode(Enum):
    """What the API pod asks for."""

    SIGN = "sign"
    REFRESH = "refresh"


@dataclass(frozen=True, slots=True)
class SignItem:
    """One message to sign (or, with ``Mode.REFRESH``, one key to refresh; then ``message`` is empty)."""

    request_id: RequestId
    key_id: KeyId
    mode: Mode
    message: bytes
    principal: str
    created_ms: Instant
    deadline_ms: Instant


@dataclass(frozen=True, slots=True)
class MsgToSign:
    """1 to 64 items that an API pod vouches for with one edge signature. At most 512 KiB encoded."""

    record_id: RecordId
    items: tuple[SignItem, ...]
    reply_to: str
    instance_id: BootId
    edge_key_id: EdgeKeyId
    edge_signature: bytes = NO_SIGNATURE


@dataclass(frozen=True, slots=True)
class Signed:
    """A group signature: 64 bytes, plain Ed25519 (RFC 8032)."""

    signature: bytes
    key_id: KeyId
    epoch: Epoch
    signers: tuple[Index, ...]


class RefusalCode(Enum):
    """Why a coordinator refused. Stable: the HTTP table of problems is keyed by it."""

    BAD_REQUEST = "bad-request"
    BAD_EDGE_SIGNATURE = "bad-edge-signature"
    UNKNOWN_KEY = "unknown-key"
    RESERVED_PREFIX = "reserved-prefix"
    TOO_LARGE = "too-large"
    EXPIRED = "expired"
    DEADLINE_TOO_FAR = "deadline-too-far"
    QUORUM_LOST = "quorum-lost"
    OVERLOADED = "overloaded"
    SHUTTING_DOWN = "shutting-down"
    NO_KEY_YET = "no-key-yet"
    CEREMONY_RUNNING = "ceremony-running"
    REFRESH_TOO_SOON = "refresh-too-soon"
    REFRESH_UNAVAILABLE = "refresh-unavailable"


@dataclass(frozen=True, slots=True)
class Refused:
    """No signature. ``retryable`` says that another replica, or a later moment, may do better."""

    code: RefusalCode
    detail: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """Answer to ``Mode.REFRESH``: the coordinator saw the reason and said so on the ceremony log."""

    key_id: KeyId
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item."""

    request_id: RequestId
    result: Signed | Refused | Accepted


@dataclass(frozen=True, slots=True)
class MsgSigned:
    """Answers to the pod that asked, in the coordinator's envelope. ``instance_id`` echoes the asking pod's boot."""

    record_id: RecordId
    instance_id: BootId
    outcomes: tuple[Outcome, ...]


# --- between replicas, while signing --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NonceScope:
    """Which shares a nonce belongs to: one key at one epoch.

    A committed epoch is named by the offset of its commit. The one session that signs an epoch's KeyRecord runs
    before that offset exists: it has ``commit_offset`` -1 and the ceremony's ``open_id``.
    """

    key_id: KeyId
    commit_offset: Offset
    open_id: OpenId = OpenId(b"")


@dataclass(frozen=True, slots=True)
class NonceWant:
    """Please reserve ``count`` (1..256) commitments of ``scope`` for me."""

    scope: NonceScope
    count: int


@dataclass(frozen=True, slots=True)
class NonceRequest:
    """Coordinator to participant. The coordinator's index and boot id are the envelope's."""

    wants: tuple[NonceWant, ...]


@dataclass(frozen=True, slots=True)
class NonceGrant:
    """Commitments with counters ``first_counter``, ``first_counter + 1``, …; each is hiding ‖ binding, 64 bytes.

    Reserved for one boot of one coordinator, by one boot of the participant (the envelope's).
    """

    scope: NonceScope
    coordinator: Index
    coordinator_boot: BootId
    first_counter: int
    commitments: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class NonceBatch:
    """Participant to coordinator. Its envelope is kept as evidence while its commitments are in use."""

    grants: tuple[NonceGrant, ...]


@dataclass(frozen=True, slots=True)
class SignSession:
    """One session: which item, and for each signer (in ``SignGroup.signers`` order) counter and commitment."""

    session_id: int
    item: int
    counters: tuple[int, ...]
    commitments: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SignGroup:
    """Sessions over one request record with one signer set.

    ``request`` is MsgToSign as received; empty for the KeyRecord session, whose message each participant builds
    from its own fold. ``signers`` ascends; ``boots`` are their boot ids in the same order.
    """

    scope: NonceScope
    epoch: Epoch
    request: bytes
    signers: tuple[Index, ...]
    boots: tuple[BootId, ...]
    sessions: tuple[SignSession, ...]


@dataclass(frozen=True, slots=True)
class SignPackage:
    """Coordinator to participant: many sessions in one record, at most 768 KiB."""

    groups: tuple[SignGroup, ...]


class DeclineReason(Enum):
    """Why a participant gives no share. None of these is blame."""

    STALE_BOOT = "stale-boot"
    STALE_EPOCH = "stale-epoch"
    NOT_YET = "not-yet"
    NO_NONCE = "no-nonce"
    EXPIRED = "expired"
    BAD_REQUEST = "bad-request"


@dataclass(frozen=True, slots=True)
class Share:
    """A signature share (32 bytes, scalar) and the SHA-512/256 of the package it signed (32 bytes)."""

    session_id: int
    share: bytes
    package_hash: bytes


@dataclass(frozen=True, slots=True)
class Declined:
    """No share for this session, and why."""

    session_id: int
    reason: DeclineReason


@dataclass(frozen=True, slots=True)
class SignatureShares:
    """Participant to coordinator: one answer per session of one SignPackage."""

    answers: tuple[Share | Declined, ...]


# --- presence --------------------------------------------------------------------------------------------------------


class Role(Enum):
    """Who speaks in an envelope: a signer seat (index from 1) or an API pod (index from 0)."""

    SIGNER = "signer"
    API = "api"


class ReplicaState(Enum):
    """A word for a person; decisions are taken from the facts beside it."""

    STARTING = "starting"
    WAITING_FOR_KEY = "waiting-for-key"
    READY = "ready"
    DRAINING = "draining"
    DEGRADED = "degraded"


@dataclass(frozen=True, slots=True)
class KeyPresence:
    """What one replica says of one key. ``phase`` is empty when no ceremony runs; times are 0 when unknown."""

    key_id: KeyId
    epoch: Epoch
    holds_share: bool
    phase: str
    attempt: int
    awaited: tuple[Index, ...]
    last_refresh_ms: Instant
    next_due_ms: Instant
    fold_offset: Offset
    fold_hash: bytes


@dataclass(frozen=True, slots=True)
class Presence:
    """A beat. Role, index and boot id are the envelope's (an API pod's boot id is its instance id).

    ``clock_skew_ms``: the sender's clock less the broker's, as far as the sender is certain of it; signed.
    """

    started_ms: Instant
    seq: int
    sent_ms: Instant
    state: ReplicaState
    draining: bool
    schema_level: int
    partitions: tuple[int, ...]
    in_flight: int
    queue_wait_ms: int
    nonces_left: int
    keys: tuple[KeyPresence, ...]
    clock_skew_ms: int


# --- roster and key record: what anybody believes --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seat:
    """A seat of the committee: its index and the public half of its identity key (32 bytes)."""

    index: Index
    identity_key: bytes


@dataclass(frozen=True, slots=True)
class RosterKey:
    """A key that should exist: its threshold, and its public key once it does (32 bytes; empty before)."""

    key_id: KeyId
    threshold: int
    public_key: bytes


@dataclass(frozen=True, slots=True)
class Roster:
    """What should be, signed by the operator key. Ceremonies make what is follow it.

    ``checkpoints`` are whole encoded KeyRecords to go on from; only a new ``log_generation`` has any.
    """

    version: int
    protocol_version: int
    log_generation: int
    seats: tuple[Seat, ...]
    keys: tuple[RosterKey, ...]
    edge_keys: tuple[bytes, ...]
    checkpoints: tuple[bytes, ...]
    signature: bytes = NO_SIGNATURE


@dataclass(frozen=True, slots=True)
class VerificationShare:
    """Y_j of seat j: 32 bytes."""

    index: Index
    element: bytes


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """The commit of an epoch, and all that somebody with the operator's public key needs to believe it.

    ``roster`` is the encoded signed Roster in force; ``log_offset`` and ``log_hash`` are the position (offset and
    running hash) of the Ready that completed the ``attestations``, which are the encoded Envelopes of the first
    q (epoch 1: n) equal Ready in log order. ``signature`` is the GROUP key's, made with the new shares.
    """

    key_id: KeyId
    epoch: Epoch
    open_id: OpenId
    threshold: int
    public_key: bytes
    verification_shares: tuple[VerificationShare, ...]
    roster: bytes
    log_offset: Offset
    log_hash: bytes
    attestations: tuple[bytes, ...]
    signature: bytes = NO_SIGNATURE


# --- ceremony log ----------------------------------------------------------------------------------------------------


class CeremonyKind(Enum):
    """The one difference is what a dealer's constant term must be."""

    GENERATE = "generate"
    RESHARE = "reshare"


class OpenReason(Enum):
    """What the opener saw. Not part of equality between Opens."""

    NO_KEY = "no-key"
    SCHEDULE = "schedule"
    REQUEST = "request"
    ROSTER = "roster"
    HEAL = "heal"
    RETRY = "retry"


class Phase(Enum):
    """Phases in the order in which they close; the values are those of PhaseVote."""

    ANNOUNCE = "announce"
    DEAL = "deal"
    VERDICT = "verdict"
    READY = "ready"
    COMMIT = "commit"


HEAL_EVIDENCE_BYTES: Final = 66
"""A seat (u16 big-endian) and a proof (64)."""


@dataclass(frozen=True, slots=True)
class Open:
    """I see the reason to open this ceremony. t equal ones (but for ``reason``, ``nonce``, ``evidence``) open it.

    ``evidence``: for ``OpenReason.REQUEST`` the MsgToSign with mode refresh as received; for ``HEAL`` the seat to heal
    (those that name another are not equal) and a proof of the sender's current share; else empty.
    """

    key_id: KeyId
    kind: CeremonyKind
    from_epoch: Epoch
    attempt: int
    roster_version: int
    reason: OpenReason
    nonce: bytes
    evidence: bytes


@dataclass(frozen=True, slots=True)
class Announce:
    """I take part: transport point X_j (32), proof of x_j (64), proof of my current share (64; empty: I have none)."""

    open_id: OpenId
    transport_key: bytes
    transport_proof: bytes
    share_proof: bytes


@dataclass(frozen=True, slots=True)
class SealedSubShare:
    """f_i(j) for one recipient: 48 bytes, sealed under the Diffie-Hellman value of X_j and E_i."""

    recipient: Index
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class Deal:
    """Polynomial commitments (t_new x 32), ephemeral point E_i (32) and its proof (64), one sealed sub-share each.

    ``constant_proof`` (64) is the proof of possession of commitment[0] in generate; empty in reshare.
    """

    open_id: OpenId
    commitments: tuple[bytes, ...]
    constant_proof: bytes
    ephemeral_key: bytes
    ephemeral_proof: bytes
    sealed: tuple[SealedSubShare, ...]


@dataclass(frozen=True, slots=True)
class Complaint:
    """What ``dealer`` sealed for me does not fit: here is K = x_j * E_i (32) with its DLEQ proof; look yourselves."""

    dealer: Index
    shared_key: bytes
    proof: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """All deals to me are good (no complaints), or these are not."""

    open_id: OpenId
    complaints: tuple[Complaint, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """My new share is staged on disk and this is what we all made. Equal = the same but for ``share_proof``.

    ``transcript_hash`` (64) covers the counted records so far, ``verification_hash`` (64) all Y'_j.
    """

    open_id: OpenId
    key_id: KeyId
    epoch: Epoch
    transcript_hash: bytes
    qualified: tuple[Index, ...]
    public_key: bytes
    verification_hash: bytes
    share_proof: bytes


@dataclass(frozen=True, slots=True)
class PhaseVote:
    """My clock says that this phase is late: close it with what is there."""

    open_id: OpenId
    phase: Phase


@dataclass(frozen=True, slots=True)
class Erased:
    """I hold nothing of ``epoch`` of this key any more."""

    key_id: KeyId
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class HealRequest:
    """I hold no share of this key's epoch and ask for one."""

    key_id: KeyId
    epoch: Epoch


CeremonyRecord = Roster | Open | Announce | Deal | Verdict | Ready | PhaseVote | KeyRecord | Erased | HealRequest


# --- envelope, audit, dead letters -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who said it: signed by a seat's identity key or, for an API pod, by the edge key.

    ``seen_offset`` and ``seen_hash`` (64 bytes) are the sender's position on the ceremony log and its running hash
    there; -1 and empty on every other topic.
    """

    role: Role
    index: int
    boot_id: BootId
    topic: str
    seen_offset: Offset
    seen_hash: bytes
    payload: bytes
    signature: bytes = NO_SIGNATURE


class AuditKind(Enum):
    """What an audit entry tells of."""

    SIGNED = "signed"
    REFUSED = "refused"
    CEREMONY = "ceremony"
    BLAME = "blame"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One fact. Fields that do not apply are empty (or 0). ``evidence`` is for blame: signed records that prove it."""

    kind: AuditKind
    at_ms: Instant
    request_id: str
    principal: str
    key_id: str
    epoch: Epoch
    message_sha256: bytes
    signers: tuple[Index, ...]
    code: str
    detail: str
    evidence: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """What one record of one replica came to, in that replica's envelope."""

    record_id: str
    entries: tuple[AuditEntry, ...]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be used, kept as it came. ``value`` may be cut: ``value_length`` and hash are of all."""

    topic: str
    partition: int
    offset: Offset
    timestamp_ms: Instant
    reason: str
    detail: str
    found_by: str
    key: bytes
    value: bytes
    value_length: int
    value_sha256: bytes


PeerMessage = NonceRequest | NonceBatch | SignPackage | SignatureShares
Message = MsgToSign | MsgSigned | PeerMessage | Presence | Envelope | AuditEvent | DeadLetter | CeremonyRecord
