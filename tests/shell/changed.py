"""A signer process in which one thing is not as it should be: ``python -m tests.shell.changed WHAT [ARGUMENT]``."""

import sys
from collections.abc import Callable
from dataclasses import replace

from common.ids import Instant
from signer_service.__main__ import cli
from signer_service.protocol import coordinator
from signer_service.shell import sources

SECRET = "5eed" * 16


def clock_ahead(milliseconds: str) -> None:
    """The clock is ahead (or behind: a minus) of what it should be."""
    right = sources.system()
    wrong = replace(right, now=lambda: Instant(right.now() + int(milliseconds)))
    sources.system = lambda: wrong


def broken_machine() -> None:
    """The coordinator raises, with a secret in a local variable and in bytes of its message."""

    def step(*_: object) -> None:
        share = SECRET
        raise ValueError("an invariant does not hold", share.encode())

    coordinator.step = step  # type: ignore[assignment]


if __name__ == "__main__":
    changes: dict[str, Callable[..., None]] = {"clock-ahead": clock_ahead, "broken-machine": broken_machine}
    changes[sys.argv[1]](*sys.argv[2:])
    sys.argv[1:] = ["run"]
    cli()
