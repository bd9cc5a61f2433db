"""An Open to heal: it names the seat, and proves that its sender holds a share of the current epoch.

A seat that is healed takes part without a proof of its own, so that t seats have to vouch that it lost its share. Their
identity keys are not enough for that: whoever was in t seats once, each in another epoch, has t of those, could open
such a ceremony in the name of a seat that is well, and announce faster than it. Shares of the current epoch it has of
fewer than t seats, so one of the t is honest.

``Open.evidence`` is then u16 big-endian seat ‖ Schnorr proof (64) of s_i.
"""

from typing import Final

from common.errors import BadInput
from common.ids import Index
from common.wire.messages import Open, OpenReason
from signer_service.frost import proofs
from signer_service.frost.group import Element
from signer_service.protocol import transcript
from signer_service.protocol.ceremony_state import HeldShare
from signer_service.protocol.machine import Entropy

_SEAT_BYTES: Final = 2


def healed(said: Open) -> Index | None:
    """The seat that an Open names, if it is one to heal. Opens are equal only if they name the same, or none."""
    if said.reason is not OpenReason.HEAL:
        return None
    return Index(int.from_bytes(said.evidence[:_SEAT_BYTES], "big"))


def evidence(said: Open, sender: Index, seat: Index, held: HeldShare, entropy: Entropy) -> bytes:
    """What makes ``said`` an Open of ``sender`` to heal ``seat``."""
    context = transcript.heal_proof(said, sender, seat)
    proof = proofs.prove(held.share, Element(held.verification_share), context, entropy(64))
    return seat.to_bytes(_SEAT_BYTES, "big") + proof


def is_proved(said: Open, sender: Index, seat: Index, verification_share: bytes) -> bool:
    """Whether the evidence shows that ``sender`` holds the share of ``verification_share``."""
    context = transcript.heal_proof(said, sender, seat)
    try:
        proofs.verify_proof(Element(verification_share), context, said.evidence[_SEAT_BYTES:])
    except BadInput:
        return False
    return True
