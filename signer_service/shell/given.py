"""What a replica is made of, read and checked before anything is connected."""

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Given:
    """By the composition root."""

    settings: Settings
    boot_id: BootId
    identity: Secret[bytes]
    roster_watch: RosterWatch
    roster_raw: bytes
    roster: Roster
    wire: Wire
    ceremony: CeremonyState
    """Restored, or new."""
    directory: StateDir
    saved: Saved | None
    sources: Sources
    metrics: Metrics
    spans: Spans | None = None
    """Where spans go; None: nowhere."""
