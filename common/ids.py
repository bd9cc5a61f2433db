"""Names of things: the small types that every layer shares.

They are ``NewType``s and parsers, so that a seat's index is never mistaken for a partition, and so that a
value that was parsed once, at the edge, needs no second check. Nothing here does IO.
"""

import re
from typing import NewType

from common.errors import BadInput

Index = NewType("Index", int)
"""A seat of the roster (signer replica) or a FROST identifier: 1..65535. Never 0: f(0) is the key."""

PodIndex = NewType("PodIndex", int)
"""N of a rest_api pod, from 0; its answers come on ``signer.v1.resp<N>``."""

KeyId = NewType("KeyId", str)
"""Name of a group key, ``[a-z0-9][a-z0-9-]{0,62}``."""

RequestId = NewType("RequestId", str)
"""UUID, lower-case canonical text, made by the API pod: one per item to sign."""

RecordId = NewType("RecordId", str)
"""UUID, lower-case canonical text: one per ``MsgToSign`` record."""

BootId = NewType("BootId", str)
"""UUID, lower-case canonical text: one per start of a process. An API pod's ``instance_id`` is its boot id."""

EdgeKeyId = NewType("EdgeKeyId", str)
"""First 16 hex digits of SHA-256(edge public key)."""

Epoch = NewType("Epoch", int)
"""Counter per key; the first epoch is 1. Shares of different epochs never mix."""

Offset = NewType("Offset", int)
"""A Kafka offset, from 0; ``NO_OFFSET`` where there is none yet."""

Instant = NewType("Instant", int)
"""Unix time in milliseconds."""

OpenId = NewType("OpenId", bytes)
"""64 bytes: names one attempt of one ceremony (hash of the t Opens that opened it)."""

NO_OFFSET = Offset(-1)
MAX_INDEX = 65535

_KEY_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def parse_key_id(text: str) -> KeyId:
    """Return ``text`` as a key id.

    Raises:
        BadInput: code ``key-id`` when it is not 1 to 63 of ``a-z 0-9 -``, beginning with a letter or digit.
    """
    if _KEY_ID.fullmatch(text) is None:
        raise BadInput("key-id", "a key id is 1 to 63 of a-z, 0-9 and '-', and begins with a letter or digit")
    return KeyId(text)


def parse_uuid(text: str) -> str:
    """Return ``text`` if it is a UUID in lower-case canonical form.

    Raises:
        BadInput: code ``uuid``.
    """
    if _UUID.fullmatch(text) is None:
        raise BadInput("uuid", "expected a UUID in lower-case canonical form")
    return text


def parse_index(value: int) -> Index:
    """Return ``value`` as a seat index.

    Raises:
        BadInput: code ``index`` when it is not in 1..65535 (0 would be the key itself).
    """
    if not 1 <= value <= MAX_INDEX:
        raise BadInput("index", f"a seat index is 1 to {MAX_INDEX}")
    return Index(value)
