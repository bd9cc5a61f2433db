"""How many things begin in one turn of the event loop, so that a crowd of them delays nobody else.

A page, a lookup or a form costs a millisecond or more, at once, a message on a WebSocket a part of one: five hundred
that come together would keep signatures, probes and beats waiting for a second, and the next five hundred for another.
Those that wait here begin in the order in which they came. What signs goes past this (``direct``), but for spans, where
it takes its turn like everybody.
"""

import asyncio
from collections import deque
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

PER_TURN: Final = 4


class Turns:
    """On one event loop.

    Args:
        per_turn: How many begin in one turn of it.
    """

    def __init__(self, per_turn: int = PER_TURN) -> None:
        self._per_turn = per_turn
        self._left = per_turn
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._counting = False

    async def mine(self) -> None:
        """Wait for a turn; at once, where nobody crowds."""
        if not self._counting:
            self._counting = True
            asyncio.get_running_loop().call_soon(self._next)
        if self._left and not self._waiting:
            self._left -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def _next(self) -> None:
        self._left = self._per_turn
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._left -= 1
        self._counting = self._left < self._per_turn
        if self._counting:
            asyncio.get_running_loop().call_soon(self._next)


class InTurn:
    """Goes right under ``DirectRoutes``: a request begins when it is its turn."""

    def __init__(self, app: ASGIApp, turns: Turns) -> None:
        self._app = app
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._turns.mine()
        await self._app(scope, receive, send)
