"""The public copies of key records on ``signer.v1.keys``: where to begin to read the log, and whether they are right.

Whoever may write to Kafka may write there. A copy is believed because of what is in it, never because of its place.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from common.errors import BadInput
from common.ids import KeyId, parse_key_id
from common.kafka.port import Record
from common.wire import codec
from common.wire.messages import KeyRecord
from signer_service.protocol.ceremony_state import KeyCopySeen

KEPT: Final = 8
"""Newest copies of a key that are kept while others are read: so much rubbish after a true one hides it."""
MAX_KEYS: Final = 256
"""Keys of which copies are kept: rubbish under names that are no key's must not fill the memory."""


class KeyCopies:
    """Until ``show`` copies are collected, and not looked at: the topic may hold one of each epoch. Then each is."""

    def __init__(
        self,
        check: Callable[[bytes], KeyRecord],
        believed: Callable[[KeyId], KeyRecord | None],
        feed: Callable[[KeyCopySeen], None],
        on_garbage: Callable[[Record, str], None],
    ) -> None:
        self._check = check
        self._believed = believed
        self._feed = feed
        self._on_garbage = on_garbage
        self._kept: dict[KeyId, deque[Record]] | None = {}
        self.next = 0
        """Offset after the last record that came."""

    def deliver(self, records: Sequence[Record]) -> None:
        """Records of the topic, in order."""
        for record in records:
            self.next = record.offset + 1
            try:
                key_id = parse_key_id((record.key or b"").decode("ascii"))
            except (BadInput, UnicodeDecodeError):
                self._on_garbage(record, "key-id")
                continue
            if self._kept is None:
                self._look(key_id, record)
            elif key_id in self._kept or len(self._kept) < MAX_KEYS:
                self._kept.setdefault(key_id, deque(maxlen=KEPT)).append(record)

    def newest_first(self) -> Mapping[KeyId, Sequence[bytes]]:
        """What was collected, by key."""
        return {key_id: [each.value for each in reversed(kept)] for key_id, kept in (self._kept or {}).items()}

    @property
    def shown(self) -> bool:
        """Whether copies are looked at as they come."""
        return self._kept is None

    def show(self) -> None:
        """The log was read: now the machine can tell whether a copy is right. A wrong one it writes anew."""
        kept, self._kept = self._kept or {}, None
        for key_id, records in kept.items():
            self._look(key_id, records[-1])

    def _look(self, key_id: KeyId, record: Record) -> None:
        # A copy of what the log has shown already needs no proof. After each commit every replica reads one.
        found = self._believed(key_id)
        if found is None or codec.encode(found) != record.value:
            try:
                found = self._check(record.value)
            except BadInput as error:
                found = None
                self._on_garbage(record, error.code)
        self._feed(KeyCopySeen(key_id, found))
