"""Sign packages: what a participant's answer names by hash, and how groups share out into records.

The unit is the group: all sessions over one request record with one set of signers. Every signer of the set is sent the
same group, so its hash is computed once per group on each side, and a group with the answer to it is evidence on its
own, whatever else travelled in the same record. Hashing follows ``common.wire.transcript``, not Avro: two encodings of
one group must not have two hashes.
"""

import hashlib
from collections.abc import Iterable
from struct import Struct
from typing import Final

from common.wire import transcript
from common.wire.messages import MAX_SIGN_PACKAGE_BYTES, SignGroup

COMMITMENT_BYTES: Final = 64
_SESSION: Final = Struct(">QI")
_RECORD_OVERHEAD: Final = 4 * 1024
"""Room for the envelope around a package and for the schema's own bytes."""


def group_hash(group: SignGroup, internal_message: bytes = b"") -> bytes:
    """SHA-512/256 (32 bytes) over everything in ``group``, and over what a group without a request signs.

    A seat whose fold of the ceremony log says something else then answers with another hash: that is skew or a forked
    log, not a bad share, and nobody is blamed for it.

    Every commitment must have 64 bytes and every session one counter and one commitment per signer (``well_formed``):
    then the sessions' fixed layout has one reading only.
    """
    counters = Struct(f">{len(group.signers)}Q").pack
    scope = group.scope
    items = [
        scope.key_id.encode(),
        transcript.number(scope.commit_offset + 1),
        scope.open_id,
        transcript.number(group.epoch),
        group.request,
        internal_message,
        counters(*group.signers),
        *(boot.encode() for boot in group.boots),
    ]
    items += [
        b"".join((_SESSION.pack(s.session_id, s.item), counters(*s.counters), *s.commitments)) for s in group.sessions
    ]
    return hashlib.new("sha512_256", transcript.encode(b"sign-group", items), usedforsecurity=True).digest()


def well_formed(group: SignGroup) -> bool:
    """Whether signers and session ids ascend strictly, and boots, counters and commitments are one for each signer."""
    signers = group.signers
    width = len(signers)
    if width == 0 or len(group.boots) != width or signers[0] < 1 or not 0 <= group.scope.commit_offset + 1 < 2**63:
        return False
    # Two entries for one identifier would weigh that seat's share twice.
    if any(signers[i] >= signers[i + 1] for i in range(width - 1)):
        return False
    last_id = -1
    for session in group.sessions:
        # Two sessions of one id would let a coordinator hold a good share against the other session's commitments.
        if session.session_id <= last_id:
            return False
        last_id = session.session_id
        if len(session.counters) != width or len(session.commitments) != width:
            return False
        if min(session.counters) < 0 or session.item < 0:
            return False
        for commitment in session.commitments:
            if len(commitment) != COMMITMENT_BYTES:
                return False
    return True


def size_bound(group: SignGroup) -> int:
    """At least the number of bytes that ``group`` takes in an encoded package."""
    width = len(group.signers)
    return _frame_bytes(len(group.request), width) + len(group.sessions) * _session_bytes(width)


def most_sessions(request_bytes: int, width: int) -> int:
    """How many sessions of ``width`` signers fit into one package beside a request; at least 1."""
    room = MAX_SIGN_PACKAGE_BYTES - _RECORD_OVERHEAD - _frame_bytes(request_bytes, width)
    return max(1, room // _session_bytes(width))


def _frame_bytes(request_bytes: int, width: int) -> int:
    # A varint has at most 10 bytes, a boot id 36 and its length 1.
    return request_bytes + 256 + 48 * width


def _session_bytes(width: int) -> int:
    # A commitment has 64 bytes and its length 2, its counter at most 10.
    return 32 + 76 * width


def share_out(groups: Iterable[SignGroup]) -> list[tuple[SignGroup, ...]]:
    """Split ``groups``, in order, into as few records as the size limit of a package needs; usually one."""
    records: list[tuple[SignGroup, ...]] = []
    batch: list[SignGroup] = []
    size = _RECORD_OVERHEAD
    for group in groups:
        more = size_bound(group)
        if batch and size + more > MAX_SIGN_PACKAGE_BYTES:
            records.append(tuple(batch))
            batch, size = [], _RECORD_OVERHEAD
        batch.append(group)
        size += more
    if batch:
        records.append(tuple(batch))
    return records
