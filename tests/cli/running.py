"""``signer-flow`` as a process of its own, while the test's loop serves what it asks; and a pod that can be killed."""

import asyncio
import contextlib
import csv
import io
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from common import ed25519
from rest_api.client_wire import unb64
from rest_api.commands.results import RESULT_COLUMNS
from tests.cli import forks
from tests.ports import free_ports
from tests.rest_api.world import World

WITHIN_S = 90.0


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SIGNER_", "_SIGNER_"))}
    return {**kept, "COLUMNS": "200", **(more or {})}


@dataclass(frozen=True)
class Done:
    """What a command left behind. ``peak_kib`` is its largest resident set that was seen."""

    code: int
    out: bytes
    err: str
    peak_kib: int = 0

    @property
    def line(self) -> str:
        """The one line of its complaint."""
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("signer-flow: ")
        return self.err.removeprefix("signer-flow: ").rstrip()


class Running:
    """A command that runs."""

    def __init__(self, process: asyncio.subprocess.Process | forks.Forked, stdin: bytes) -> None:
        self.process = process
        self._end = asyncio.create_task(process.communicate(stdin))
        self._peak = 0

    async def done(self) -> Done:
        ends_at = time.monotonic() + WITHIN_S
        while not self._end.done():
            assert time.monotonic() < ends_at, "the command does not end"
            self._look()
            await asyncio.wait({self._end}, timeout=0.02)
        out, err = self._end.result()
        assert self.process.returncode is not None
        return Done(self.process.returncode, out or b"", (err or b"").decode(), self._peak)

    def _look(self) -> None:
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            self._peak = max(self._peak, int(next(line for line in lines if line.startswith("VmHWM")).split()[1]))

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)


async def start(
    *arguments: str,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    stdout: int | None = None,
    limit: str = "",
) -> Running:
    """Start ``signer-flow``; ``limit`` is a shell command before it, such as ``ulimit -f 8``."""
    if not limit:
        return Running(await forks.run(arguments, environment(env), stdout), stdin)
    command = ["sh", "-c", f'{limit}; exec "$@"', "sh", sys.executable, "-m", "rest_api.cli", *arguments]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe if stdout is None else stdout, stderr=pipe, env=environment(env)
    )
    return Running(process, stdin)


async def cli(
    *arguments: str,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    stdout: int | None = None,
    limit: str = "",
) -> Done:
    """Run ``signer-flow`` to its end."""
    return await (await start(*arguments, stdin=stdin, env=env, stdout=stdout, limit=limit)).done()


def table(raw: bytes) -> list[dict[str, str]]:
    """The rows of a result file; every one is whole."""
    assert raw.endswith(b"\n")
    rows = list(csv.DictReader(io.StringIO(raw.decode(), newline=""), strict=True))
    for row in rows:
        assert None not in row, row
        assert all(row.get(column) is not None for column in RESULT_COLUMNS), (row, raw[:300])
    return rows


def check_signed(rows: list[dict[str, str]], public_key: bytes) -> None:
    """Every row has a signature over its own text."""
    for row in rows:
        assert row["error"] == "", row
        assert ed25519.verify(public_key, row["text"].encode(), unb64(row["signature"])), row


class PodProcess:
    """``python -m rest_api`` on a port that it keeps over restarts."""

    def __init__(self, world: World) -> None:
        self.port = free_ports()
        self._world = world
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        env = environment(
            {
                "SIGNER_REST_API_INDEX": "1",
                "SIGNER_REST_API_PORT": str(self.port),
                "SIGNER_REST_API_ADMIN_PORT": "0",
                "SIGNER_REST_API_KAFKA_BOOTSTRAP": self._world.broker.bootstrap,
                "SIGNER_REST_API_KAFKA_EMBEDDED": "true",
                "SIGNER_REST_API_TOPIC_PREFIX": self._world.trust.prefix,
                "SIGNER_REST_API_SECRETS_DIR": str(self._world.folder),
            }
        )
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "rest_api", env=env, stdin=quiet, stdout=quiet, stderr=quiet
        )
        ends_at = time.monotonic() + 60
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as http:
            while True:
                assert time.monotonic() < ends_at, "the pod is not ready in 60 s"
                assert self._process.returncode is None, "the pod ended"
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get("/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@contextlib.asynccontextmanager
async def pod_process(world: World) -> AsyncIterator[PodProcess]:
    pod = PodProcess(world)
    try:
        await pod.start()
        yield pod
    finally:
        await pod.kill()
