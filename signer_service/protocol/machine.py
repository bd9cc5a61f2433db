"""The contract of every protocol machine: ``step(state, event, now, ...) -> Transition``.

A machine is a plain function of its inputs. Time, randomness and who sent a record are arguments; a tick is an input
like any other. A machine performs no IO, reads no clock and never logs: it returns what the shell must do.

The order inside a ``Transition`` is a promise to the shell: make ``state`` durable where the machine says so, then
send, then feed the next event. "Durable before sent" is therefore a property of a type, not of somebody's memory.

A state that was passed to ``step`` belongs to it: the caller goes on with ``Transition.state`` only. (The ceremony's
state is immutable; the signing machines, which hold thousands of sessions, reuse theirs.)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

from common.ids import BootId, Index, Instant, KeyId, OpenId, RecordId
from common.wire.messages import AuditEvent, CeremonyRecord, KeyRecord, MsgToSign, Outcome, PeerMessage

State = TypeVar("State")
Result = TypeVar("Result")

Entropy: TypeAlias = Callable[[int], bytes]
"""``entropy(n)`` gives n fresh random bytes. The shell passes the operating system's; a test passes a seeded one."""


@dataclass(frozen=True, slots=True)
class Sender:
    """The seat that signed an envelope, and which start of it."""

    index: Index
    boot_id: BootId


@dataclass(frozen=True, slots=True)
class Note:
    """A fact for logs and metrics: a stable name and public values (never a secret, never a user's message)."""

    name: str
    fields: Mapping[str, str | int | float | bool] = field(default_factory=dict)


# --- what may be sent ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToPeer:
    """To ``signer.v1.peer<seat>``, in our envelope."""

    seat: Index
    message: PeerMessage


@dataclass(frozen=True, slots=True)
class ToLog:
    """To ``signer.v1.ceremony``, in our envelope with the position seen. Sending it twice must be harmless."""

    message: CeremonyRecord


@dataclass(frozen=True, slots=True)
class ToKeys:
    """To ``signer.v1.keys``: a copy of a committed key record, bare."""

    record: KeyRecord


@dataclass(frozen=True, slots=True)
class ToAudit:
    """To ``signer.v1.audit``, in our envelope."""

    event: AuditEvent


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request record stands on ``signer.v1``. ``redelivered``: it is older than this process's claim on it."""

    partition: int
    offset: int
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Outcomes of items of ``request`` (at ``origin``), for the pod that asked. The shell sends audit first.

    A record of many items may be answered in several of these; it is finished when each item has had one.
    """

    origin: Origin
    request: MsgToSign
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class RecordDone:
    """Every item of the request record at ``origin`` has its answer: after the last of them, for the offset book."""

    origin: Origin
    record_id: RecordId


@dataclass(frozen=True, slots=True)
class InternalSigned:
    """The group signature that the ceremony machine waits for: not for a topic, fed to it as an event."""

    open_id: OpenId
    signature: bytes


@dataclass(frozen=True, slots=True)
class RefreshAsked:
    """A MsgToSign with mode refresh for this key, as received: not for a topic, but an event of the ceremony machine.

    That one checks the edge signature again, and whether a refresh may begin.
    """

    key_id: KeyId
    raw: bytes


Outgoing: TypeAlias = ToPeer | ToLog | ToKeys | ToAudit | Answer | RecordDone | InternalSigned | RefreshAsked


@dataclass(frozen=True, slots=True)
class Transition(Generic[State, Result]):
    """What the shell must do, in this order, before it feeds the next event."""

    state: State
    """Durable BEFORE anything below leaves, where the machine says it must be."""
    send: tuple[Outgoing, ...] = ()
    """Then these; sending one twice must be harmless."""
    wake_at: Instant | None = None
    """When it next wants a ``Tick``; None: it waits for messages only."""
    notes: tuple[Note, ...] = ()
    """Facts for logs and metrics."""
    result: Result | None = None
    """Set once, where a machine has an end."""


# --- events that several machines share ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; ``now`` is an argument of ``step``."""


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """A decoded MsgToSign, with the bytes as received (participants check those)."""

    origin: Origin
    request: MsgToSign
    raw: bytes


@dataclass(frozen=True, slots=True)
class RequestsDropped:
    """Partitions were taken away (or the process drains): start no new work of theirs, finish what is in a round."""

    partitions: frozenset[int]


@dataclass(frozen=True, slots=True)
class PeerArrived:
    """A record from a peer topic whose envelope verified. ``envelope`` is that envelope, raw: evidence, if need be."""

    sender: Sender
    message: PeerMessage
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Peer:
    """What presence says of another live seat (or of ourselves)."""

    index: Index
    boot_id: BootId
    draining: bool
    epochs: Mapping[str, int]
    """Epoch per key id of which it holds a share."""
    disputed: Mapping[str, int] = field(default_factory=dict)
    """The same, by the word of another process that speaks for this seat at the same time and began earlier."""


@dataclass(frozen=True, slots=True)
class PeersChanged:
    """Who is live now, by presence, ourselves included. Replaces what was said before."""

    live: Mapping[Index, Peer]
