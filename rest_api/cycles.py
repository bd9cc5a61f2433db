"""What is asked of uvicorn's cycles: one is a request with its answer, from the end of its headers on."""

import asyncio
from collections.abc import Callable, Sized
from typing import Final
from weakref import ref

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

PER_HEADER_BYTES: Final = 150
"""What a header costs us beside its own bytes: thousands of empty ones would be thirty times what was sent."""


class Flow(FlowControl):
    """Reads nothing while requests wait for the answer to one before them.

    uvicorn pauses when one comes, and goes on as soon as any application asks for a body, its own being whole or not:
    what waits could grow as long as an answer takes.
    """

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Unless some wait."""
        if not self._waiting:
            super().resume_reading()


def gone(cycle: RequestResponseCycle) -> Callable[[], bool]:
    """Tells whether nobody waits for that answer any more. It holds nothing: the request's scope holds it."""
    there = ref(cycle)

    def is_gone() -> bool:
        found = there()
        return found is None or found.disconnected

    return is_gone


def head_bytes(cycle: RequestResponseCycle) -> int:
    """What the head of a request that waits holds of our memory, beside its kilobyte."""
    scope = cycle.scope
    headers = sum(len(name) + len(value) + PER_HEADER_BYTES for name, value in scope["headers"])
    return headers + len(scope["raw_path"] or b"") + len(scope["query_string"])


def nothing() -> None:
    """Done where nobody has to be told that a cycle was answered."""
