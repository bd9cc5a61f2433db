"""Ports for what tests start: free now, and not given to anybody else before it is bound.

A port that the system chose may be the near end of somebody's connection a moment later. These come from below the
range of such ports, each worker of a run takes them from a part of its own, and none is given twice until all were.
"""

import itertools
import os
import secrets
import socket
from typing import Final

_FIRST: Final = 12_000
_PER_WORKER: Final = 4_000
_WORKERS: Final = 4
"""Ports from 28,000 on are the brokers' (``.ci/kafka``); from 32,768 on the system's."""

_own = _FIRST + _PER_WORKER * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS)
# Two runs at once on one machine begin at different places.
_places = itertools.count(secrets.randbelow(_PER_WORKER))


def free_ports(count: int = 1) -> int:
    """The first of ``count`` ports in a row that are free on loopback right now."""
    for _ in range(_PER_WORKER):
        row = [_own + next(_places) % _PER_WORKER for _ in range(count)]
        if row[-1] == row[0] + count - 1 and all(map(_is_free, row)):
            return row[0]
    raise AssertionError(f"no {count} free ports in a row between {_own} and {_own + _PER_WORKER}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
