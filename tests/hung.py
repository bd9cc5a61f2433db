"""No test hangs for ever: a phase of one that has not ended long after its time-out ends the whole process.

The time-out of a test (pytest-timeout) raises in the main thread, once. Where that thread is inside a C call, or where
the coroutine that was interrupted is awaited again by the teardown, nothing more would happen. Then the stacks of all
threads are written to standard error and the process exits: with xdist, the test is told as failed, a new worker goes
on with what is left, and the run comes to its summary.
"""

import faulthandler
import os
import sys
from collections.abc import Generator
from typing import Final

import pytest

GRACE_S: Final = 60.0
_NO_TIMEOUT_S: Final = 120.0


def seconds(item: pytest.Item) -> float:
    """How long a phase of this test may take: as pytest-timeout was told for all of it, and a while."""
    mark = item.get_closest_marker("timeout")
    told = (mark.args[0] if mark.args else mark.kwargs.get("timeout")) if mark is not None else None
    return float(told or item.config.getini("timeout") or _NO_TIMEOUT_S) + GRACE_S


class Hung:
    """The plugin: before each phase of a test the watch begins anew. What is written goes past pytest's capture."""

    def __init__(self) -> None:
        # Not by the thread that is watched, and not by one that needs the interpreter: faulthandler's is one in C.
        self._said = os.dup(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2)

    def _watched(self, item: pytest.Item) -> Generator[None, object, object]:
        faulthandler.dump_traceback_later(seconds(item), exit=True, file=self._said)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()

    # Each phase by itself: after a failure pytest's own plugin ends every such watch.

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Fixtures may hang."""
        return (yield from self._watched(item))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """So may the test."""
        return (yield from self._watched(item))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """And above all what comes after a test that was interrupted."""
        return (yield from self._watched(item))
