"""Waiting for a condition that nobody announces, with a bound."""

import asyncio
from collections.abc import Callable
from typing import Final

_LOOK_S: Final = 0.01


async def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Return True as soon as ``condition`` holds, False when ``timeout_s`` is over."""
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    while not condition():
        left = until - loop.time()
        if left <= 0:
            return False
        await asyncio.sleep(min(_LOOK_S, left))
    return True
