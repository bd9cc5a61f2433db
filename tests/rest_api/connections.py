"""A plain connection to a pod, for what no HTTP client would send."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.rest_api.world import Pod

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def connected(pod: Pod) -> AsyncIterator[Ends]:
    host, port = pod.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
