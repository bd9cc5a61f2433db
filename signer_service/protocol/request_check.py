"""The one check of an item to sign, by everybody who could add to its signature.

A coordinator applies it to what it takes from the request topic, and every participant applies it again before it gives
a share: nobody trusts the coordinator. What it does not cover is the edge signature, which is over the whole record and
therefore checked once per record (``check_request``), and the key, which each caller looks up in its own view.
"""

from typing import Final

from common.ids import Instant
from common.wire.messages import (
    MAX_DEADLINE_MS,
    MAX_MESSAGE_BYTES,
    RESERVED_PREFIX,
    DeclineReason,
    Mode,
    RefusalCode,
    SignItem,
)

SKEW_MS: Final = 1_000
"""How far two replicas' clocks may differ; one that is further off says so and is not ready."""

DETAILS: Final = {
    RefusalCode.BAD_REQUEST: "the item does not ask for a signature",
    RefusalCode.TOO_LARGE: f"the message is longer than {MAX_MESSAGE_BYTES} bytes",
    RefusalCode.RESERVED_PREFIX: "the message begins with the prefix of this system's own records",
    RefusalCode.DEADLINE_TOO_FAR: f"the deadline is more than {MAX_DEADLINE_MS} ms away",
    RefusalCode.EXPIRED: "the deadline has passed",
}


def check_item(item: SignItem, now: Instant, skew_ms: int = 0) -> RefusalCode | None:
    """Return why ``item`` may not be signed at ``now``, or None if it may.

    Args:
        item: With ``Mode.SIGN``; a refresh is not for signing.
        now: The caller's clock.
        skew_ms: How long after the deadline it is still signed: a participant whose clock is ahead grants the
            coordinator, which keeps the deadline exactly, ``SKEW_MS``.
    """
    if item.mode is not Mode.SIGN:
        return RefusalCode.BAD_REQUEST
    if len(item.message) > MAX_MESSAGE_BYTES:
        return RefusalCode.TOO_LARGE
    # Otherwise anybody with access to the API could have the group key sign a key record of their own making.
    if item.message.startswith(RESERVED_PREFIX):
        return RefusalCode.RESERVED_PREFIX
    deadline = item.deadline_ms
    # A request that stays valid for ever could be replayed for ever.
    if deadline - item.created_ms > MAX_DEADLINE_MS or deadline - now > MAX_DEADLINE_MS + SKEW_MS:
        return RefusalCode.DEADLINE_TOO_FAR
    if now > deadline + skew_ms:
        return RefusalCode.EXPIRED
    return None


def decline_reason(code: RefusalCode) -> DeclineReason:
    """What a participant tells a coordinator of an item that ``check_item`` refuses."""
    return DeclineReason.EXPIRED if code is RefusalCode.EXPIRED else DeclineReason.BAD_REQUEST
