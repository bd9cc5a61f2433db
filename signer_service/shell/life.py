"""How a replica ends: because it is told to, because Kafka or the disk leaves it no choice, or because of a bug.

The first reason counts, and is one line in the log: without the values of variables, which may be secrets.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from common.errors import SignerFlowError, Unavailable
from common.observability.logging import get_logger

_log = get_logger(__name__)


class Life:
    """Tasks whose end is the end of the process, and its reason. On the event loop only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ended: asyncio.Future[SignerFlowError] = loop.create_future()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def over(self) -> bool:
        """Whether there is a reason to end."""
        return self._ended.done()

    def check(self) -> None:
        """Nothing, if nobody had a reason to end us.

        Raises:
            Unavailable: code ``ended``: Kafka or the disk did. It was logged.
            SignerFlowError: code ``ended-by-bug``: what cannot happen did. It was logged.
        """
        if self._ended.done():
            raise self._ended.result()

    def bug(self, error: BaseException) -> None:
        """One of our own invariants does not hold."""
        if not self._ended.done():
            _log.error("a bug: the process ends", exc_info=error)
            self._ended.set_result(SignerFlowError("ended-by-bug", f"a bug ({type(error).__name__}); see the log"))

    def fatal(self, line: str) -> None:
        """The process cannot go on."""
        if not self._ended.done():
            _log.error("the process ends", reason=line)
            self._ended.set_result(Unavailable("ended", line))

    def dead(self) -> str:
        """Why this process should be started again; empty: it should not."""
        if self._ended.done():
            return self._ended.result().detail
        return next((f"{task.get_name()} ended" for task in self._tasks if task.done()), "")

    def task(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work`` for as long as we live; what it raises ends us."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._on_task_done)
        self._tasks.append(task)

    async def end_tasks(self) -> None:
        """Cancel them all, and wait."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def first(self, work: Coroutine[Any, Any, None] | None, stopped: "asyncio.Task[bool]") -> bool:
        """Wait for ``work`` (None: nothing), a stop or a reason to end. Returns whether the work is what was done."""
        task = asyncio.ensure_future(work) if work is not None else None
        waited: list[asyncio.Future[Any]] = [stopped, self._ended, *([task] if task is not None else [])]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if task is None:
            return False
        if task.done():
            task.result()
            return True
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, SignerFlowError):
            await task
        return False

    def _on_task_done(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, OSError):
            self.fatal(f"the state directory cannot be written: {error.strerror}")
        elif error is not None:
            self.bug(error)
