"""What the protocol hashes and what the group key signs: length-prefixed items, never Avro.

Avro is transport only: two schemas may encode the same facts differently, and a hash must not. Every transcript begins
with the suite and its purpose, so that nothing made for one purpose can be presented for another, and every item
carries its length, so that no two lists of items give the same bytes.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

from common.ids import Index, Offset
from common.wire.messages import RESERVED_PREFIX, KeyRecord

SUITE: Final = b"signer-flow/v1 FROST-ED25519-SHA512-v1"
LOG_START_HASH: Final = bytes(64)
"""Running hash of the ceremony log before its first record."""


def encode(purpose: bytes, items: Iterable[bytes]) -> bytes:
    """Return u32 big-endian length ‖ bytes for the suite, ``purpose`` and each item, one after another."""
    return b"".join(len(item).to_bytes(4, "big") + item for item in (SUITE, purpose, *items))


def digest(purpose: bytes, *items: bytes) -> bytes:
    """Return the SHA-512 (64 bytes) of ``encode(purpose, items)``."""
    return hashlib.sha512(encode(purpose, items)).digest()


def number(value: int) -> bytes:
    """Return ``value`` (0 to 2**64 - 1) as 8 bytes big-endian: the one way in which a transcript holds a number."""
    return value.to_bytes(8, "big")


def next_log_hash(previous: bytes, offset: Offset, raw: bytes) -> bytes:
    """Running hash of the ceremony log: H(previous ‖ offset u64 big-endian ‖ raw value). Garbage records count too."""
    return hashlib.sha512(previous + number(offset) + raw).digest()


def verification_hash(verification_shares: Mapping[Index, bytes]) -> bytes:
    """Hash of all Y_j, ascending by index: what a Ready record attests of them."""
    items = [part for j in sorted(verification_shares) for part in (number(j), verification_shares[j])]
    return digest(b"verification-shares", *items)


def key_record_message(record: KeyRecord) -> bytes:
    """The bytes that the group key signs for a key record: reserved prefix ‖ transcript hash. 88 bytes.

    Everything in the record but its signature is covered. The prefix keeps a user's message from ever being one of
    these: every participant refuses a user's message that begins with it.
    """
    shares = {share.index: share.element for share in record.verification_shares}
    body = digest(
        b"key-record",
        record.key_id.encode(),
        number(record.epoch),
        record.open_id,
        number(record.threshold),
        record.public_key,
        verification_hash(shares),
        record.roster,
        number(record.log_offset),
        record.log_hash,
        number(len(record.attestations)),
        *record.attestations,
    )
    return RESERVED_PREFIX + body
