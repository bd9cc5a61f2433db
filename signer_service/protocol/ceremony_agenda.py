"""What this seat owes the log now, as a level: derived each time anew from the fold, its secrets and its clock.

A record that is owed and not seen in the log ``resend_ms`` after it was sent is sent again: after a crash between write
and send, or a broker that lost it. Everything here is harmless twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from common.ids import Epoch, Index, Instant, KeyId
from common.wire.messages import (
    CeremonyRecord,
    Erased,
    HealRequest,
    Phase,
    PhaseVote,
)
from signer_service.protocol.ceremony_part import announce_is_seen, held_now
from signer_service.protocol.ceremony_state import CeremonyState
from signer_service.protocol.fold_closing import awaited
from signer_service.protocol.fold_commit import expected_record
from signer_service.protocol.heal_open import healed
from signer_service.protocol.log_state import Attempt, KeyLog, identities, newest_committee
from signer_service.protocol.machine import Outgoing, ToKeys, ToLog

Tag = tuple[str, ...]


@dataclass(slots=True)
class Agenda:
    """What is owed, and when to look again. Made new for each step."""

    now: Instant
    owed: dict[Tag, Outgoing] = field(default_factory=dict)
    wake: list[Instant] = field(default_factory=list)

    def owe(self, record: CeremonyRecord, *tag: object) -> None:
        """Put a record for the log on the list. ``tag`` names this very record."""
        self.owed[(type(record).__name__, *map(str, tag))] = ToLog(record)

    def due(self, at: int) -> bool:
        """Whether ``at`` has come; if not, the machine wakes then."""
        if self.now >= at:
            return True
        self.wake.append(Instant(at))
        return False


def agenda(state: CeremonyState, now: Instant) -> Agenda:
    """Everything that this seat owes at ``now``. Nothing before all was read; while the log is in doubt nothing but the
    copies of key records; before the roster of a newer log was read nothing but that."""
    todo = Agenda(now)
    file, known = state.soft.roster, state.log.roster
    # A roster goes out even when the log is forked: one of a new generation is the way out of that.
    if state.may_bring_roster and file is not None and (known is None or file.version > known.version):
        todo.owe(file, file.version)
    if not state.soft.caught_up or (state.awaits_new_log and not state.soft.lost):
        return todo
    for key in state.log.keys.values():
        _publish(state, key, todo)
    if not state.may_speak or state.awaits_new_log:
        return todo
    for key in state.log.keys.values():
        if key.key_id in state.opens:
            made = state.opens[key.key_id]
            todo.owe(made, key.key_id, key.epoch, key.ended, healed(made))
        if key.attempt is not None:
            _attempt(state, key.attempt, todo)
        _after_commit(state, key, todo)
    return todo


def send(state: CeremonyState, todo: Agenda) -> tuple[CeremonyState, tuple[Outgoing, ...]]:
    """Of what is owed, what has to go now. What is owed no longer is forgotten."""
    before: Mapping[Tag, Instant] = state.soft.sent
    sent: dict[Tag, Instant] = {}
    out: list[Outgoing] = []
    for tag, each in todo.owed.items():
        if tag not in before or todo.due(before[tag] + state.timing.resend_ms):
            sent[tag] = todo.now
            out.append(each)
            todo.wake.append(Instant(todo.now + state.timing.resend_ms))
        else:
            sent[tag] = before[tag]
    if sent == before:
        return state, tuple(out)
    return state.with_soft(sent=sent), tuple(out)


def rank(state: CeremonyState, seats: tuple[Index, ...]) -> int:
    """How many live seats of ``seats`` stand before this one: the lowest acts first, others after a delay each."""
    return sum(1 for seat in seats if seat < state.seat and (seat in state.soft.live or not state.soft.live))


# --- the open attempt ------------------------------------------------------------------------------------------------


def _attempt(state: CeremonyState, attempt: Attempt, todo: Agenda) -> None:
    seat, part = state.seat, state.of_key(attempt.key_id).part
    if part is not None and part.open_id == attempt.open_id:
        mine: tuple[tuple[CeremonyRecord | None, frozenset[Phase], bool], ...] = (
            (part.announce, frozenset({Phase.ANNOUNCE}), announce_is_seen(attempt, seat, part.announce)),
            (part.deal, frozenset({Phase.DEAL}), seat in attempt.dealt),
            (part.verdict, frozenset({Phase.VERDICT}), seat in attempt.verdicts),
            (part.ready, frozenset({Phase.READY, Phase.COMMIT}), any(seat == each for each, _ in attempt.ready)),
        )
        for record, phases, seen in mine:
            if record is not None and attempt.phase in phases and not seen:
                todo.owe(record, attempt.open_id.hex())
    _vote(state, attempt, todo)
    signature = state.soft.signatures.get(attempt.open_id)
    record = expected_record(state.log, attempt)
    if signature is not None and record is not None:
        todo.owe(replace(record, signature=signature), attempt.open_id.hex())


def _vote(state: CeremonyState, attempt: Attempt, todo: Agenda) -> None:
    since = state.soft.since.get(attempt.key_id)
    if state.seat not in attempt.voters or state.seat in attempt.votes or since is None:
        return
    if state.soft.deaf_since is not None:
        return
    if attempt.generate and attempt.phase is Phase.ANNOUNCE:
        return
    if todo.due(since.at + patience_ms(state, attempt)):
        todo.owe(PhaseVote(attempt.open_id, attempt.phase), attempt.open_id.hex(), attempt.phase.value)


def patience_ms(state: CeremonyState, attempt: Attempt) -> int:
    """How long this seat waits in the present phase: doubling with each attempt, longer for a missing holder."""
    timing = state.timing
    doubled = min(timing.patience_ms << min(attempt.number - 1, 16), timing.patience_max_ms)
    if attempt.phase is Phase.ANNOUNCE and any(
        seat in attempt.old_shares and seat not in attempt.announced for seat in awaited(attempt)
    ):
        return max(doubled, timing.absent_holder_ms)
    return doubled


# --- after a commit --------------------------------------------------------------------------------------------------


def _after_commit(state: CeremonyState, key: KeyLog, todo: Agenda) -> None:
    seat, commit, mine = state.seat, key.current, state.of_key(key.key_id)
    if commit is None:
        return
    part = mine.part
    if part is not None and part.ready is not None and part.open_id == commit.record.open_id:
        # Another than before the commit: this one says that we saw it.
        todo.owe(part.ready, part.open_id.hex(), "committed")
    newest = identities(state.log.roster) if state.log.roster is not None else {}
    for past in key.past:
        held = past.holders.get(seat)
        if held is None or newest.get(seat, held) != held:
            continue
        if seat not in past.erased and mine.of_epoch(past.epoch) is None:
            todo.owe(Erased(key.key_id, past.epoch), key.key_id, past.epoch)
    if key.attempt is None and seat not in key.heals and needs_heal(state, key):
        todo.owe(HealRequest(key.key_id, key.epoch), key.key_id, key.epoch)


def needs_heal(state: CeremonyState, key: KeyLog) -> bool:
    """Whether this seat should hold a share of the current epoch, does not, and gets none by being new."""
    newest = newest_committee(state.log, key.key_id)
    if key.current is None or newest is None or state.seat not in newest.identities:
        return False
    if held_now(key.current, state.seat, state.of_key(key.key_id)) is not None:
        return False
    return key.current.committee.identities.get(state.seat) == newest.identities[state.seat]


def _publish(state: CeremonyState, key: KeyLog, todo: Agenda) -> None:
    """``signer.v1.keys`` has a copy: for pods, and for nobody's decisions here.

    Also while the log is lost or forked: a broker that lost its data lost the copies as well, and without one no pod
    can use the shares, which are all there. It stands for itself, and nobody goes back an epoch for it.
    """
    commit = key.current
    if commit is None:
        return
    epoch, at = state.soft.published.get(key.key_id, (0, Instant(0)))
    since = state.soft.current_since.get(key.key_id, (commit.epoch, todo.now))[1]
    place = rank(state, tuple(commit.shares))
    wait = place * state.timing.takeover_ms
    if epoch > commit.epoch:
        return  # Others are ahead of us, or were: ours would be the wrong one, and pods do not go back.
    rival = state.soft.rivals.get(key.key_id)
    left_behind = state.soft.lost and rival is not None and rival[0] == commit.epoch
    if left_behind and rival is not None and not todo.due(rival[1] + state.timing.republish_ms + wait):
        return  # The operator has gone on in another log perhaps, and we were left on this one.
    if epoch == commit.epoch:
        # What took the log away may take the copies a moment later.
        every = state.timing.republish_ms if state.may_speak else state.timing.republish_doubt_ms
        due = todo.due(at + every + wait)
    else:
        due = todo.due(since + wait)
    if due:
        todo.owed[copy_tag(key.key_id, commit.epoch)] = ToKeys(commit.record)


def copy_tag(key_id: KeyId, epoch: Epoch) -> Tag:
    """Names the copy of an epoch's key record on ``signer.v1.keys``."""
    return ("ToKeys", key_id, str(epoch))
