"""The request records that are ours to finish: from their first byte until their offset may be committed.

A record is finished when the coordinator says so (every item has its answer) and the delivery reports of its answers
and audit events are final. A report of failure is final too: an answer that nobody can be given must not hold up a
partition for ever. No IO.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from common.kafka.port import Record
from signer_service.protocol.machine import Origin
from signer_service.shell.offsets import OffsetBook

Place = tuple[int, int]
"""Partition and offset."""


@dataclass(slots=True, eq=False)
class _Entry:
    record: Record
    items: int = 0
    since: float = 0.0
    deliveries: int = 0
    answered: bool = False


class RecordBook:
    """What is unfinished. ``store(partition, next_offset)`` is called whenever a partition may be committed further."""

    def __init__(self, store: Callable[[int, int], None]) -> None:
        self._store = store
        self._offsets = OffsetBook()
        self._entries: dict[Place, _Entry] = {}
        self._items = 0
        self.on_room: Callable[[], None] = _nothing
        """Called whenever there may be fewer ``items``: what waits for room has nobody else to tell it."""
        self.clock: Callable[[], float] = _no_clock
        """Seconds, for ``on_stage``."""
        self.on_stage: Callable[[str, float], None] = _nobody
        """Called with a stage of a record and how many seconds it took: ``round`` at the coordinator, then ``answer``
        until what is sent for it is confirmed."""

    @property
    def items(self) -> int:
        """Items of records that the coordinator has and that are not finished."""
        return self._items

    def begin(self, record: Record) -> bool:
        """A record was read. Returns whether it is new to us."""
        place = record.partition, record.offset
        if not self._offsets.begin(*place):
            known = self._entries.get(place)
            if known is not None and known.record.value == record.value:
                return False
            # Its offset is one that we have passed: the topic was made again, or cut. No rebalance tells of that.
            self.forget((record.partition,))
            self._offsets.begin(*place)
        self._entries[place] = _Entry(record)
        return True

    def taken(self, origin: Origin, items: int) -> None:
        """The coordinator has it now."""
        entry = self._entries.get((origin.partition, origin.offset))
        if entry is not None:
            entry.items = items
            entry.since = self.clock()
            self._items += items

    def record(self, origin: Origin) -> Record | None:
        """The record as it was read, while it is unfinished."""
        entry = self._entries.get((origin.partition, origin.offset))
        return None if entry is None else entry.record

    def sending(self, partition: int, offset: int) -> Callable[[], None]:
        """Something goes out on behalf of this record. Returns what to call, once, when its outcome is final."""
        entry = self._entries.get((partition, offset))
        if entry is None:
            return _nothing
        entry.deliveries += 1

        def final() -> None:
            entry.deliveries -= 1
            self._settle((partition, offset), entry)

        return final

    def answered(self, partition: int, offset: int) -> None:
        """Nothing more will be sent for it."""
        entry = self._entries.get((partition, offset))
        if entry is not None and not entry.answered:
            entry.answered = True
            self._items -= entry.items
            self._stage("round", entry)
            self._settle((partition, offset), entry)
            self.on_room()

    def unfinished(self, partitions: Iterable[int]) -> int:
        """How many records of these partitions are begun and not finished."""
        return sum(self._offsets.unfinished(partition) for partition in partitions)

    def deliveries(self, partitions: Iterable[int]) -> int:
        """How many answers, audit events and letters about these partitions' records have no final outcome yet."""
        wanted = frozenset(partitions)
        return sum(entry.deliveries for place, entry in self._entries.items() if place[0] in wanted)

    def forget(self, partitions: Iterable[int]) -> None:
        """These partitions are no longer ours: whatever becomes of their records moves no offset any more."""
        gone = frozenset(partitions)
        for partition in gone:
            self._offsets.forget(partition)
        for place in [place for place in self._entries if place[0] in gone]:
            entry = self._entries.pop(place)
            if not entry.answered:
                self._items -= entry.items
        self.on_room()

    def _settle(self, place: Place, entry: _Entry) -> None:
        # A late report for a record of an earlier ownership must not finish the same offset of this one.
        if not entry.answered or entry.deliveries or self._entries.get(place) is not entry:
            return
        del self._entries[place]
        self._stage("answer", entry)
        offset = self._offsets.finish(*place)
        if offset is not None:
            self._store(place[0], offset)

    def _stage(self, stage: str, entry: _Entry) -> None:
        if entry.items:
            now = self.clock()
            self.on_stage(stage, now - entry.since)
            entry.since = now


def _nothing() -> None:
    pass


def _no_clock() -> float:
    return 0.0


def _nobody(stage: str, seconds: float) -> None:
    pass
