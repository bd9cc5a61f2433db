"""The single fields that records share, with their bounds: numbers, times, names, keys, seats."""

from collections.abc import Callable
from typing import Any, Final

from common.errors import BadInput
from common.ids import MAX_INDEX, NO_OFFSET, parse_key_id
from common.wire.conversion import fixed, in_order, integer, integer_array
from common.wire.names import encodable, matching, text

MAX_SEATS: Final = 255
"""Of a committee. Every participant computes with every other's commitment: far below this, signing is too slow."""

MAX_SESSIONS: Final = 4096
"""Sessions in one SignPackage, and answers in one SignatureShares."""

MAX_DETAIL: Final = 512
"""Characters of a text for a person."""


def _key_id(value: str) -> bool:
    try:
        parse_key_id(value)
    except BadInput:
        return False
    return True


def ascending_by(name: str) -> Callable[[tuple[Any, ...]], None]:
    """A check that refuses records unless their field ``name`` ascends."""
    return lambda values: in_order([getattr(value, name) for value in values])


COUNTS: Final = (0, 2**53 - 1)  # what JSON and JavaScript hold exactly
SMALLS: Final = (0, 2**31 - 1)
COUNT: Final = integer(*COUNTS)
SMALL: Final = integer(*SMALLS)
SIGNED_SMALL: Final = integer(1 - 2**31, 2**31 - 1)
POSITIVE: Final = integer(1, 2**31 - 1)
INSTANT: Final = integer(1, 2**53 - 1)
MAYBE_INSTANT: Final = COUNT
EPOCH: Final = integer(1, 2**53 - 1)
EPOCH_OR_NONE: Final = COUNT
OFFSET: Final = integer(0)
OFFSET_OR_NONE: Final = integer(NO_OFFSET)
INDEX: Final = integer(1, MAX_INDEX)
KEY_ID: Final = text(1, 63, _key_id, repeats=True)
TOPIC: Final = matching(r"[A-Za-z0-9._-]{1,249}", 249)
DETAIL: Final = text(0, MAX_DETAIL)
ANY_TEXT: Final = text(0, MAX_DETAIL, encodable)
B32: Final = fixed(32)
B48: Final = fixed(48)
B64: Final = fixed(64)
SEATS_OR_NONE: Final = integer_array((1, MAX_INDEX), 0, MAX_SEATS, ascending=True)
SEATS: Final = integer_array((1, MAX_INDEX), 1, MAX_SEATS, ascending=True)
