"""How much is outstanding per partition, where the broker would otherwise lose the oldest without a word."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from common.ids import RecordId, RequestId

EMBEDDED_ROOM_BYTES: Final = 2 * 1024 * 1024
"""On the embedded broker, which keeps no more than the newest 5 MiB of a partition."""


@dataclass(slots=True)
class _Record:
    partition: int
    size: int
    items: int


class Room:
    """Counts bytes of records until the last of their items has ended. Without a ``limit`` it counts nothing."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._outstanding: Counter[int] = Counter()
        self._records: dict[RecordId, _Record] = {}
        self._records_of: dict[RequestId, list[RecordId]] = {}

    def has(self, partition: int) -> bool:
        """Whether the partition may take another record."""
        return self._limit is None or self._outstanding[partition] < self._limit

    def take(self, record_id: RecordId, partition: int, size: int, requests: Iterable[RequestId]) -> None:
        """A record was sent."""
        if self._limit is None:
            return
        self._outstanding[partition] += size
        count = 0
        for request_id in requests:
            self._records_of.setdefault(request_id, []).append(record_id)
            count += 1
        self._records[record_id] = _Record(partition, size, count)

    def give(self, request_id: RequestId) -> None:
        """A request has ended."""
        for record_id in self._records_of.pop(request_id, ()):
            record = self._records[record_id]
            record.items -= 1
            if record.items == 0:
                self._outstanding[record.partition] -= record.size
                del self._records[record_id]
