"""What the ceremonies let others see: keys to sign with, the session that signs a KeyRecord, facts for presence."""

from common.ids import NO_OFFSET, Epoch, Index, Instant, KeyId
from common.secret import Secret
from common.wire.messages import KeyPresence, NonceScope
from common.wire.transcript import key_record_message
from signer_service.frost.group import Element, Scalar
from signer_service.frost.keys import KeyPackage, PublicKeyPackage
from signer_service.protocol.ceremony_agenda import rank
from signer_service.protocol.ceremony_opening import edge_keys, newer_roster, next_due
from signer_service.protocol.ceremony_part import held_now
from signer_service.protocol.ceremony_state import CeremonyState
from signer_service.protocol.fold_closing import awaited
from signer_service.protocol.fold_commit import expected_record
from signer_service.protocol.log_state import Attempt, Commit, identities
from signer_service.protocol.view import EpochKeys, InternalSession, SigningView


def signing_view(state: CeremonyState, now: Instant) -> SigningView:
    """What the signing machines may use at ``now``. What an edge or identity key signs counts only while the newer of
    roster file and log has it: a broker cannot withhold a revocation."""
    roster = newer_roster(state)
    wanted = tuple(key.key_id for key in roster.keys) if roster is not None else ()
    current, draining, internal = {}, {}, {}
    for key_id in wanted:
        key = state.log.keys.get(key_id)
        if key is None:
            continue
        if key.current is not None:
            current[key_id] = epoch_keys(state, key.current)
        drain = state.soft.draining.get(key_id)
        if drain is not None and drain.until > now:
            draining[key_id] = drain.keys
        attempt = key.attempt if not state.awaits_new_log else None
        session = _internal(state, attempt, now) if attempt is not None else None
        if session is not None:
            internal[session.open_id] = session
    return SigningView(
        seat=state.seat,
        edge_keys=edge_keys(state),
        identity_keys=peers(state),
        key_ids=wanted,
        current=current,
        draining=draining,
        internal=internal,
    )


def peers(state: CeremonyState) -> dict[Index, bytes]:
    """Identity keys of the seats that sign with us.

    A seat that leaves is one of them until a new epoch has taken over its part: where those that stay are fewer than t,
    nobody could sign from the moment that the operator's file came until the ceremony is over. A seat whose identity
    was replaced is not: that machine is not to be trusted any more.
    """
    roster = newer_roster(state)
    found = identities(roster) if roster is not None else {}
    known = set(found.values())
    for key in state.log.keys.values():
        if key.current is not None:
            shares, committee = key.current.shares, key.current.committee.identities
            leave = {seat: committee[seat] for seat in shares if seat in committee and committee[seat] not in known}
            found = {**leave, **found}
    return found


def epoch_keys(state: CeremonyState, commit: Commit) -> EpochKeys:
    """A committed epoch as this seat may use it."""
    record = commit.record
    held = held_now(commit, state.seat, state.of_key(record.key_id))
    return _keys(
        state.seat,
        NonceScope(record.key_id, commit.offset),
        record.epoch,
        PublicKeyPackage(
            Element(record.public_key), record.threshold, {j: Element(y) for j, y in commit.shares.items()}
        ),
        held.share if held is not None else None,
    )


def _keys(
    seat: Index, scope: NonceScope, epoch: Epoch, public: PublicKeyPackage, share: Secret[Scalar] | None
) -> EpochKeys:
    package = None
    if share is not None:
        package = KeyPackage(seat, share, public.verification_shares[seat], public.group_key, public.threshold)
    return EpochKeys(scope.key_id, epoch, scope, public, package)


def _internal(state: CeremonyState, attempt: Attempt, now: Instant) -> InternalSession | None:
    """The session that signs the KeyRecord of this attempt, over the bytes that this seat's own fold gives."""
    record, made = expected_record(state.log, attempt), attempt.made
    since = state.soft.since.get(attempt.key_id)
    if record is None or made is None or since is None or since.attested is None or not state.may_speak:
        return None
    part = state.of_key(attempt.key_id).part
    staged = part.staged if part is not None and part.open_id == attempt.open_id else None
    public = PublicKeyPackage(
        Element(made.public_key), attempt.new.threshold, {j: Element(y) for j, y in made.shares.items()}
    )
    scope = NonceScope(attempt.key_id, NO_OFFSET, attempt.open_id)
    keys = _keys(state.seat, scope, record.epoch, public, staged.share if staged is not None else None)
    ready = tuple(seat for seat, _ in attempt.ready)
    turn = now >= since.attested + rank(state, ready) * state.timing.takeover_ms
    coordinate = staged is not None and turn and attempt.open_id not in state.soft.signatures
    return InternalSession(attempt.open_id, keys, key_record_message(record), coordinate)


def takeover_at(state: CeremonyState, attempt: Attempt) -> Instant | None:
    """When it is this seat's turn to coordinate the signature of a KeyRecord; None: not in question."""
    since = state.soft.since.get(attempt.key_id)
    if since is None or since.attested is None:
        return None
    ready = tuple(seat for seat, _ in attempt.ready)
    return Instant(since.attested + rank(state, ready) * state.timing.takeover_ms)


def status(state: CeremonyState) -> tuple[KeyPresence, ...]:
    """Facts about each key for this seat's beat, by key id."""
    roster = newer_roster(state)
    facts = []
    for wanted in sorted(roster.keys, key=lambda each: each.key_id) if roster is not None else ():
        key = state.log.keys.get(wanted.key_id)
        if key is None:
            continue
        commit, attempt = key.current, key.attempt
        facts.append(
            KeyPresence(
                key_id=key.key_id,
                epoch=key.epoch,
                holds_share=commit is not None and held_now(commit, state.seat, state.of_key(key.key_id)) is not None,
                phase=attempt.phase.value if attempt is not None else "",
                attempt=attempt.number if attempt is not None else 0,
                awaited=tuple(sorted(awaited(attempt))) if attempt is not None else (),
                last_refresh_ms=state.committed.get(key.key_id, Instant(0)),
                next_due_ms=next_due(state, key) if commit is not None else Instant(0),
                fold_offset=state.log.offset,
                fold_hash=state.log.running_hash if state.log.offset != NO_OFFSET else b"",
            )
        )
    return tuple(facts)


def unerased(state: CeremonyState) -> dict[KeyId, int]:
    """Per key: of how many holders of one earlier epoch, at most, nobody knows yet that they erased their shares."""
    return {
        key_id: max((len(past.holders) - len(past.erased) for past in key.past), default=0)
        for key_id, key in state.log.keys.items()
    }


def alarms(state: CeremonyState) -> tuple[str, ...]:
    """What a person has to look at, as stable words."""
    found = []
    if state.soft.lost:
        found.append("ceremony-log-lost")
    if state.log.forked:
        found.append("ceremony-log-forked")
    if state.log.halted_by:
        found.append("ceremony-protocol-version")
    if state.soft.caught_up and state.awaits_new_log:
        found.append("awaits-new-log")
    stolen = (key.key_id for key in state.log.keys.values() if any(past.can_be_stolen for past in key.past))
    return (*found, *(f"old-epoch-not-erased/{key_id}" for key_id in stolen))
