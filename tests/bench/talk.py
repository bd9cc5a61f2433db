"""How a helper process of the benchmark answers: one JSON line, whole.

Not by ``print``: where output is not buffered, one write is one system call. A signal cuts it short once the pipe is
full (the event loop's io_uring sends such signals), and the rest is lost.
"""

import json
import os
import sys
from typing import Any


def say(answer: dict[str, Any]) -> None:
    """Write ``answer`` to the standard output, however large it is."""
    stdout = sys.stdout.fileno()
    os.set_blocking(stdout, True)
    rest = memoryview(json.dumps(answer).encode() + b"\n")
    while rest:
        rest = rest[os.write(stdout, rest) :]
