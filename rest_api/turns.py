"""How many things begin in one turn of the event loop, so that a crowd of them delays nobody else.

A page, a lookup or a form costs a millisecond or more, at once, a message on a WebSocket a part of one: five hundred
that come together would keep signatures, probes and beats waiting for a second, and the next five hundred for another.
Those that wait here begin in the order in which they came, but for those whose client has gone: nobody would take
their answers. The wait is a part of a request's time (``dependencies.deadline_ms``). What signs goes past this
(``direct``), but for spans, where it takes its turn like everybody.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from rest_api import problems
from rest_api.problems import Problem

PER_TURN: Final = 4
MOST_WAITING: Final = 512
"""Requests that wait for their turn: a second's work or less. Of each WebSocket one message waits, and none is refused
here."""
GONE: Final = "signer_flow.gone"
"""Of a request's scope: says whether its connection is over. ``heads`` puts it there."""
WAITED_S: Final = "signer_flow.waited_s"
"""Of a request's scope: how long it has waited for its turn."""


def _here() -> bool:
    return False


class Turns:
    """On one event loop.

    Args:
        per_turn: How many begin in one turn of it.
    """

    def __init__(self, per_turn: int = PER_TURN) -> None:
        self._per_turn = per_turn
        self._left = per_turn
        self._waiting: deque[tuple[asyncio.Future[None], Callable[[], bool]]] = deque()
        self._counting = False

    async def mine(self, gone: Callable[[], bool] = _here) -> None:
        """Wait for a turn; at once, where nobody crowds. Who is ``gone`` by then is let go, and takes nobody's turn."""
        if not self._counting:
            self._counting = True
            asyncio.get_running_loop().call_soon(self._next)
        if self._left and not self._waiting:
            self._left -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, gone))
        await turn

    def _next(self) -> None:
        self._left = self._per_turn
        while self._waiting and self._left:
            turn, gone = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._left -= not gone()
        self._counting = self._left < self._per_turn
        if self._counting:
            asyncio.get_running_loop().call_soon(self._next)


class InTurn:
    """Goes right under ``DirectRoutes``: a request begins when it is its turn, or is refused where too many wait."""

    def __init__(self, app: ASGIApp, turns: Turns) -> None:
        self._app = app
        self._turns = turns
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if self._waiting >= MOST_WAITING:
                crowded = Problem("in-flight-limit", "too many requests wait for their turn on this pod")
                scope["signer_flow.problem"] = crowded.code
                await problems.respond(crowded, scope["signer_flow.request_id"])(scope, receive, send)
                return
            gone = scope.get(GONE, _here)
            came = asyncio.get_running_loop().time()
            self._waiting += 1
            try:
                await self._turns.mine(gone)
            finally:
                self._waiting -= 1
            if gone():
                return
            scope[WAITED_S] = asyncio.get_running_loop().time() - came
        await self._app(scope, receive, send)
