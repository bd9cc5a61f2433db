"""The roster as a file: read at start, and again whenever it may have changed.

What the file says of identities and edge keys counts for refusing even before the ceremony log says so: a broker cannot
withhold a revocation. A bad file never replaces a good one that was read before; it is said once.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from common.errors import BadInput
from common.observability.logging import get_logger
from common.trust import newer, read_roster
from common.wire.messages import Roster

_LARGEST: Final = 16 * 1024 * 1024
SETTLED_NS: Final = 5_000_000_000
"""A file that was written this recently is read at every look."""

_log = get_logger(__name__)


class RosterWatch:
    """One roster file, under one operator key."""

    def __init__(self, path: Path, operator_key: bytes) -> None:
        self._path = path
        self._operator_key = operator_key
        self._raw = b""
        self._complaint = ""
        self._roster: Roster | None = None
        self._stamp: tuple[int, ...] | None = None

    def first(self) -> tuple[bytes, Roster]:
        """Read it at start.

        Raises:
            BadInput: code ``roster-file``: missing, unreadable, or not this operator's. One line with the remedy.
        """
        raw = self._read()
        try:
            roster = read_roster(raw, self._operator_key)
        except BadInput as error:
            raise BadInput(
                "roster-file", f"roster {self._path}: {error.detail}: bring the one of this system"
            ) from error
        self._raw, self._roster = raw, roster
        return raw, roster

    def look(self, on_change: Callable[[bytes], None]) -> None:
        """Read it again, if it may have changed; ``on_change`` gets the bytes of a newer one."""
        stamp = self._stamp_of()
        if stamp is not None and stamp == self._stamp:
            return
        self._stamp = None  # what cannot be read may be at the next look, the same file
        try:
            raw = self._read()
            self._stamp = stamp
            if raw == self._raw:
                return
            roster = read_roster(raw, self._operator_key)
            counts = roster if self._roster is None else newer(self._roster, roster)
        except BadInput as error:
            if error.detail != self._complaint:
                self._complaint = error.detail
                _log.error("the roster file cannot be used; the one read before stays", reason=error.detail)
            return
        self._raw, self._complaint = raw, ""
        if counts is not roster:
            _log.warning("the roster file is older than the roster in use; it is ignored", version=roster.version)
            return
        self._roster = roster
        _log.info("a newer roster file", version=roster.version)
        on_change(raw)

    def _stamp_of(self) -> tuple[int, ...] | None:
        """What changes when the file does; None where that cannot be told."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        if time.time_ns() - found.st_mtime_ns < SETTLED_NS:
            # A clock that ticks slowly dates two writes alike.
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                raw = file.read(_LARGEST + 1)
        except OSError as error:
            raise BadInput(
                "roster-file",
                f"roster {self._path} cannot be read ({error.strerror}): make it with `provision`, or mount it",
            ) from error
        if len(raw) > _LARGEST:
            raise BadInput("roster-file", f"roster {self._path} is far too large to be one")
        return raw
