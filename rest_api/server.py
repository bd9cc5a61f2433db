"""One pod in uvicorn: what a signal does to it, and what it ends with (see ``__main__``)."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn
import uvloop

from common import collector
from common.errors import BadInput, SignerFlowError
from common.observability import logging
from common.observability.spans import Spans, exporting
from rest_api import doors, goodbye, sockets
from rest_api.accepting import BACKLOG, Listener
from rest_api.app import create_app
from rest_api.settings import Settings, load

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIG = 2
KEEP_ALIVE_S = 75
AFTER_GRACE_S = 2
BUFFER_BYTES = 128 * 1024
"""Of each direction; Linux takes twice as much. Who never reads has a few answers made for him, not hundreds."""
LAST_ORDERS_S = goodbye.LINGER_S + 0.5
"""What comes on a connection that lingers is taken; the server sees its end a tenth of a second after the signal."""


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: ours begin the drain before it stops to listen; and it takes leave first."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listeners: list[Listener] = []

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen: with bounds on what the kernel keeps for a connection, and as many taken in a turn as wait."""
        await super().startup(sockets)
        for server in getattr(self, "servers", ()):
            for listening in server.sockets:
                ours = socket.fromfd(listening.fileno(), listening.family, listening.type)
                ours.setblocking(False)
                for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    # Connections take it over from the socket that they come through.
                    ours.setsockopt(socket.SOL_SOCKET, buffer, BUFFER_BYTES)
                self.listeners.append(Listener(ours, self.protocol))
            server.close()  # its descriptor only: what listens is ours, too
        self.servers = []

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let clients send their last request, then as uvicorn does."""
        await goodbye.part(self.listeners, self.server_state.connections, lambda: self.force_exit, goodbye.LINGER_S)
        await super().shutdown(sockets)

    def protocol(self) -> asyncio.Protocol:
        """For one connection."""
        config = self.config
        return config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=self.server_state, app_state=self.lifespan.state
        )


async def serve(settings: Settings, spans: Spans | None = None) -> int:
    """Serve until a signal, or until the process cannot go on. Returns the exit code."""
    failed: list[str] = []

    def stop() -> None:
        services = getattr(app.state, "services", None)
        if services is not None:
            services.gateway.drain(settings.shutdown_grace_ms / 1000, LAST_ORDERS_S)
        # A second signal means now.
        server.force_exit = server.should_exit
        server.should_exit = True

    def fatal(detail: str) -> None:
        if not failed:
            failed.append(detail)
            stop()

    app = create_app(settings, on_fatal=fatal, spans=spans)
    server = Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http=goodbye.CourteousHttp,
            **sockets.UVICORN,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=settings.shutdown_grace_ms // 1000 + AFTER_GRACE_S,
        )
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    doors.widen()
    collector.settle()
    await server.serve()
    if failed:
        return EXIT_FAILED
    return EXIT_OK if server.started else EXIT_CONFIG


def main() -> int:
    """Read the settings, serve, and return the exit code."""
    try:
        settings = load()
        logging.configure(settings.log_format, settings.log_level, "rest_api", settings.pod_index)
        spans = exporting(settings.spans_url, "rest-api", settings.pod_index)
        try:
            return uvloop.run(serve(settings, spans))
        finally:
            if spans is not None:
                spans.close()
    except BadInput as error:
        print(f"rest_api: {error.detail}", file=sys.stderr)
        return EXIT_CONFIG
    except SignerFlowError as error:
        print(f"rest_api: {error.detail}", file=sys.stderr)
        return EXIT_FAILED
