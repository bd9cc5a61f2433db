"""What can be wrong with FROST input, sorted by what the caller does next (``common.errors``).

frost/ knows indices, not sessions: where the fault is the sender's and the caller alone knows the sender (an element,
a proof, a sub-share), the error is a ``BadInput`` and the caller names whom to blame. Where the arithmetic itself
proves who lied (``InvalidShare``), the error carries the culprits.
"""

from collections.abc import Iterable

from common.errors import BadInput, PeerFault


class InvalidElement(BadInput):
    """Not the canonical encoding of a point of the prime-order subgroup, or the identity."""

    def __init__(self, detail: str) -> None:
        super().__init__("element", detail)


class InvalidScalar(BadInput):
    """Not the canonical encoding of a scalar: 32 bytes little-endian, below L."""

    def __init__(self, detail: str) -> None:
        super().__init__("scalar", detail)


class InvalidCommitment(BadInput):
    """A commitment or a list of them has the wrong length."""

    def __init__(self, detail: str) -> None:
        super().__init__("commitment", detail)


class DuplicateIdentifier(BadInput):
    """One identifier stands twice in a list where each participant stands once."""

    def __init__(self, index: int) -> None:
        super().__init__("duplicate-identifier", f"identifier {index} stands twice")


class UnknownIdentifier(BadInput):
    """An identifier that is 0, above 65535, not of this committee, or not in this list."""

    def __init__(self, index: int) -> None:
        super().__init__("unknown-identifier", f"identifier {index} has no place here")


class TooFewSigners(BadInput):
    """Fewer participants than the threshold: what came out would not be a signature."""

    def __init__(self, have: int, threshold: int) -> None:
        super().__init__("too-few-signers", f"{have} of at least {threshold} participants")


class CommitmentMismatch(BadInput):
    """The list of commitments does not hold ours as we made it: the coordinator mixed up sessions, or lies."""

    def __init__(self, index: int) -> None:
        super().__init__("commitment-mismatch", f"the commitment of participant {index} is not that of its nonces")


class InvalidProof(BadInput):
    """A Schnorr or DLEQ proof that does not verify for these points and this context."""

    def __init__(self, detail: str) -> None:
        super().__init__("proof", detail)


class InvalidSubShare(BadInput):
    """A dealer's sub-share does not lie on the polynomial that the dealer committed to."""

    def __init__(self) -> None:
        super().__init__("sub-share", "the sub-share does not match the dealer's commitments")


class UnsealFailed(BadInput):
    """Sealed bytes that do not open under this key and context."""

    def __init__(self) -> None:
        super().__init__("sealed", "the sealed bytes do not open with this key and context")


class InvalidShare(PeerFault):
    """These participants' signature shares do not verify against their own commitments and verification shares."""

    def __init__(self, culprits: Iterable[int]) -> None:
        culprits = tuple(culprits)
        super().__init__("signature-share", f"bad signature shares of participants {sorted(culprits)}", culprits)
