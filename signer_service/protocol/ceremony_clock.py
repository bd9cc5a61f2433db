"""A clock that goes back: what was noted while it was ahead must not hold anything up until that time comes again."""

from dataclasses import replace

from common.ids import Instant
from signer_service.protocol.ceremony_state import CeremonyState


def not_ahead(state: CeremonyState, now: Instant) -> CeremonyState:
    """Return ``state`` with no time in it that is later than ``now``: as if it had happened just now.

    Some of these times are durable, so that no restart would mend them: this seat would open no ceremony for as long as
    its clock was once ahead.
    """
    soft = state.soft
    noted = (
        *state.committed.values(),
        *state.opened.values(),
        *soft.sent.values(),
        *(each.at for each in soft.since.values()),
        *(each[2] for each in soft.ended.values()),
        *(each[1] for stood in soft.heals.values() for each in stood.values() if each[1] is not None),
        *(each[1] for each in soft.published.values()),
        *(each[1] for each in soft.current_since.values()),
        *(each.until - state.timing.drain_window_ms for each in soft.draining.values()),
    )
    if all(at <= now for at in noted):
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
            current_since={k: (epoch, min(at, now)) for k, (epoch, at) in soft.current_since.items()},
            draining={k: replace(each, until=min(each.until, end)) for k, each in soft.draining.items()},
        ),
    )
