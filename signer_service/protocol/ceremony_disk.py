"""What a seat writes down: the public fold in one piece, and each key's secrets in one piece of their own.

The shell seals both and replaces them as one whole (``signer_service.shell.journal``) before anything that depends on
them is sent. Bounded: past epochs leave nothing but the list of who has erased them, and that ends at eight; and a
share for each that a seat took part in which never said that it saw the commit, until all have of a later one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from common.errors import BadInput
from common.ids import Index, Instant, KeyId
from common.secret import Secret
from common.wire.messages import Open
from signer_service.frost.group import base_mul
from signer_service.protocol import remedy
from signer_service.protocol.ceremony_checkpoint import is_next_log, refuse_behind
from signer_service.protocol.ceremony_state import CeremonyState, CeremonyTiming, KeySecrets
from signer_service.protocol.log_state import LogState
from signer_service.protocol.log_wire import LogTrust
from signer_service.protocol.snapshot import pack, unpack


@dataclass(frozen=True, slots=True)
class Journal:
    """The public half: whose it is, the fold, and when each key's epoch began."""

    seat: Index
    topic: str
    log: LogState
    committed: Mapping[KeyId, Instant]
    opens: Mapping[KeyId, Open]
    opened: Mapping[KeyId, Instant]


@dataclass(frozen=True, slots=True)
class Durable:
    """What has to survive a crash. ``secrets`` prints ``<redacted>``."""

    public: bytes
    secrets: Mapping[KeyId, Secret[bytes]]


def durable(state: CeremonyState) -> Durable:
    """Return what has to be on disk before anything that ``step`` returned with ``state`` is sent."""
    # A roster by rules that we do not know is read again by the program that comes after us.
    log = replace(state.log, halted_by=0)
    journal = Journal(state.seat, state.trust.topic, log, state.committed, state.opens, state.opened)
    kept = {key_id: each for key_id, each in state.secrets.items() if each != KeySecrets(key_id)}
    return Durable(pack(Journal, journal), {key_id: Secret(pack(KeySecrets, each)) for key_id, each in kept.items()})


def restore(
    saved: Durable,
    seat: Index,
    trust: LogTrust,
    timing: CeremonyTiming,
    *,
    generation: int = 0,
    checkpoints: Sequence[bytes] = (),
) -> CeremonyState:
    """Return the machine as ``durable`` wrote it down; feed it the log from ``state.log.offset`` + 1 on.

    Args:
        saved: From the disk.
        seat: Whose disk it is.
        trust: Whose log.
        timing: How patient this seat is.
        generation: ``log_generation`` of the roster file. If the operator has declared another log than the one that
            the journal is about, that log is read from its beginning; the shares stay.
        checkpoints: Key records of the roster file, from which such a log goes on.

    Raises:
        BadInput: ``journal-file`` or ``share-file``: cut, changed, of another seat, key or system, or a share that is
            not the one that the key record names. ``checkpoint``: the other log would go on from an older epoch than
            this seat has a share of, and of which it has none. The detail says which and what to do.
    """
    try:
        journal = unpack(Journal, saved.public)
    except BadInput as bad:
        raise BadInput("journal-file", f"the journal cannot be used ({bad.detail}): {remedy.VERSION}") from None
    if journal.seat != seat:
        raise BadInput(
            "journal-file", f"the journal is that of seat {journal.seat}, and this is seat {seat}: {remedy.SEAT}"
        )
    if journal.topic != trust.topic:
        was = f"the journal is about the ceremony log {journal.topic}, and here it would be {trust.topic}"
        raise BadInput("journal-file", f"{was}: {remedy.PREFIX}")
    secrets = {key_id: _secrets(key_id, each, journal, generation) for key_id, each in saved.secrets.items()}
    is_replaced = is_next_log(journal.log.roster, generation)
    for raw in checkpoints if is_replaced else ():
        refuse_behind(raw, generation, seat, secrets, trust)
    return CeremonyState(
        seat,
        trust,
        timing,
        log=LogState() if is_replaced else journal.log,
        secrets=secrets,
        committed=journal.committed,
        opens=journal.opens,
        opened=journal.opened,
    )


def _secrets(key_id: KeyId, raw: Secret[bytes], journal: Journal, generation: int) -> KeySecrets:
    try:
        mine = unpack(KeySecrets, raw.expose())
    except BadInput as bad:
        what = f"the share file of key {key_id} cannot be used ({bad.detail})"
        raise BadInput("share-file", f"{what}: {remedy.VERSION}") from None
    if mine.key_id != key_id:
        raise BadInput("share-file", f"the share file of key {key_id} is that of key {mine.key_id}: {remedy.HEAL}")
    key = journal.log.keys.get(key_id)
    commit = key.current if key is not None else None
    # Where the operator has gone on with another log, there may be shares that were made on one that does not count.
    one_history = generation <= 1 and (journal.log.roster is None or journal.log.roster.log_generation <= 1)
    staged = (mine.part.staged,) if mine.part is not None and mine.part.staged is not None else ()
    for held in (*mine.held, *staged):
        wrong = base_mul(held.share.expose()) != held.verification_share
        if one_history and commit is not None and held.epoch == commit.epoch:
            wrong = wrong or commit.shares.get(journal.seat) != held.verification_share
        if wrong:
            what = f"the share of seat {journal.seat}, key {key_id}, epoch {held.epoch}"
            raise BadInput("share-file", f"{what} is not the one that the key record names: {remedy.HEAL}")
    return mine
