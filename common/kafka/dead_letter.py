"""The dead-letter topic: what could not be used is kept as it came, with the reason and where it stood."""

import hashlib

from common.ids import Instant, Offset
from common.kafka.port import OnDelivery, Producer, Record
from common.wire import codec, topics
from common.wire.messages import DeadLetter

KEPT_BYTES = 1000 * 1024
"""Of value and key together: what is left of 1 MiB holds the letter's other fields and the framing."""

MAX_KEY_BYTES = 1024
MAX_DETAIL_CHARS = 500
NO_TIMESTAMP = Instant(-1)


def wrap(record: Record, reason: str, detail: str, found_by: str) -> DeadLetter:
    """Put a record that could not be used into a letter that always fits.

    Args:
        record: As it was read; nothing in it is believed.
        reason: Short and from our own code (an error's ``code``), so that letters can be counted by it.
        detail: One sentence for a person; cut to 500 characters.
        found_by: Which process found it, ``signer-2`` say.

    Returns:
        The letter. A key above 1 KiB and a value above what is left are cut; length and SHA-256 are of the whole value.
    """
    key = (record.key or b"")[:MAX_KEY_BYTES]
    return DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=Offset(record.offset),
        timestamp_ms=NO_TIMESTAMP if record.timestamp_ms is None else Instant(record.timestamp_ms),
        reason=reason,
        # Lone surrogates, from somebody's odd file or header name, are no text that can be written.
        detail=detail[:MAX_DETAIL_CHARS].encode("utf-8", "replace").decode(),
        found_by=found_by,
        key=key,
        value=record.value[: KEPT_BYTES - len(key)],
        value_length=len(record.value),
        value_sha256=hashlib.sha256(record.value).digest(),
    )


def send(
    producer: Producer,
    prefix: str,
    record: Record,
    reason: str,
    detail: str,
    found_by: str,
    on_delivery: OnDelivery | None = None,
) -> None:
    """Write the letter to the dead-letter topic; arguments as for ``wrap`` and ``Producer.send``.

    Raises:
        Unavailable: as ``Producer.send``: the offset must not move on, or the bytes would be nowhere.
    """
    letter = codec.encode(wrap(record, reason, detail, found_by))
    producer.send(topics.dead_letters(prefix).name, letter, on_delivery=on_delivery)
