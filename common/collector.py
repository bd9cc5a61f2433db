"""Python's collector of cycles, told what a long-lived process is made of."""

import gc
from typing import Final

YOUNG_OBJECTS: Final = 20_000
"""Objects made, less those freed, between two looks at the young ones. What is in flight is not a leak."""


def hold() -> None:
    """Call before the long imports of a service: hardly anything of them is garbage, and looking costs a fifth of them.

    ``settle`` ends it.
    """
    gc.disable()


def settle() -> None:
    """Call once a process is complete: what it is made of is never looked at again.

    Modules, schemas, routes and models are some hundred thousand objects that live as long as the process, and each
    full collection goes through all of them: more than a tenth of a busy pod's CPU, in pauses of tens of milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
    gc.enable()
