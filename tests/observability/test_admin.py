"""The admin port answers probes, whatever else is connected to it."""

import asyncio
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from common import health
from common.errors import Unavailable
from common.observability import admin
from common.observability.admin import MOST_CONNECTIONS, AdminServer, Health
from common.observability.metrics import Metrics

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running(ready: Health = Health(True), metrics: Metrics | None = None) -> AsyncIterator[AdminServer]:  # noqa: B008
    values = metrics if metrics is not None else Metrics()
    server = AdminServer("127.0.0.1", 0, lambda: Health(True, {"loop": "beats"}), lambda: ready, values.render)
    await server.start()
    try:
        yield server
    finally:
        async with asyncio.timeout(10):
            await server.close()


NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # nobody's certificates are read, for each request anew


async def get(server: AdminServer, path: str, method: str = "GET") -> httpx.Response:
    url = f"http://127.0.0.1:{server.port}"
    async with httpx.AsyncClient(base_url=url, trust_env=False, verify=NO_TLS, timeout=5) as client:
        return await client.request(method, path)


async def test_probes_and_metrics_are_answered() -> None:
    metrics = Metrics()
    metrics.work_queue_items.set(5)
    async with running(Health(False, {"key": "no share of the current epoch"}), metrics) as server:
        live, ready, values = [await get(server, path) for path in ("/healthz", "/readyz", "/metrics")]
    assert (live.status_code, live.json()) == (200, {"status": "ok", "checks": {"loop": "beats"}})
    assert ready.status_code == 503
    assert ready.json() == {"status": "unavailable", "checks": {"key": "no share of the current epoch"}}
    assert "signer_flow_work_queue_items 5.0" in values.text
    assert values.headers["content-type"].startswith("text/plain; version=0.0.4")


async def test_only_get_and_only_its_pages_are_served() -> None:
    async with running() as server:
        assert (await get(server, "/healthz", "POST")).status_code == 405
        assert (await get(server, "/")).status_code == 404


async def test_a_check_that_raises_is_a_500_without_internals_and_the_server_lives() -> None:
    def broken() -> Health:
        raise RuntimeError("the database password")

    server = AdminServer("127.0.0.1", 0, lambda: Health(True), broken, Metrics().render)
    await server.start()
    try:
        failed = await get(server, "/readyz")
        assert failed.status_code == 500
        assert "password" not in failed.text
        assert (await get(server, "/healthz")).status_code == 200
    finally:
        await server.close()


async def test_half_open_connections_do_not_keep_a_probe_out() -> None:
    async with running() as server:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(MOST_CONNECTIONS + 20)]
        for number, (_, writer) in enumerate(held):
            if number % 2:
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: unfinished")
        assert (await get(server, "/healthz")).status_code == 200
        # The oldest were cut to make room.
        async with asyncio.timeout(5):
            assert await _ended(held[0][0])
        for _, writer in held:
            writer.close()


async def test_a_connection_ends_whether_or_not_the_other_side_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "LONGEST_CONNECTION_S", 0.2)
    async with running() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        async with asyncio.timeout(5):
            assert await _ended(reader)
        writer.close()


async def test_endless_headers_and_garbage_are_refused() -> None:
    async with running() as server:
        for start in (b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000, b"\x00\xff\x00garbage\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(start)
            async with asyncio.timeout(5):
                assert await _ended(reader)
            writer.close()
        assert (await get(server, "/healthz")).status_code == 200


async def test_a_taken_port_is_said_in_one_line() -> None:
    async with running() as server:
        second = AdminServer("127.0.0.1", server.port, lambda: Health(True), lambda: Health(True), Metrics().render)
        with pytest.raises(Unavailable, match=f"admin port 127.0.0.1:{server.port}"):
            await second.start()
        await second.close()


async def test_closing_does_not_wait_for_who_holds_a_connection() -> None:
    server = AdminServer("127.0.0.1", 0, lambda: Health(True), lambda: Health(True), Metrics().render)
    await server.start()
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /healthz HTTP/1.1\r\n")
    async with asyncio.timeout(5):
        await server.close()
    with pytest.raises(OSError, match="onnect"):
        await asyncio.open_connection("127.0.0.1", server.port)
    writer.close()


async def test_the_container_health_check_says_what_the_server_says() -> None:
    async with running(Health(False)) as server:
        base = f"http://127.0.0.1:{server.port}"
        assert await asyncio.to_thread(health.main, [f"{base}/healthz"], {}) == 0
        assert await asyncio.to_thread(health.main, [], {health.VARIABLE: f"{base}/healthz"}) == 0
        assert await asyncio.to_thread(health.main, [f"{base}/readyz"], {}) == 1
        command = [sys.executable, "-m", "common.health", f"{base}/healthz"]
        done = await asyncio.to_thread(subprocess.run, command, check=False, timeout=30)
        assert done.returncode == 0
    assert await asyncio.to_thread(health.main, [f"{base}/healthz"], {}) == 1


@pytest.mark.parametrize(
    "url",
    ["http://192.0.2.1/healthz", "https://127.0.0.1/", "file:///etc/passwd", "http://[", "http://127.0.0.1:x/", ""],
)
async def test_the_health_check_asks_loopback_only(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main([url, "--"][:1], {health.VARIABLE: ""}) == 1
    assert capsys.readouterr().err.count("\n") == 1


async def _ended(reader: asyncio.StreamReader) -> bool:
    try:
        while await reader.read(4096):
            pass
    except ConnectionError:
        return True
    return True
