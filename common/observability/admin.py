"""The admin port: /healthz, /readyz and /metrics on a server of their own, in the same event loop.

Of their own, because the front port may be full of callers just when an orchestrator asks whether we live. The same
must not happen here: idle and half-open connections are cut after a few seconds, the oldest first when there are
too many, so a probe always finds a place.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from common.errors import Unavailable
from common.observability.metrics import CONTENT_TYPE

MOST_CONNECTIONS = 64
LONGEST_CONNECTION_S = 10.0
LARGEST_HEADERS_BYTES = 16_384
CLOSE_WITHIN_S = 2


@dataclass(frozen=True, slots=True)
class Health:
    """An answer to a probe. ``checks`` names, for a person, what was looked at and what was found."""

    ok: bool
    checks: Mapping[str, str] = field(default_factory=dict)


class AdminServer:
    """Serves the three pages on ``host:port`` (port 0: any free one) until ``close``.

    ``liveness`` is the heartbeat of our own loops and never asks the broker; ``readiness`` is whether we can serve
    now; ``metrics`` renders Prometheus' text. All three are called in the event loop and must not block. One that
    raises makes its page answer 500 without a word of why, and the server lives.
    """

    def __init__(
        self,
        host: str,
        port: int,
        liveness: Callable[[], Health],
        readiness: Callable[[], Health],
        metrics: Callable[[], bytes],
    ) -> None:
        self._host = host
        self._port = port
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._app = Starlette(
            routes=[
                Route("/healthz", _health_page(liveness), methods=["GET"]),
                Route("/readyz", _health_page(readiness), methods=["GET"]),
                Route("/metrics", _metrics_page(metrics), methods=["GET"]),
            ]
        )

    @property
    def port(self) -> int:
        """The port that is really listened on, once started."""
        return self._port

    async def start(self) -> None:
        """Listen, and return when probes are answered.

        Raises:
            Unavailable: code ``port-taken`` when host and port cannot be listened on.
        """
        listener = _listen(self._host, self._port)
        self._port = int(listener.getsockname()[1])
        config = Config(
            self._app,
            http=_BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=LARGEST_HEADERS_BYTES,
            timeout_graceful_shutdown=CLOSE_WITHIN_S,
        )
        config.load()
        server = _Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        self._server = server
        self._listener = listener
        self._task = asyncio.create_task(server.main_loop(), name="admin-server")

    async def close(self) -> None:
        """Stop listening and cut what is still connected. Returns within a few seconds; does nothing if not started."""
        server, task = self._server, self._task
        if server is None or task is None:
            return
        self._server = self._task = None
        server.should_exit = True
        await task
        await server.shutdown(sockets=[self._listener])


class _Server(Server):
    """uvicorn's server without its signal handlers: signals belong to the composition root."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _BoundedProtocol(H11Protocol):
    """HTTP/1.1 on a connection that ends after ``LONGEST_CONNECTION_S``, whatever the other side does or leaves."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        opened = [each for each in self.connections if isinstance(each, _BoundedProtocol)]
        if len(opened) >= MOST_CONNECTIONS:
            # The oldest goes, not the newest: else idle connections would keep a probe out.
            min(opened, key=lambda each: each.deadline).abort()
        super().connection_made(transport)
        self._deadline = self.loop.call_later(LONGEST_CONNECTION_S, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def abort(self) -> None:
        """Cut the connection without waiting for the other side."""
        self.connections.discard(self)
        self.transport.abort()

    @property
    def deadline(self) -> float:
        """When this connection ends at the latest, on the loop's clock."""
        return self._deadline.when() if self._deadline is not None else 0.0


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
    except OSError as error:
        raise Unavailable("port-taken", f"cannot listen on admin port {host}:{port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


Page = Callable[[Request], Any]


def _health_page(ask: Callable[[], Health]) -> Page:
    async def page(request: Request) -> Response:
        health = ask()
        body = {"status": "ok" if health.ok else "unavailable", "checks": dict(health.checks)}
        return JSONResponse(body, status_code=200 if health.ok else 503, headers={"Cache-Control": "no-store"})

    return page


def _metrics_page(render: Callable[[], bytes]) -> Page:
    async def page(request: Request) -> Response:
        return Response(render(), media_type=CONTENT_TYPE, headers={"Cache-Control": "no-store"})

    return page
