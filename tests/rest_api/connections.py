"""A plain connection to a pod, for what no HTTP client would send; and a server of ours with another application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

import uvicorn
from uvicorn._types import ASGI3Application

from rest_api import sockets
from rest_api.goodbye import CourteousHttp
from rest_api.server import Server
from tests.brokers import until

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Reached(Protocol):
    @property
    def url(self) -> str: ...


@contextlib.asynccontextmanager
async def connected(pod: Reached) -> AsyncIterator[Ends]:
    host, port = pod.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@dataclass
class Bare:
    """The server of a pod, and what it serves is a test's."""

    server: Server
    url: str

    @property
    def here(self) -> list[Any]:
        """The protocols of its connections."""
        return list(self.server.server_state.connections)


@contextlib.asynccontextmanager
async def serving(app: ASGI3Application, **options: Any) -> AsyncIterator[Bare]:
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http=CourteousHttp,
        **sockets.UVICORN,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=3,
        **options,
    )
    server = Server(config)
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or task.done(), "it listens")
        yield Bare(server, f"http://127.0.0.1:{server.listeners[0].listening.getsockname()[1]}")
    finally:
        server.should_exit = server.force_exit = True
        await task
