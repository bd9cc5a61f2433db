"""Log lines that a stranger, or an outage, could cause by the thousand: a few in ten seconds of each kind."""

from collections.abc import Callable
from typing import Final

from common.observability.logging import Logger

EVERY_S: Final = 10.0


class Lines:
    """A logger with a brake on warnings. ``event`` texts are constants: there are only so many kinds."""

    def __init__(self, logger: Logger, clock: Callable[[], float]) -> None:
        self._logger = logger
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}
        self._kept: dict[str, int] = {}

    def info(self, event: str, **fields: object) -> None:
        """Always said."""
        self._logger.info(event, **fields)

    def error(self, event: str, **fields: object) -> None:
        """Always said."""
        self._logger.error(event, **fields)

    def warn(self, event: str, burst: int = 1, **fields: object) -> None:
        """Said unless ``burst`` of the kind were in these ten seconds; ``more`` counts what was kept back before."""
        now = self._clock()
        since, said = self._said.get(event, (now, 0))
        if now - since >= EVERY_S:
            since, said = now, 0
        if said >= burst:
            self._kept[event] = self._kept.get(event, 0) + 1
            return
        self._said[event] = since, said + 1
        kept = self._kept.pop(event, 0)
        self._logger.warning(event, **fields, **({"more": kept} if kept else {}))
