"""Whether one ceremony can bring a key from the seats that hold it to the committee that a newer roster names.

Only seats that hold a share deal, at least t of the old epoch; a ceremony takes in one seat without a share at a time,
and commits with q seats of the new committee. A roster that asks for more could only be tried again and again.
"""

from collections.abc import Mapping

from common.ids import Index, KeyId
from common.quorum import commit_quorum


def refuse_step(
    key_id: KeyId,
    threshold: int,
    holders: Mapping[Index, bytes],
    new_threshold: int,
    new: Mapping[Index, bytes],
) -> str:
    """Why no ceremony can get there; empty if one can.

    Args:
        key_id: For the text.
        threshold: t of the epoch that is held now.
        holders: Seats that hold a share of it, and their identity keys.
        new_threshold: t of the newer roster.
        new: Its seats and their identity keys.
    """
    stay = {seat for seat, identity in holders.items() if new.get(seat) == identity}
    leave = holders.keys() - new.keys()
    # A seat with another identity is another machine: the share of the one before it is gone.
    dealers = len(stay) + len(leave)
    if dealers < threshold:
        return (
            f"key {key_id}: only {dealers} of the seats that hold it would be left and it takes {threshold} to hand it "
            f"on: it would be lost; keep the identities of more seats"
        )
    joining = len(new.keys() - stay)
    receive = len(stay) + min(1, joining)
    needed = commit_quorum(new_threshold, len(new))
    if receive < needed:
        return (
            f"key {key_id}: a committee of {new_threshold} of {len(new)} starts with {needed} seats, and one ceremony "
            f"brings only {receive} there: {len(stay)} that hold a share and one that joins, of {joining}; go there in "
            f"smaller steps, and let each end before the next"
        )
    return ""
