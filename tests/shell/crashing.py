"""A disk that fails at a chosen step: what a crash there leaves is what the next start finds."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

STEPS = ("open", "write", "fsync", "link", "rename", "replace", "unlink")


class Crash(BaseException):
    """Not an Exception: nothing in the code may catch it and go on."""


@contextmanager
def crash_at(step: int, how: Callable[[], None]) -> Iterator[list[str]]:
    """Call ``how`` before the ``step``-th system call (from 0) that changes the disk; yields the calls made."""
    calls: list[str] = []

    def wrapped(name: str, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **kwargs)
            if len(calls) == step:
                how()
            calls.append(name)
            return real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, wrapped(name, getattr(os, name)))
        yield calls


def crash() -> None:
    """End as an exception would."""
    raise Crash


def kill() -> None:
    """End as ``kill -9`` would: no handler, no ``finally``."""
    os.kill(os.getpid(), 9)
