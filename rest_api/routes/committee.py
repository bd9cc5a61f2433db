"""What live seats say of a key, in their beats: its ceremony, when it was refreshed and will be, and who is missing.

A beat is one seat's word. Of what they say together, what fewer than t could have made up is shown: where t seats
differ, the claim that t of them reach.
"""

from datetime import UTC, datetime
from typing import Any

from common.ids import Index, KeyId
from common.quorum import commit_quorum
from common.wire.messages import KeyPresence
from rest_api.gateway.core import Gateway


def heard(gateway: Gateway, key_id: KeyId) -> dict[Index, KeyPresence]:
    """What each live seat says of a key."""
    routing = gateway.routing
    return {
        seat: key
        for seat, view in routing.seats.items()
        if routing.fresh(seat)
        for key in view.beat.keys
        if key.key_id == key_id
    }


def epoch_of(gateway: Gateway, key_id: KeyId) -> int:
    """The epoch that is believed; 0: the key is still being made."""
    record = gateway.keys.believed(key_id)
    return 0 if record is None else record.epoch


def ceremony(gateway: Gateway, key_id: KeyId) -> dict[str, Any] | None:
    """The ceremony that is running, as the API shows it."""
    said = heard(gateway, key_id).values()
    running = sorted((key for key in said if key.phase), key=lambda key: (key.fold_offset, key.attempt), reverse=True)
    threshold = gateway.keys.threshold(key_id)
    if not running or len(running) < min(threshold, len(said)):
        return None
    # Seats may be a record apart, and one that lies could be further than all.
    told = running[min(threshold, len(running)) - 1]
    return {
        "kind": "generate" if gateway.keys.believed(key_id) is None else "reshare",
        "phase": told.phase,
        "attempt": told.attempt,
        "awaited": list(told.awaited),
    }


def times(gateway: Gateway, key_id: KeyId) -> dict[str, str | None]:
    """``last_refresh`` and ``next_refresh`` as the API shows them."""
    epoch = epoch_of(gateway, key_id)
    said = [key for key in heard(gateway, key_id).values() if key.epoch == epoch]
    # Each seat has its own clock, and its own jitter: t of them open a ceremony.
    last = sorted(key.last_refresh_ms for key in said if key.last_refresh_ms > 0)
    due = sorted(key.next_due_ms for key in said if key.next_due_ms > 0)
    opens = min(gateway.keys.threshold(key_id), len(due)) - 1
    return {
        "last_refresh": _moment(last[(len(last) - 1) // 2]) if last else None,
        "next_refresh": _moment(due[opens]) if due else None,
    }


def holders(gateway: Gateway, key_id: KeyId) -> frozenset[Index]:
    """Live seats with a share. One may be a record behind for a moment, just after a commit."""
    epoch = epoch_of(gateway, key_id)
    return frozenset(
        seat
        for seat, key in heard(gateway, key_id).items()
        if key.holds_share and key.epoch >= max(1, epoch - 1) and not gateway.routing.draining(seat)
    )


def shortage(gateway: Gateway, key_id: KeyId) -> str:
    """Why no refresh of a key that is believed can end now, and who is missing; empty if enough seats are there.

    A pod says it at once: where too few are up, nobody may be there to ask.
    """
    threshold, seats = gateway.keys.committee(key_id)
    there = holders(gateway, key_id) & seats
    needed = commit_quorum(threshold, len(seats))
    if len(there) >= needed:
        return ""
    missing = ", ".join(f"replica {seat} ({_why_not(gateway, seat)})" for seat in sorted(seats - there))
    return f"a refresh of {key_id} takes {needed} replicas with a share, and {len(there)} are up; missing: {missing}"


def _why_not(gateway: Gateway, seat: Index) -> str:
    if seat not in gateway.routing.seats:
        return "not heard yet"
    if not gateway.routing.fresh(seat):
        return f"silent for {gateway.routing.silence_ms(seat) / 1000:.0f} s"
    return "going away" if gateway.routing.draining(seat) else "holds no share"


def in_words(key_id: KeyId, running: dict[str, Any] | None) -> str:
    """The ceremony that is running, for a person."""
    if running is None:
        return f"a refresh of {key_id} has been asked for already"
    awaited = f", waiting for replicas {', '.join(map(str, running['awaited']))}" if running["awaited"] else ""
    where = f"phase {running['phase']}, attempt {running['attempt']}{awaited}"
    return f"a ceremony of {key_id} ({running['kind']}) is running: {where}"


def _moment(unix_ms: int) -> str | None:
    try:
        moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
