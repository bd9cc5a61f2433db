"""What a tick collected, cut into records: one edge signature, one record and one audit record for up to 64 items."""

from collections.abc import Iterable, Iterator
from typing import Final

from common.ids import BootId, EdgeKeyId, RecordId
from common.secret import Secret
from common.wire import envelope
from common.wire.messages import MAX_ITEMS, MAX_MSG_TO_SIGN_BYTES, MsgToSign, SignItem

_FRAME_BYTES: Final = 1024
_ITEM_BYTES: Final = 160


def item_bytes(item: SignItem) -> int:
    """An upper bound of the encoded size of one item."""
    return len(item.message) + 4 * len(item.principal) + len(item.key_id) + _ITEM_BYTES


def cut(items: Iterable[SignItem]) -> Iterator[list[SignItem]]:
    """Yield the items in order, in lists that each fit a record: at most 64 items and 512 KiB."""
    chunk: list[SignItem] = []
    room = MAX_MSG_TO_SIGN_BYTES - _FRAME_BYTES
    for item in items:
        size = item_bytes(item)
        if chunk and (len(chunk) == MAX_ITEMS or size > room):
            yield chunk
            chunk, room = [], MAX_MSG_TO_SIGN_BYTES - _FRAME_BYTES
        chunk.append(item)
        room -= size
    if chunk:
        yield chunk


def seal(
    record_id: RecordId,
    items: Iterable[SignItem],
    reply_to: str,
    instance_id: BootId,
    edge_key_id: EdgeKeyId,
    edge_key: Secret[bytes],
) -> bytes:
    """Return the encoded record with this pod's signature over all of it."""
    request = MsgToSign(record_id, tuple(items), reply_to, instance_id, edge_key_id)
    return envelope.sign_request(request, edge_key)


def headers(
    record_id: RecordId, items: Iterable[SignItem], reply_to: str, instance_id: BootId
) -> list[tuple[str, bytes]]:
    """Kafka headers for routing; those for tracing come after. What matters for security stands in the signed body."""
    return [
        ("record-id", record_id.encode()),
        ("reply-to", reply_to.encode()),
        ("deadline-ms", str(max(item.deadline_ms for item in items)).encode()),
        ("instance-id", instance_id.encode()),
    ]
