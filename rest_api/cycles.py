"""What is asked of uvicorn's cycles: one is a request with its answer, from the end of its headers on."""

from collections.abc import Callable
from typing import Final
from weakref import ref

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

PER_HEADER_BYTES: Final = 150
"""What a header costs us beside its own bytes: thousands of empty ones would be thirty times what was sent."""


def gone(cycle: RequestResponseCycle) -> Callable[[], bool]:
    """Tells whether nobody waits for that answer any more. It holds nothing: the request's scope holds it."""
    there = ref(cycle)

    def is_gone() -> bool:
        found = there()
        return found is None or found.disconnected

    return is_gone


def held_bytes(cycle: RequestResponseCycle) -> int:
    """What a request that waits holds of our memory, beside its kilobyte."""
    scope = cycle.scope
    headers = sum(len(name) + len(value) + PER_HEADER_BYTES for name, value in scope["headers"])
    return headers + len(scope["raw_path"] or b"") + len(scope["query_string"]) + len(cycle.body)


def nothing() -> None:
    """Done where nobody has to be told that a cycle was answered."""
