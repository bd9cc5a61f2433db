"""The key records that this pod believes, and the committee that they name.

Records come from a compacted topic that anybody with Kafka credentials can write to. ``common.trust`` says what is
believed; the first record of a key is believed by the operator's signature, the attestations and the pins, each later
one besides must not go back in epoch nor change the public key.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from common import ed25519, trust
from common.errors import BadInput, Unavailable
from common.ids import Index, KeyId
from common.wire import codec
from common.wire.messages import KeyRecord, Role, Roster, Signed, SignItem

NO_SUCH_KEY: Final = "there is no key of that name; GET /v1/keys lists those that are there"

MOST_BLOCKING: Final = 255


class KeyDirectory:
    """What is believed now.

    Args:
        roster: The signed roster of the file, read.
        operator_key: 32 bytes.
        ceremony_topic: Full name: attestations count only as said there.
        pins: Public keys that the settings demand.

    Raises:
        BadInput: ``public-key-pinned``: settings and roster pin different keys under one name.
    """

    def __init__(self, roster: Roster, operator_key: bytes, ceremony_topic: str, pins: Mapping[KeyId, bytes]) -> None:
        self._operator_key = operator_key
        self._topic = ceremony_topic
        self._pins = dict(pins)
        self._records: dict[KeyId, KeyRecord] = {}
        self._raw: dict[KeyId, bytes] = {}
        self._committees: dict[KeyId, tuple[int, frozenset[Index]]] = {}
        self._follow(roster)

    def _follow(self, roster: Roster) -> None:
        for key in roster.keys:
            pinned = self._pins.get(key.key_id)
            if pinned is not None and key.public_key and pinned != key.public_key:
                raise BadInput("public-key-pinned", f"{key.key_id}: settings and roster pin different public keys")
        self.roster = roster
        self._identities = {seat.index: seat.identity_key for seat in roster.seats}
        self._thresholds = {key.key_id: key.threshold for key in roster.keys}

    # --- who may speak -----------------------------------------------------------------------------------------------

    def keys_of(self, role: Role, index: int) -> Iterable[bytes]:
        """Public keys that may sign an envelope of that seat or pod."""
        if role is Role.API:
            return self.roster.edge_keys
        identity = self._identities.get(Index(index))
        return () if identity is None else (identity,)

    def seats(self) -> frozenset[Index]:
        """The committee's seats."""
        return frozenset(self._identities)

    def blocking(self, key_id: KeyId) -> int:
        """n - t + 1: with so many seats unwilling, fewer than t are left."""
        threshold = self._thresholds.get(key_id)
        return MOST_BLOCKING if threshold is None else len(self._identities) - threshold + 1

    def threshold(self, key_id: KeyId) -> int:
        """t; of a key that the roster does not have (any more): more than there are seats."""
        return self._thresholds.get(key_id, MOST_BLOCKING)

    def committee(self, key_id: KeyId) -> tuple[int, frozenset[Index]]:
        """t and seats of the epoch that is believed: those that deal in the next ceremony. A newer roster may want
        others, and then makes a ceremony by itself."""
        return self._committees[key_id]

    # --- key records -------------------------------------------------------------------------------------------------

    def take(self, raw: bytes) -> bool:
        """Look at a record of the keys topic.

        Returns:
            Whether something new is believed; False for a copy of what is.

        Raises:
            BadInput: it is not believed (codes of ``common.trust``); nothing has changed.
        """
        if raw in self._raw.values():
            return False
        record = codec.decode(raw, KeyRecord)
        previous = self._records.get(record.key_id)
        trust.check_key_record(
            record, self._operator_key, topic=self._topic, pinned=self._pin(record.key_id), previous=previous
        )
        its_own = trust.read_roster(record.roster, self._operator_key)
        newest = trust.newer(self.roster, its_own)
        if newest is not self.roster:
            self._follow(newest)
        self._records[record.key_id] = record
        self._committees[record.key_id] = (record.threshold, frozenset(seat.index for seat in its_own.seats))
        self._raw[record.key_id] = raw
        return previous is None or record.epoch > previous.epoch

    def _pin(self, key_id: KeyId) -> bytes | None:
        pinned = self._pins.get(key_id)
        if pinned is None:
            pinned = next((key.public_key for key in self.roster.keys if key.key_id == key_id and key.public_key), None)
        return pinned

    def names(self) -> list[KeyId]:
        """Keys that should exist, the default first."""
        return [key.key_id for key in self.roster.keys]

    def believed(self, key_id: KeyId) -> KeyRecord | None:
        """The record of a key, once there is one. A key that the roster no longer has is none."""
        return self._records.get(key_id) if key_id in self._thresholds else None

    def all(self) -> list[KeyRecord]:
        """Every believed record, the default key's first."""
        return [record for key_id in self.names() if (record := self._records.get(key_id)) is not None]

    def choose(self, name: str | None) -> KeyId:
        """The key that a caller means, the roster's first if he names none.

        Raises:
            BadInput: ``unknown-key``.
            Unavailable: ``no-key-yet``: it should exist, and does not so far.
        """
        if name is None:
            if not self.roster.keys:
                raise Unavailable("no-key-yet", "this system has no key")
            key_id = self.roster.keys[0].key_id
        else:
            key_id = KeyId(name)
            if key_id not in self._thresholds:
                raise BadInput("unknown-key", NO_SUCH_KEY, "key_id")
        if key_id not in self._records:
            raise Unavailable("no-key-yet", f"the key {key_id} is still being made")
        return key_id

    def verify(self, item: SignItem, signed: Signed) -> bool:
        """Whether the signature is that of the item's key over the item's message."""
        record = self._records.get(item.key_id)
        if record is None or signed.key_id != item.key_id:
            return False
        return ed25519.verify(record.public_key, item.message, signed.signature)
