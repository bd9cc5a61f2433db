"""What a stranger may do to WebSockets, and to everybody who has one: heads, ends, pings, places, halves of messages."""

import asyncio

import pytest

from tests.brokers import until
from tests.rest_api.connections import connected
from tests.rest_api.test_websocket import still_serves
from tests.rest_api.world import Pod

pytestmark = pytest.mark.anyio
BOUND_S = 30.0
UPGRADE = (
    b"GET /sign/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        (b"".join(b"X-%d: a\r\n" % number for number in range(130)), 431),
        (b"Cookie: " + b"c" * 9_000 + b"\r\n", 431),
        (b"Content-Length: 3\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n", 400),
    ],
)
async def test_an_upgrade_that_cannot_be_read_is_answered_and_its_connection_ends(
    pod: Pod, more: bytes, status: int
) -> None:
    here = set(pod.server.server_state.connections)
    async with connected(pod) as (reader, writer):
        writer.write(UPGRADE + more + b"\r\n")
        async with asyncio.timeout(BOUND_S):
            assert (await reader.read()).startswith(b"HTTP/1.1 %d " % status)
    await until(lambda: pod.server.server_state.connections <= here, "nothing is left of it", BOUND_S)
    await still_serves(pod)
