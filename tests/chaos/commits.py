"""The offsets that the consumer group has committed, each with its moment, out of the group coordinator's own log.

The layout is Kafka's OffsetCommitKey and OffsetCommitValue (group-coordinator, common/message/*.json):
big-endian, strings with a length of 16 bits. Versions 0 and 1 of the key are offsets; others are members of groups.
"""

import struct
from dataclasses import dataclass

TOPIC = "__consumer_offsets"


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything of ``partition`` below ``offset`` was finished, a member said; it was taken at ``at_ms``."""

    partition: int
    offset: int
    at_ms: int


def parse(key: bytes, value: bytes, group: str, topic: str) -> Commit | None:
    """The commit in one record of the log, if it is one of ``group`` for ``topic``.

    Raises:
        ValueError: it begins as an offset and cannot be read.
    """
    try:
        version, length = struct.unpack_from(">hh", key)
        if version not in (0, 1) or not value:  # a member, or an offset that was forgotten
            return None
        found_group = key[4 : 4 + length].decode()
        (topic_length,) = struct.unpack_from(">h", key, 4 + length)
        at = 6 + length
        found_topic = key[at : at + topic_length].decode()
        (partition,) = struct.unpack_from(">i", key, at + topic_length)
        offset, at_ms = _value(value)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise ValueError(f"not an offset of a group: {error}") from None
    return Commit(partition, offset, at_ms) if (found_group, found_topic) == (group, topic) else None


def _value(value: bytes) -> tuple[int, int]:
    """Offset and moment: the epoch of the leader stands between them from version 3 on, and the member's own text,
    which is empty here and short everywhere; its length takes one byte (plus one) from version 4 on, else two."""
    version, offset = struct.unpack_from(">hq", value)
    at = 10 + (4 if version >= 3 else 0)
    if version >= 4:
        at += 1 + max(0, value[at] - 1)
    else:
        (length,) = struct.unpack_from(">h", value, at)
        at += 2 + max(0, length)
    (at_ms,) = struct.unpack_from(">q", value, at)
    return offset, at_ms
