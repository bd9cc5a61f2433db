"""Who is alive, by their beats on our own clock. No IO.

The broker is not trusted: it can hold beats back (a replica then looks dead, which costs availability only) or show an
old one again. An old beat of a live seat is therefore ignored: of one boot only a higher ``seq`` counts, and another
boot only if it started later, as long as the one we know is not itself overdue.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from common.ids import BootId, Index
from common.wire.messages import Presence
from signer_service.protocol.machine import Peer


@dataclass(frozen=True, slots=True)
class _Heard:
    boot_id: BootId
    beat: Presence
    at: float


class PeerWatch:
    """The live seats. Times are ``monotonic`` seconds."""

    def __init__(self, suspect_after_s: float) -> None:
        self._suspect_after = suspect_after_s
        self._heard: dict[Index, _Heard] = {}
        self._live: dict[Index, Peer] = {}

    def beat(self, seat: Index, boot_id: BootId, beat: Presence, now: float) -> bool:
        """Take a beat whose envelope verified. Returns whether it was a new word of that seat."""
        known = self._heard.get(seat)
        if known is not None and now - known.at < self._suspect_after:
            if boot_id == known.boot_id:
                if beat.seq <= known.beat.seq:
                    return False
            elif beat.started_ms < known.beat.started_ms:
                return False
        elif known is not None and boot_id == known.boot_id and beat.seq <= known.beat.seq:
            # However long it was silent: a beat that was heard before is no sign of life.
            return False
        self._heard[seat] = _Heard(boot_id, beat, now)
        return True

    def changed(self, now: float) -> Mapping[Index, Peer] | None:
        """Return who is live now, if that differs from what was returned last; else None."""
        live = {
            seat: Peer(
                index=seat,
                boot_id=heard.boot_id,
                draining=heard.beat.draining,
                epochs={key.key_id: key.epoch for key in heard.beat.keys if key.holds_share},
            )
            for seat, heard in self._heard.items()
            if now - heard.at < self._suspect_after
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
