"""Which request records are finished, and so how far a partition may be committed. No IO.

Records finish in any order; only a prefix may be committed, since a crash re-reads everything behind it and nothing
before it. Offsets may have gaps (a log is allowed them), so the prefix runs over the records that were read.
"""

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Partition:
    order: deque[int] = field(default_factory=deque)
    done: set[int] = field(default_factory=set)
    next_offset: int | None = None


class OffsetBook:
    """The unfinished records of the partitions that are ours."""

    def __init__(self) -> None:
        self._partitions: dict[int, _Partition] = {}

    def begin(self, partition: int, offset: int) -> bool:
        """A record was read. Returns whether it is new: one that was read before (a rewound fetch) changes nothing."""
        book = self._partitions.setdefault(partition, _Partition())
        last = book.order[-1] if book.order else (book.next_offset or 0) - 1
        if offset <= last:
            return False
        book.order.append(offset)
        return True

    def finish(self, partition: int, offset: int) -> int | None:
        """A record is finished, for good. Unknown partitions and records, and repeats, change nothing.

        Returns:
            The offset to commit (everything below it is finished), if it moved; else None.
        """
        book = self._partitions.get(partition)
        if book is None or not book.order or not book.order[0] <= offset <= book.order[-1]:
            return None
        if offset != book.order[0]:
            book.done.add(offset)
            return None
        book.order.popleft()
        book.next_offset = offset + 1
        while book.order and book.order[0] in book.done:
            last = book.order.popleft()
            book.done.discard(last)
            book.next_offset = last + 1
        return book.next_offset

    def unfinished(self, partition: int) -> int:
        """How many records of ``partition`` were begun and are not finished."""
        book = self._partitions.get(partition)
        return len(book.order) - len(book.done) if book is not None else 0

    def forget(self, partition: int) -> None:
        """The partition is no longer ours."""
        self._partitions.pop(partition, None)
