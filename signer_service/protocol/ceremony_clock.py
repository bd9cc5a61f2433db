"""This seat's own clock: since when things are as they are, a clock that goes back, a time in which nothing was heard.

The fold knows none of it. What is noted here may be forgotten, but for when an epoch began and when an Open was made.
"""

from dataclasses import replace

from common.ids import NO_OFFSET, Epoch, Index, Instant, KeyId, Offset
from signer_service.protocol import ceremony_opening
from signer_service.protocol.ceremony_agenda import patience_ms
from signer_service.protocol.ceremony_state import CeremonyState, Since
from signer_service.protocol.log_state import Attempt, KeyLog
from signer_service.protocol.machine import Note


def not_ahead(state: CeremonyState, now: Instant) -> CeremonyState:
    """Return ``state`` with no time in it that is later than ``now``: as if it had happened just now.

    Some of these times are durable, so that no restart would mend them: this seat would open no ceremony for as long as
    its clock was once ahead.
    """
    soft = state.soft
    times = (
        *state.committed.values(),
        *state.opened.values(),
        *soft.sent.values(),
        *(each.at for each in soft.since.values()),
        *(each[2] for each in soft.ended.values()),
        *(each[1] for stood in soft.heals.values() for each in stood.values() if each[1] is not None),
        *(each[1] for each in soft.published.values()),
        *(each[1] for each in soft.rivals.values()),
        *(each[1] for each in soft.current_since.values()),
        *((soft.deaf_since,) if soft.deaf_since is not None else ()),
        *(each.until - state.timing.drain_window_ms for each in soft.draining.values()),
    )
    if all(at <= now for at in times):
        return state
    attested = {k: min(each.attested, now) if each.attested is not None else None for k, each in soft.since.items()}
    end = Instant(now + state.timing.drain_window_ms)
    return replace(
        state,
        committed={k: min(at, now) for k, at in state.committed.items()},
        opened={k: min(at, now) for k, at in state.opened.items()},
        soft=replace(
            soft,
            sent={tag: min(at, now) for tag, at in soft.sent.items()},
            since={k: replace(each, at=min(each.at, now), attested=attested[k]) for k, each in soft.since.items()},
            ended={k: (epoch, number, min(at, now)) for k, (epoch, number, at) in soft.ended.items()},
            heals={
                k: {seat: (offset, min(at, now) if at is not None else None) for seat, (offset, at) in stood.items()}
                for k, stood in soft.heals.items()
            },
            published={k: (epoch, min(at, now)) for k, (epoch, at) in soft.published.items()},
            rivals={k: (epoch, min(at, now)) for k, (epoch, at) in soft.rivals.items()},
            current_since={k: (epoch, min(at, now)) for k, (epoch, at) in soft.current_since.items()},
            draining={k: replace(each, until=min(each.until, end)) for k, each in soft.draining.items()},
            deaf_since=min(soft.deaf_since, now) if soft.deaf_since is not None else None,
        ),
    )


def listens(state: CeremonyState, hears: bool, now: Instant) -> CeremonyState:
    """Who was deaf has waited for nobody: that time does not count. What was said meanwhile has a while to arrive."""
    soft = state.soft
    if not hears:
        return state if soft.deaf_since is not None else state.with_soft(deaf_since=now)
    if soft.deaf_since is None:
        return state
    since = {key_id: _heard_again(state, key_id, each, soft.deaf_since, now) for key_id, each in soft.since.items()}
    return state.with_soft(since=since, deaf_since=None, told_deaf=False)


def _heard_again(state: CeremonyState, key_id: KeyId, seen: Since, deaf_since: Instant, now: Instant) -> Since:
    attempt = state.log.keys[key_id].attempt if key_id in state.log.keys else None
    if attempt is None:
        return seen
    patience = patience_ms(state, attempt)
    heard = min(seen.at + now - deaf_since, now)
    # In all no longer than patience itself in one phase, or short deafness again and again would put a vote off for
    # ever.
    grace = max(0, min(state.timing.resend_ms, max(patience, state.timing.resend_ms) - seen.grace_ms))
    at = min(max(heard, now - patience + grace), now)
    return replace(seen, at=Instant(at), grace_ms=seen.grace_ms + min(at - heard, grace))


def tell_deaf(state: CeremonyState, wake: list[Instant], now: Instant) -> tuple[CeremonyState, tuple[Note, ...]]:
    """Say once of each long deafness that this seat votes nobody late meanwhile; put on ``wake`` when to look again."""
    since = state.soft.deaf_since
    if since is None or state.soft.told_deaf:
        return state, ()
    due = Instant(since + state.timing.absent_holder_ms)
    if now <= due:
        wake.append(Instant(due + 1))
        return state, ()
    return state.with_soft(told_deaf=True), (Note("hears-nothing", {"since_ms": since}),)


def noted(state: CeremonyState, now: Instant) -> CeremonyState:
    """Note when this seat first saw what the fold says now; forget what the fold has left behind."""
    soft, keys = state.soft, state.log.keys
    since: dict[KeyId, Since] = {}
    ended: dict[KeyId, tuple[Epoch, int, Instant]] = {}
    current: dict[KeyId, tuple[Epoch, Instant]] = {}
    heals: dict[KeyId, dict[Index, tuple[Offset, Instant | None]]] = {}
    for key_id, key in keys.items():
        if key.attempt is not None:
            since[key_id] = _since(state, key.attempt, now)
        if key.ended:
            was = soft.ended.get(key_id)
            same = was is not None and was[:2] == (key.epoch, key.ended)
            ended[key_id] = was if same and was is not None else (key.epoch, key.ended, now)
        if key.current is not None:
            begun = soft.current_since.get(key_id)
            current[key_id] = begun if begun is not None and begun[0] == key.epoch else (key.epoch, now)
        stood = _heals(state, key, now, current.get(key_id, (key.epoch, now))[1])
        if stood:
            heals[key_id] = stood
    open_ids = {key.attempt.open_id for key in keys.values() if key.attempt is not None}
    after = replace(
        soft,
        since=since,
        ended=ended,
        current_since=current,
        heals=heals,
        asked={k: v for k, v in soft.asked.items() if k in keys and keys[k].epoch == v[0]},
        signatures={k: v for k, v in soft.signatures.items() if k in open_ids},
        draining={k: v for k, v in soft.draining.items() if v.until > now},
    )
    return state if after == soft else replace(state, soft=after)


def _heals(
    state: CeremonyState, key: KeyLog, now: Instant, begun: Instant
) -> dict[Index, tuple[Offset, Instant | None]]:
    """Requests to be healed, and since when each stands unopposed; after a commit, for a while, those not made anew."""
    before = state.soft.heals.get(key.key_id, {})
    stood: dict[Index, tuple[Offset, Instant | None]] = {}
    for seat, offset in key.heals.items():
        was = before.get(seat)
        same = was is not None and was[0] in {offset, NO_OFFSET} and was[1] is not None
        since = was[1] if same and was is not None else now
        stood[seat] = (offset, None if ceremony_opening.opposed(state, key, seat) else since)
    if now < begun + 2 * state.timing.resend_ms:
        asked_before = {seat: each for seat, each in before.items() if each[0] == NO_OFFSET and seat not in stood}
        return {**stood, **asked_before}
    return stood


def _since(state: CeremonyState, attempt: Attempt, now: Instant) -> Since:
    seen = state.soft.since.get(attempt.key_id)
    if seen is None or (seen.open_id, seen.phase) != (attempt.open_id, attempt.phase):
        same = seen is not None and seen.open_id == attempt.open_id
        seen = Since(attempt.open_id, attempt.phase, now, seen.attested if same and seen is not None else None)
    if attempt.attested and seen.attested is None:
        seen = replace(seen, attested=now)
    return seen
