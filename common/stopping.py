"""What a signal does while a process has nothing yet that would have to be put in order."""

import signal
import sys
from types import FrameType
from typing import Final

STOPS: Final = (signal.SIGTERM, signal.SIGINT)


def leave_at_once() -> None:
    """Let SIGTERM and SIGINT end this process with exit code 0, until an event loop's handlers take their place.

    For the start of a service, before its long imports: without this a rollout that changes its mind looks like a
    crash. Call it from the main thread.
    """
    for number in STOPS:
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
