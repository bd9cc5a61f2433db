"""The full topic names of one system, made once."""

from dataclasses import dataclass

from common.ids import Index
from common.wire import topics


@dataclass(frozen=True, slots=True)
class Names:
    """Topics of the system whose names begin with ``prefix``."""

    prefix: str
    requests: str
    presence: str
    ceremony: str
    keys: str
    audit: str

    def peer(self, seat: Index) -> str:
        """Where ``seat`` is spoken to."""
        return f"{self.prefix}signer.v1.peer{seat}"


def names(prefix: str) -> Names:
    """Return the names.

    Raises:
        BadInput: code ``topic-prefix``.
    """
    return Names(
        prefix,
        topics.requests(prefix).name,
        topics.presence(prefix).name,
        topics.ceremony(prefix).name,
        topics.keys(prefix).name,
        topics.audit(prefix).name,
    )
