"""A table of pending requests with one in it, and a routing table that says what a test wants."""

import uuid
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from common.ids import BootId, Epoch, Index, Instant, KeyId, RecordId, RequestId
from common.wire.messages import Accepted, Mode, MsgSigned, Outcome, RefusalCode, Refused, Signed, SignItem
from rest_api.correlation import Correlation, Step

US = BootId("us")
KEY = KeyId("default")
ONE, TWO, THREE = Index(1), Index(2), Index(3)
GOOD = Signed(b"good" * 16, KEY, Epoch(1), (ONE, TWO))
BAD = Signed(b"evil" * 16, KEY, Epoch(1), (ONE, TWO))
BUSY = Refused(RefusalCode.OVERLOADED, "", retryable=True)
NEVER = Refused(RefusalCode.UNKNOWN_KEY, "", retryable=False)


def item(n: int = 0, mode: Mode = Mode.SIGN) -> SignItem:
    request_id = RequestId(str(uuid.UUID(int=n)))
    return SignItem(request_id, KEY, mode, b"", "anonymous", Instant(0), Instant(5000))


def verify(asked: SignItem, signed: Signed) -> bool:
    return signed.signature == GOOD.signature and signed.key_id == asked.key_id


def boot(seat: int) -> BootId:
    return BootId(f"boot-{seat}")


def record(n: int) -> RecordId:
    return RecordId(f"record-{n}")


@dataclass
class FakeView:
    """A routing table that says what the test wants. Seat i reads partition i."""

    up: set[Index] = field(default_factory=lambda: {ONE, TWO, THREE})
    boots: dict[Index, BootId] = field(default_factory=lambda: {i: boot(i) for i in (ONE, TWO, THREE)})
    going: set[Index] = field(default_factory=set)
    owners: dict[int, Index] = field(default_factory=lambda: {1: ONE, 2: TWO, 3: THREE})
    unread: set[int] = field(default_factory=set)
    t: int = 2

    def live(self) -> AbstractSet[Index]:
        return self.up - self.going

    def suspected(self, seat: Index, boot: BootId) -> bool:
        return seat not in self.up or self.boots[seat] != boot

    def draining(self, seat: Index) -> bool:
        return seat in self.going

    def owner(self, partition: int) -> tuple[Index, BootId] | None:
        seat = self.owners.get(partition)
        return (seat, self.boots[seat]) if seat is not None and seat in self.up else None

    def dark(self, partition: int) -> bool:
        return partition in self.unread

    def blocking(self, key_id: KeyId) -> int:
        return 2

    def threshold(self, key_id: KeyId) -> int:
        return self.t


class Table:
    """A table with one request at a seat."""

    def __init__(self, seat: Index | None = ONE, mode: Mode = Mode.SIGN) -> None:
        self.view = FakeView()
        self.correlation = Correlation(US, verify)
        self.item = item(mode=mode)
        self.records = 0
        self.correlation.open(self.item, 5.0)
        self.send(seat)

    def send(self, seat: Index | None) -> bool:
        self.records += 1
        at = boot(seat) if seat is not None else None
        return self.correlation.sent(self.item.request_id, record(self.records), seat or 1, seat, at)

    def answer(
        self, result: Signed | Refused | Accepted, seat: Index | None, to: int = 1, instance: BootId = US
    ) -> Step:
        outcome = Outcome(self.item.request_id, result)
        return self.correlation.answered(MsgSigned(record(to), instance, (outcome,)), seat, self.view)
