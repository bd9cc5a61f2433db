"""What a replica is made of, read and checked before anything is connected."""

from dataclasses import dataclass

from common.errors import Bug
from common.ids import BootId
from common.observability.metrics import Metrics
from common.observability.spans import Spans
from common.secret import Secret
from common.wire.messages import Roster
from signer_service.protocol.ceremony_state import CeremonyState
from signer_service.protocol.wire import Wire
from signer_service.settings import Settings
from signer_service.shell.journal import Saved, StateDir
from signer_service.shell.roster_file import RosterWatch
from signer_service.shell.sources import Sources


class Restored:
    """The ceremony machine as the disk had it, and the bytes that it was read from: handed over once.

    Whoever kept them would keep, for the life of the process, shares that the machine erases later.
    """

    __slots__ = ("_kept",)

    def __init__(self, state: CeremonyState, saved: Saved | None) -> None:
        self._kept: tuple[CeremonyState, Saved | None] | None = (state, saved)

    def take(self) -> tuple[CeremonyState, Saved | None]:
        """Return both and forget them.

        Raises:
            Bug: they were taken before.
        """
        kept, self._kept = self._kept, None
        if kept is None:
            raise Bug("the restored state was taken twice")
        return kept


@dataclass(frozen=True, slots=True)
class Given:
    """Made by the composition root (``signer_service.app``) out of settings and files."""

    settings: Settings
    boot_id: BootId
    identity: Secret[bytes]
    roster_watch: RosterWatch
    roster_raw: bytes
    roster: Roster
    wire: Wire
    restored: Restored
    directory: StateDir
    sources: Sources
    metrics: Metrics
    spans: Spans | None = None
    """Where spans go; None: nowhere."""
