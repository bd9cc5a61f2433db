"""How a helper process of the benchmark answers: one JSON line, whole.

Not by ``print``: where output is not buffered, one write is one system call, and what did not fit into the pipe is lost.
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
