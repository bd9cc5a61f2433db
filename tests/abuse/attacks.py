"""What rude clients do: ``python -m tests.abuse.attacks NAME --port P --connections N --seconds S``.

Each attack keeps N connections busy until the time is over: one that is cut off comes again. Prints, at the end, one
line of JSON: how many connections were made, and how many the server ended.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import resource
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

HEAD: Final = b"POST /v1/sign HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
BATCH: Final = HEAD.replace(b"/v1/sign", b"/v1/sign/batch")
UPGRADE: Final = (
    b"GET /sign/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
AGAIN_S: Final = 1.0
"""Who was cut off waits so long before he comes again: a loop without a pause measures the loop."""
SOON_S: Final = 0.02
MADE_AT_ONCE: Final = 100
_numbers: Final = itertools.count()
"""Some attacks have two kinds, which take turns."""
_LEVEL: Final = socket.SOL_SOCKET
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Tally:
    """What became of the connections."""

    made: int = 0
    ended: int = 0
    refused: int = 0


async def _to_the_end(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def silent(ends: Ends) -> None:
    """Say nothing."""
    await _to_the_end(ends[0])


async def half_a_head(ends: Ends) -> None:
    """Begin a request, and go on with a byte every two seconds."""
    reader, writer = ends
    writer.write(HEAD + b"X-Slow: ")

    async def drip() -> None:
        while True:
            await asyncio.sleep(2)
            writer.write(b"a")

    await _while_open(reader, drip)


async def half_a_body(ends: Ends) -> None:
    """Announce as much as is taken, with all the time that there is; send four fifths of it, then a byte a second."""
    reader, writer = ends
    writer.write(HEAD + b"Request-Timeout-Ms: 30000\r\nContent-Length: 520000\r\n\r\n")

    async def drip() -> None:
        for _ in range(100):
            writer.write(b" " * 4096)
            await writer.drain()
        while True:
            await asyncio.sleep(1)
            writer.write(b" ")
            await writer.drain()

    await _while_open(reader, drip)


async def endless_body(ends: Ends) -> None:
    """Send a body without end, also after the answer."""
    reader, writer = ends
    writer.write((HEAD if next(_numbers) % 2 else BATCH) + b"Transfer-Encoding: chunked\r\n\r\n")

    async def pour() -> None:
        while True:
            writer.write(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    await _while_open(reader, pour)


async def slow_reader(ends: Ends) -> None:
    """Ask for large answers, one after the other, and take none."""
    _, writer = ends
    for _ in range(10_000):
        writer.write(b"GET /docs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await asyncio.sleep(0.1)
        if writer.transport.is_closing() or writer.get_extra_info("socket").getsockopt(_LEVEL, socket.SO_ERROR):
            return


async def cut_in_the_middle(ends: Ends) -> None:
    """Ask for a signature, or half of one, and go away at once, without a goodbye."""
    _, writer = ends
    body = b'{"text": "%s"}' % (b"x" * 500)
    whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    writer.write(whole[: len(whole) if next(_numbers) % 2 else len(whole) // 2])
    with contextlib.suppress(ConnectionError):
        await writer.drain()
    writer.transport.abort()


async def websocket_flood(ends: Ends) -> None:
    """Messages without number whose answers nobody reads."""
    writer = await _upgraded(ends)
    body = b'{"id": "%s", "text": "a"}' % (b"x" * 40)
    await _pour(writer, (bytes([0x81, 0x80 | len(body), 0, 0, 0, 0]) + body) * 50)


async def websocket_fragments(ends: Ends) -> None:
    """A message that never ends, in pieces."""
    writer = await _upgraded(ends)
    writer.write(bytes([0x01, 0x80, 0, 0, 0, 0]))
    await _pour(writer, (bytes([0x00, 0xFE, 0x03, 0xE8, 0, 0, 0, 0]) + b" " * 1000) * 4)


async def websocket_pings(ends: Ends) -> None:
    """Pings, large or empty, whose answers nobody reads."""
    writer = await _upgraded(ends)
    ping = bytes([0x89, 0x80 | 125, 0, 0, 0, 0]) + bytes(125) if next(_numbers) % 2 else bytes([0x89, 0x80, 0, 0, 0, 0])
    await _pour(writer, ping * (64 * 1024 // len(ping)))


async def websocket_idle(ends: Ends) -> None:
    """Nothing, or most of a large message, and then nothing."""
    writer = await _upgraded(ends)
    if next(_numbers) % 2:
        writer.write(bytes([0x81, 0xFF, 0, 0, 0, 0, 0, 7, 0xFF, 0xFF, 0, 0, 0, 0]) + b" " * 500_000)
    await _to_the_end(ends[0])


async def websocket_leave(ends: Ends) -> None:
    """Ask for as many signatures as one connection may, and go away at once, without a goodbye."""
    writer = await _upgraded(ends)
    body = b'{"id": "a", "text": "%s"}' % (b"x" * 40)
    writer.write((bytes([0x81, 0x80 | len(body), 0, 0, 0, 0]) + body) * 64)
    with contextlib.suppress(ConnectionError):
        await writer.drain()


async def _upgraded(ends: Ends) -> asyncio.StreamWriter:
    """Open a WebSocket. What is sent before the answer is there would be dropped."""
    reader, writer = ends
    writer.write(UPGRADE)
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        head = b""
    if b" 101 " not in head:
        raise ConnectionAbortedError("no WebSocket")
    return writer


async def _pour(writer: asyncio.StreamWriter, data: bytes) -> None:
    while True:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(0.02)


async def _while_open(reader: asyncio.StreamReader, act: Callable[[], Awaitable[None]]) -> None:
    acting = asyncio.ensure_future(act())
    try:
        await _to_the_end(reader)
    finally:
        acting.cancel()
        await asyncio.gather(acting, return_exceptions=True)


ATTACKS: Final[dict[str, tuple[Callable[[Ends], Awaitable[None]], float]]] = {
    "silent": (silent, 1.0),
    "half-a-head": (half_a_head, 1.0),
    "half-a-body": (half_a_body, 0.2),
    "endless-body": (endless_body, 0.02),
    "slow-reader": (slow_reader, 0.1),
    "cut-in-the-middle": (cut_in_the_middle, 0.02),
    "websocket-flood": (websocket_flood, 0.12),
    "websocket-fragments": (websocket_fragments, 0.04),
    "websocket-pings": (websocket_pings, 0.04),
    "websocket-idle": (websocket_idle, 0.12),
    "websocket-leave": (websocket_leave, 0.02),
}
"""What each does, and on which part of the connections: five thousand that say nothing are many, fifty that never stop
talking are, too."""

LEAVE: Final = frozenset({"cut-in-the-middle", "websocket-leave"})
"""Who goes by himself comes again at once."""


async def attack(name: str, port: int, connections: int, seconds: float) -> Tally:
    """Keep so many connections at it until the time is over."""
    act, part = ATTACKS[name]
    tally, door = Tally(), asyncio.Semaphore(MADE_AT_ONCE)

    async def one() -> None:
        while True:
            writer: asyncio.StreamWriter | None = None
            try:
                async with door:
                    sock = socket.socket()
                    sock.setblocking(False)
                    if name == "slow-reader":
                        sock.setsockopt(_LEVEL, socket.SO_RCVBUF, 4096)
                    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
                    # A stream that is not read must not be read by its own buffer either.
                    reader, writer = await asyncio.open_connection(sock=sock, limit=2048)
                tally.made += 1
                await act((reader, writer))
                tally.ended += 1
            except ConnectionError:
                tally.ended += 1
            except OSError:
                tally.refused += 1
            finally:
                if writer is not None:
                    writer.transport.abort()
            await asyncio.sleep(SOON_S if name in LEAVE else AGAIN_S)

    tasks = [asyncio.create_task(one()) for _ in range(max(1, int(connections * part)))]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return tally


def main() -> None:
    """Attack, and tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.abuse.attacks")
    parser.add_argument("name", choices=ATTACKS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=20)
    asked = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    tally = asyncio.run(attack(asked.name, asked.port, asked.connections, asked.seconds))
    sys.stdout.write(json.dumps({"made": tally.made, "ended": tally.ended, "refused": tally.refused}) + "\n")


if __name__ == "__main__":
    main()
