"""What a person is told to do about state that cannot be used: the one line from which he decides what to delete.

A replica that is healed loses the share that it had. What is merely in the wrong place may look the same at every seat,
and who healed them all would have destroyed the key: only of a file that is broken is healing spoken of at all.
"""

from typing import Final

_AT_LAST: Final = (
    "only if there is none any more, and while t other replicas hold shares, move the whole state directory away and "
    "let the replica be healed, one replica at a time"
)
HEAL: Final = f"put the right file back; {_AT_LAST}"
"""The file is broken, or of another moment than those beside it."""

SEALING_KEY: Final = f"put the right one back (where other replicas say the same, it is the sealing key); {_AT_LAST}"
"""It does not open, which a wrong sealing key looks like as well."""

VERSION: Final = f"run the version of this program that wrote it; {_AT_LAST}"
"""It is whole, and nothing that we know."""

SEAT: Final = (
    "another replica's state directory is mounted, or INDEX is not this replica's: put that right; delete and move "
    "nothing, what is in it is whole"
)
OPERATOR: Final = (
    "another operator.pub than before is mounted, or another system's state directory: put that right; delete and move "
    "nothing, what is in it is whole"
)

CHECKPOINT: Final = (
    "ask every replica for its key records (python -m signer_service key-records), and have provision --key-records "
    "make the roster of the next log generation from the newest; delete and move nothing, the shares are whole. Only "
    "where going back was meant (key-records --epoch), and t other replicas hold shares of that older epoch and sign "
    "with them: move this replica's whole state directory away and let it be healed"
)
"""The operator went on from a key record that was not the newest: by mistake, or since nobody can sign with that."""

PREFIX: Final = "the topic prefix is not what it was: set it back; delete and move nothing, the shares are whole"
"""Key records are attested for the name of a topic: under another one nobody believes them."""
