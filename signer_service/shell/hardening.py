"""What the operating system can do so that our memory does not end up in a file.

A core dump, or a debugger of another process with our user id, would show shares and nonces. Both are switched off
where the system allows it. (Memory that is swapped out, a hypervisor's snapshot and root are beyond us.)
"""

import ctypes
import resource
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def protect_memory() -> tuple[str, ...]:
    """Switch off core dumps and attaching. Returns a line for each thing that could not be done; never raises."""
    problems = []
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:
        problems.append(f"core dumps could not be switched off: {error}")
    if sys.platform.startswith("linux"):
        try:
            # A core pattern that pipes to a program ignores the limit; a process that is not dumpable it respects.
            failed = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0
        except (OSError, AttributeError):
            failed = True
        if failed:
            problems.append("the process could not be made undumpable")
    return tuple(problems)
