"""How a pod takes leave of its HTTP clients, so that no request is lost with its connection.

A server that closes its listening socket resets the connections that were made and not yet accepted; one that closes
an idle connection may find that a request was on its way there. Neither client can know whether it was heard, and a
request to sign is not one to repeat blindly. So what has been connected is accepted first, and idle connections stay
for a moment: what comes on them is answered with ``Connection: close`` (RFC 9112, section 9.6), and the client goes
elsewhere. A connection that is not used even then is closed.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from rest_api.accepting import Listener
from rest_api.heads import BoundedHttp

LINGER_S: Final = 1.0
"""How long a connection may wait for its last request."""
_LOOK_S: Final = 0.02


class CourteousHttp(BoundedHttp):
    """For ``uvicorn.Config(http=...)``: a connection that can be told that its next answer is its last."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._leaving = False

    def last_request(self) -> None:
        """From now on an answer says that the connection ends with it."""
        self._leaving = True
        self._end_with_this()

    def on_headers_complete(self) -> None:
        """A request: it is the last if we are leaving."""
        super().on_headers_complete()
        if self._leaving:
            self._end_with_this()

    def _refusal(self, cycle: RequestResponseCycle) -> bytes | None:
        # What is said without the framework is said before the request can be told to be the last.
        return None if self._leaving else super()._refusal(cycle)

    def _end_with_this(self) -> None:
        # uvicorn has no cycle before the first request, nor for one that becomes a WebSocket.
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False


async def part(
    listeners: Iterable[Listener], connections: Collection[object], hurry: Callable[[], bool], linger_s: float
) -> None:
    """Stop listening, and wait until every HTTP client has gone, or ``linger_s`` at most.

    Args:
        listeners: Listen now; who has connected by now is served.
        connections: The protocols of all connections, as they come and go.
        hurry: Whether there is no time for it any more.
        linger_s: From now.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + linger_s
    for listener in listeners:
        await listener.close()
    told: set[CourteousHttp] = set()
    while True:
        here = {each for each in connections if isinstance(each, CourteousHttp)}
        for connection in here - told:
            connection.last_request()
        told = here
        if not here or hurry() or loop.time() >= end:
            return
        await asyncio.sleep(_LOOK_S)
