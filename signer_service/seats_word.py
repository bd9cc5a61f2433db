"""Which epoch of each key the seats say they are in: beats that presence still keeps, each in its seat's envelope.

What lies on ``signer.v1.keys`` may be older than what seats hold: a broker lost the end of it, was restored, or lies.
Nobody but the seats themselves can know.
"""

from collections.abc import Mapping

from common.errors import BadInput
from common.ids import Index, KeyId
from common.wire import codec
from common.wire.envelope import open_envelope
from common.wire.messages import Envelope, Presence, Role, Roster

Said = Mapping[KeyId, Mapping[Index, int]]
"""By key and seat: the newest epoch that the seat ever spoke of."""


class SeatsWord:
    """Takes beats; believes those of the seats of ``roster`` on ``topic``."""

    def __init__(self, topic: str, roster: Roster) -> None:
        self._topic = topic
        self._identities = {seat.index: seat.identity_key for seat in roster.seats}
        self._said: dict[KeyId, dict[Index, int]] = {}

    @property
    def said(self) -> Said:
        """So far."""
        return self._said

    def take(self, raw: bytes) -> None:
        """One record of the topic; whatever is no beat of a seat is passed by."""
        try:
            if codec.decode(raw, Envelope).role is not Role.SIGNER:
                return
            opened = open_envelope(raw, self._topic, self._keys_of)
            beat = codec.decode(opened.payload, Presence)
        except BadInput:
            return
        for key in beat.keys:
            self.heard(key.key_id, Index(opened.index), key.epoch)

    def heard(self, key_id: KeyId, seat: Index, epoch: int) -> None:
        """A seat holds or speaks of this epoch; 0: none."""
        if epoch > 0:
            of_key = self._said.setdefault(key_id, {})
            of_key[seat] = max(epoch, of_key.get(seat, 0))

    def _keys_of(self, role: Role, index: int) -> tuple[bytes, ...]:
        key = self._identities.get(Index(index)) if role is Role.SIGNER else None
        return () if key is None else (key,)
