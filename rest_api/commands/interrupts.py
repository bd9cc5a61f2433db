"""Ctrl-C where it does no harm: while a command waits, never between two halves of what it writes."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Interrupts:
    """SIGINT and SIGTERM raise KeyboardInterrupt inside ``welcome``; elsewhere they are kept until the next one."""

    def __init__(self) -> None:
        self._welcome = False
        self._waiting = False

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Take the signals over, on the main thread, until the block ends."""
        before = {number: signal.signal(number, self._told) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def welcome(self) -> Iterator[None]:
        """A stretch that may be broken off at any point."""
        self._welcome = True
        try:
            if self._waiting:
                self._waiting = False
                raise KeyboardInterrupt
            yield
        finally:
            self._welcome = False

    def _told(self, _number: int, _frame: FrameType | None) -> None:
        if self._welcome:
            self._welcome = False  # once: what cleans up after it is not to be broken off
            raise KeyboardInterrupt
        self._waiting = True
