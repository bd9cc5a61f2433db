"""What everybody else sees meanwhile: honest requests, probes, and the pod's memory and descriptors."""

import asyncio
import contextlib
import json
import resource
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

HONEST_EVERY_S: Final = 0.05
PROBE_EVERY_S: Final = 0.1
LOOK_EVERY_S: Final = 0.1
PATIENCE_S: Final = 10.0


@dataclass
class Seen:
    """In one phase."""

    served: list[float] = field(default_factory=list)
    """Milliseconds of each honest request that was signed."""
    failed: list[str] = field(default_factory=list)
    probes: list[float] = field(default_factory=list)
    """Milliseconds of each probe that was green."""
    red: list[str] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of honest requests that were signed at the first try."""
        asked = len(self.served) + len(self.failed)
        return len(self.served) / asked if asked else 0.0


def at(values: list[float], part: float) -> float:
    """The quantile; 0 of nothing."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def resident_mib(pid: int) -> float:
    """What the process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def descriptors(pid: int) -> int:
    """How many it has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


async def _ask(port: int, request: bytes) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        whole = await reader.read()
    finally:
        writer.transport.abort()
    head, _, body = whole.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        raise ConnectionError("no answer")
    return int(head[9:12]), body


async def honest(port: int, seen: Seen) -> None:
    """Ask for a signature now and then, each on a new connection: the hardest to serve."""

    async def one(number: int) -> None:
        body = b'{"text": "honest %d"}' % number
        head = b"POST /v1/sign HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_S):
                status, said = await _ask(port, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        except (OSError, TimeoutError, ValueError) as error:
            seen.failed.append(type(error).__name__)
            return
        if status == 200 and "signature" in json.loads(said):
            seen.served.append(1000 * (time.monotonic() - began))
        else:
            seen.failed.append(str(status))

    await _now_and_then(one, HONEST_EVERY_S)


async def probe(port: int, seen: Seen) -> None:
    """Ask the admin port as an orchestrator does, only more often."""

    async def one(number: int) -> None:
        path = (b"/healthz", b"/readyz")[number % 2]
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_S):
                status, _ = await _ask(
                    port, b"GET " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
                )
        except (OSError, TimeoutError, ValueError) as error:
            seen.red.append(f"{path.decode()} {type(error).__name__}")
            return
        if status == 200:
            seen.probes.append(1000 * (time.monotonic() - began))
        else:
            seen.red.append(f"{path.decode()} {status}")

    await _now_and_then(one, PROBE_EVERY_S)


async def _now_and_then(one: Callable[[int], Coroutine[Any, Any, None]], every_s: float) -> None:
    asks: set[asyncio.Task[None]] = set()
    number = 0
    try:
        while True:
            number += 1
            task = asyncio.create_task(one(number))
            asks.add(task)
            task.add_done_callback(asks.discard)
            await asyncio.sleep(every_s)
    finally:
        # Those under way are waited for: what is cut off here would be counted as lost.
        await asyncio.gather(*asks, return_exceptions=True)


async def look(pid: int, seen: Seen) -> None:
    """Memory and descriptors of the pod."""
    while True:
        with contextlib.suppress(OSError):
            seen.mib.append(resident_mib(pid))
            seen.descriptors.append(descriptors(pid))
        await asyncio.sleep(LOOK_EVERY_S)


async def watch(
    port: int, admin_port: int, pid: int, seconds: float, attack: list[str] | None = None
) -> tuple[Seen, str]:
    """Measure for so long, while ``attack`` (a command) runs; return what was seen and what the attack said."""
    seen, said = Seen(), b""
    tasks = [asyncio.create_task(each) for each in (honest(port, seen), probe(admin_port, seen), look(pid, seen))]
    try:
        if attack is None:
            await asyncio.sleep(seconds)
        else:
            child = await asyncio.create_subprocess_exec(*attack, stdout=asyncio.subprocess.PIPE)
            try:
                said, _ = await asyncio.wait_for(child.communicate(), seconds + 120)
            finally:
                if child.returncode is None:
                    child.kill()
                    await child.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return seen, said.decode()
