"""Who is alive, by their beats on our own clock. No IO.

The broker is not trusted: it can hold beats back (a replica then looks dead, which costs availability only) or show an
old one again. An old beat of a live seat is therefore ignored: of one boot only a higher ``seq`` counts, and another
boot only if it started later, as long as the one we know is not itself overdue.

While we do not hear ourselves, nobody is silent: it is the broker that is away, or we stood still. Taken for the loss
of everybody else, an outage of two seconds would have every request refused that could wait for its end.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from common.ids import BootId, Index
from common.wire.messages import Presence
from signer_service.protocol.machine import Peer


@dataclass(frozen=True, slots=True)
class _Heard:
    boot_id: BootId
    beat: Presence
    at: float


DISPUTE_MS: Final = 10_000
"""A beat that is older than this is one of the past, shown again."""


def _held(heard: _Heard) -> dict[str, int]:
    return {key.key_id: key.epoch for key in heard.beat.keys if key.holds_share}


class PeerWatch:
    """The live seats. Times are ``monotonic`` seconds.

    Args:
        suspect_after_s: Silence after which a seat is not live.
        own: Our seat. Half of that time after our own last beat came back, time stands still for the others.
    """

    def __init__(self, suspect_after_s: float, own: Index) -> None:
        self._suspect_after = suspect_after_s
        self._own = own
        self._heard: dict[Index, _Heard] = {}
        self._others: dict[Index, _Heard] = {}
        self._live: dict[Index, Peer] = {}

    def beat(self, seat: Index, boot_id: BootId, beat: Presence, now: float) -> bool:
        """Take a beat whose envelope verified. Returns whether it was a new word of that seat."""
        known = self._heard.get(seat)
        if known is not None and self._heard_until(now) - known.at < self._suspect_after:
            if boot_id == known.boot_id:
                if beat.seq <= known.beat.seq:
                    return False
            elif beat.started_ms < known.beat.started_ms:
                self._dispute(seat, boot_id, beat, now)
                return False
        elif known is not None and boot_id == known.boot_id and beat.seq <= known.beat.seq:
            # However long it was silent: a beat that was heard before is no sign of life.
            return False
        if seat == self._own:
            self._forgive(now - self._heard_until(now), now)
        self._heard[seat] = _Heard(boot_id, beat, now)
        return True

    def _dispute(self, seat: Index, boot_id: BootId, beat: Presence, now: float) -> None:
        """Two processes speak for one seat. The later start counts; but it may be somebody who stole no more than the
        identity, so what the other says of its shares is kept beside it."""
        other, own = self._others.get(seat), self._heard.get(self._own)
        shown_again = other is not None and boot_id == other.boot_id and beat.seq <= other.beat.seq
        old = own is not None and beat.sent_ms < own.beat.sent_ms - DISPUTE_MS
        if not shown_again and not old:
            self._others[seat] = _Heard(boot_id, beat, now)

    def _heard_until(self, now: float) -> float:
        """Up to when we could have heard somebody: now, unless our own beats do not come back."""
        own = self._heard.get(self._own)
        return now if own is None else min(now, own.at + self._suspect_after / 2)

    def _forgive(self, seconds: float, now: float) -> None:
        """Nobody could be heard for so long."""
        if seconds > 0:
            for seat, heard in self._heard.items():
                self._heard[seat] = replace(heard, at=min(now, heard.at + seconds))

    def changed(self, now: float) -> Mapping[Index, Peer] | None:
        """Return who is live now, if that differs from what was returned last; else None."""
        until = self._heard_until(now)
        live = {
            seat: Peer(
                index=seat,
                boot_id=heard.boot_id,
                draining=heard.beat.draining,
                epochs=_held(heard),
                disputed=_held(other)
                if (other := self._others.get(seat)) is not None and until - other.at < self._suspect_after
                else {},
            )
            for seat, heard in self._heard.items()
            if until - heard.at < self._suspect_after
        }
        if live == self._live:
            return None
        self._live = live
        return dict(live)

    def beats(self) -> Mapping[Index, Presence]:
        """The last beat of each live seat."""
        return {seat: heard.beat for seat, heard in self._heard.items() if seat in self._live}

    def silence_s(self, now: float) -> Mapping[Index, float]:
        """How long ago each seat's last word was."""
        return {seat: now - heard.at for seat, heard in self._heard.items()}

    def live(self) -> Mapping[Index, Peer]:
        """As ``changed`` returned last."""
        return self._live
