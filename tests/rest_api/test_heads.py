"""What a stranger may cost before the first line of ours runs: headers without end, heads that never come."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from common.kafka.embedded import EmbeddedBroker
from rest_api import heads
from tests.brokers import until
from tests.rest_api.connections import Ends, connected
from tests.rest_api.world import Pod, running_pod, world

pytestmark = pytest.mark.anyio


async def answer_to(ends: Ends, parts: list[bytes]) -> bytes:
    """Send what can be sent, and return what comes back until the other side closes."""
    reader, writer = ends
    with contextlib.suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
    answer = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(5):
            while part := await reader.read(65536):
                answer += part
    return answer


START = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"


async def test_headers_without_end_are_cut_off(pod: Pod) -> None:
    many = [b"".join(b"X-%d: %s\r\n" % (n, b"a" * 100) for n in range(100))] * 500
    async with connected(pod) as ends:
        answer = await answer_to(ends, [START, *many])
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
    async with connected(pod) as ends:
        answer = await answer_to(ends, [START + many[0] * 4])
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_one_header_without_end_is_cut_off(pod: Pod) -> None:
    async with connected(pod) as ends:
        answer = await answer_to(ends, [START + b"X: ", *([b"a" * 10_000] * 800)])
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")


async def test_a_path_without_end_is_cut_off(pod: Pod) -> None:
    async with connected(pod) as ends:
        answer = await answer_to(ends, [b"GET /", *([b"a" * 10_000] * 800)])
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")


async def test_a_crowd_of_headers_costs_no_more_than_large_ones(pod: Pod) -> None:
    # Thirty kilobytes on the wire, and with an object or three for each it was near a megabyte.
    async with connected(pod) as ends:
        answer = await answer_to(ends, [START + b"a:\r\n" * 6500])
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
    async with connected(pod) as ends:
        answer = await answer_to(ends, [START + b"X-One: of many\r\n" * 150 + b"Connection: close\r\n\r\n"])
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_head_that_one_read_brings_is_cut_off_by_its_size(pod: Pod) -> None:
    before = set(pod.server.server_state.connections)
    async with connected(pod) as ends:
        await until(lambda: bool(set(pod.server.server_state.connections) - before), "it is there")
        (connection,) = set(pod.server.server_state.connections) - before
        connection.data_received(START + b"X: " + b"a" * 250_000)  # as much as the loop reads at once
        assert connection.transport.is_closing()
        assert (await answer_to(ends, [])).startswith(b"HTTP/1.1 431 ")


async def test_requests_that_wait_for_others_are_bounded_by_their_bytes(pod: Pod) -> None:
    large = START + b"X: " + b"a" * 8_000 + b"\r\n\r\n"
    async with connected(pod) as ends:
        answer = await answer_to(ends, [large * 3 + START + b"Connection: close\r\n\r\n"])
    assert answer.count(b"HTTP/1.1 200 ") == 4
    before = set(pod.server.server_state.connections)
    async with connected(pod) as ends:
        await until(lambda: bool(set(pod.server.server_state.connections) - before), "it is there")
        (connection,) = set(pod.server.server_state.connections) - before
        connection.data_received(large * heads.MOST_PIPELINED)
        assert connection.transport.is_closing()
        assert await answer_to(ends, []) == b""
    await until(lambda: not pod.server.server_state.tasks, "nothing is left of them", 5)


async def test_a_head_of_ordinary_size_in_small_pieces_is_taken(pod: Pod) -> None:
    head = START + b"Cookie: " + b"c" * 8_000 + b"\r\nConnection: close\r\n\r\n"
    async with connected(pod) as ends:
        answer = await answer_to(ends, [head[k : k + 97] for k in range(0, len(head), 97)])
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_large_bodies_do_not_count_as_heads(pod: Pod) -> None:
    body = b'{"text": "' + b"\\u0061" * 60_000 + b'"}'
    head = b"POST /v1/sign HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    post = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    # The end of one and the head of the next come together, as from a client that pipelines.
    async with connected(pod) as ends:
        answer = await answer_to(ends, [post + START[:20], START[20:] + b"Connection: close\r\n\r\n"])
    assert answer.count(b"HTTP/1.1 200 ") == 2


async def test_a_head_that_does_not_come_in_time_ends_its_connection(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "HEAD_WITHIN_S", 0.2)
    async with connected(pod) as ends:
        assert await answer_to(ends, []) == b""
    async with connected(pod) as ends:
        assert (await answer_to(ends, [START])).startswith(b"HTTP/1.1 408 ")
    async with connected(pod) as ends:
        # The first answer is whole, and the half request after it does not keep the connection.
        answer = await answer_to(ends, [START + b"\r\n", START])
        assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_connection_that_asks_in_time_is_not_cut_off_later(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "HEAD_WITHIN_S", 0.2)
    async with connected(pod) as (reader, writer):
        for _ in range(3):
            writer.write(START + b"\r\n")
            async with asyncio.timeout(5):
                assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
                await reader.readuntil(b"}}")
            await asyncio.sleep(0.3)  # longer than a head may take: between requests it is another clock's business


async def test_whoever_goes_away_in_the_middle_of_a_body_writes_no_error(
    pod: Pod, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    head = b"POST /v1/sign HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    async with connected(pod) as (_, writer):
        writer.write(head + b'Content-Length: 100\r\n\r\n{"te')
        await until(lambda: bool(pod.server.server_state.tasks), "the request is being read")
    await until(lambda: not pod.server.server_state.tasks, "no request is left", 5)
    assert [line for line in log_lines() if line.get("level") == "error"] == []


def test_whoever_sends_many_requests_at_once_and_goes_away_writes_no_error(
    cluster: EmbeddedBroker, tmp_path: Path, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    async def visit() -> None:
        async with world(cluster, tmp_path) as made, running_pod(made.settings()) as pod:
            state = pod.server.server_state
            port = int(pod.url.rpartition(":")[2])
            crowd = []
            for _ in range(30):
                client = socket.socket()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # it ends in a reset
                client.connect(("127.0.0.1", port))
                client.send((START + b"\r\n").replace(b"/healthz", b"/docs") * heads.MOST_PIPELINED)
                crowd.append(client)
            # So many that their next answers wait for a turn when they go.
            await until(lambda: state.total_requests > 100, "they are being answered", 60)
            for client in crowd:
                client.close()
            await until(lambda: not state.tasks and not state.connections, "no request is left", 60)

    # On the loop of a real pod: only there is a write to what is closed an error.
    uvloop.run(visit())
    assert [line for line in log_lines() if line.get("level") == "error"] == []
