"""What a fault does to the processes of a demo and to its broker, and when everybody is ready again."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from common.wire import topics
from tests.brokers import launcher
from tests.chaos.clients import HOST, Pods, now_ms
from tests.chaos.history import Book, Fault
from tests.chaos.plan import BROKER, NARROW_BYTES, Step
from tests.ports import free_ports
from tests.system.running_demo import RunningDemo

READY_AGAIN_S = 90.0
HEARD_MS = 2_000
FULL_S = 10.0
DISK_MIB = 96
"""Enough for a short run: Kafka's indexes are as large as they look only when they are written."""

_CAP_SYS_ADMIN = 21
_LIMIT = "max.message.bytes"


class ChaosError(Exception):
    """One line: what kept the run from being done."""


class OwnBroker:
    """An Apache Kafka of this run, which may be stopped, killed and paused. Its calls wait in one thread of theirs.

    With ``disk_mib`` everything that it writes is on a file system of its own of that size, which may be filled.
    """

    def __init__(self, pool: ThreadPoolExecutor, bench: bool, disk_mib: int | None = None) -> None:
        self._pool, self._bench = pool, bench
        self._disk_mib = disk_mib
        self._launcher = launcher()
        self._instance: Any = self._launcher.Instance(f"chaos-{os.getpid()}")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def bootstrap(self) -> str:
        """Where it is."""
        return f"{HOST}:{self.port}"

    async def _do(self, call: Callable[[], Any]) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        except self._launcher.Failed as error:
            raise ChaosError(str(error)) from None

    async def start(self) -> None:
        """Start it; with what it had before, if it had anything."""
        again = self.port != 0
        if self._disk_mib is not None and not again:
            await self._do(self._mount)
        try:
            self._process, self.port = await self._do(lambda: self._instance.start(self.port, again, self._bench, True))
        except ChaosError as error:
            # Its folder goes with the run, and a broker that does not start again is what a person wants to look into.
            raise ChaosError(f"{error}: {self._last_words()}") from None

    def _last_words(self) -> str:
        logs = (self._instance.log, Path(self._instance.folder) / "console.log")
        said = [line for log in logs if log.is_file() for line in log.read_text(errors="replace").splitlines()]
        return " | ".join([line for line in said if "ERROR" in line or "FATAL" in line][-5:] or said[-5:])

    async def stop(self, kill: bool) -> None:
        """End it in order, or at once. One that ends by itself is waited for: it holds its port for a moment more."""
        await self._do(lambda: self._instance.stop(kill))
        if self._process is not None:
            await self._do(partial(self._process.wait, READY_AGAIN_S))

    def signal(self, number: signal.Signals) -> None:
        """To its process."""
        pid = self._instance.pid()
        if pid is None:
            raise ChaosError("the broker is not running")
        os.kill(pid, number)

    def _mount(self) -> None:
        self._instance.folder.mkdir(parents=True, exist_ok=True)
        if not may_mount():
            raise ChaosError("a small disk has to be mounted, and we may not (CAP_SYS_ADMIN)")
        _run("mount", "-t", "tmpfs", "-o", f"size={self._disk_mib}m", "tmpfs", str(self._instance.folder))

    @property
    def _ballast(self) -> Path:
        return Path(self._instance.folder) / "ballast"

    def fill_disk(self) -> None:
        """Leave no room on its file system."""
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def empty_disk(self) -> None:
        """Make room again."""
        self._ballast.unlink()

    def runs(self) -> bool:
        """Whether its process is there."""
        return self._instance.pid() is not None

    def remove(self) -> None:
        """Its folder."""
        if self._disk_mib is not None:
            with contextlib.suppress(ChaosError):
                _run("umount", "-l", str(self._instance.folder))
        shutil.rmtree(self._instance.folder, ignore_errors=True)


def may_mount() -> bool:
    """Whether we may give a broker a small file system: CAP_SYS_ADMIN, which root has, but not in every container."""
    held = re.search(r"^CapEff:\s*(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return held is not None and bool(int(held[1], 16) >> _CAP_SYS_ADMIN & 1) and shutil.which("mount") is not None


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise ChaosError(f"{' '.join(command)}: {done.stderr.strip()}")


@asynccontextmanager
async def own_broker(bench: bool, disk_mib: int | None = None) -> AsyncIterator[OwnBroker]:
    """A broker for as long as the block runs. Should we be killed, the kernel ends it with the thread that made it."""
    with ThreadPoolExecutor(1) as pool:
        broker = OwnBroker(pool, bench, disk_mib)
        try:
            await broker.start()
        except BaseException:
            broker.remove()
            raise
        try:
            yield broker
        finally:
            with contextlib.suppress(ChaosError):
                broker.signal(signal.SIGCONT)
            await broker.stop(kill=True)
            broker.remove()


class System:
    """A demo as its operator sees it: pids, readiness, and what the cluster says of itself."""

    def __init__(self, demo: RunningDemo, apis: int, signers: int) -> None:
        self.demo, self.apis, self.signers = demo, apis, signers
        self.pods = Pods([demo.port + n for n in range(apis)])
        self._http = httpx.AsyncClient(timeout=2.0)

    async def close(self) -> None:
        """Hang up."""
        await self._http.aclose()

    def setting(self, name: str) -> str:
        """A setting that every process of the demo was started with."""
        pid = next(iter(self.demo.children().values()))
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            found, _, value = entry.decode().partition("=")
            if re.fullmatch(f"SIGNER_[A-Z]+(_API)?_{name}", found):
                return value
        return ""

    async def _status(self, port: int) -> int:
        try:
            return (await self._http.get(f"http://{HOST}:{port}/readyz")).status_code
        except httpx.HTTPError:
            return 0

    async def look(self) -> bool:
        """Ask every process whether it is ready, as a load balancer does; returns whether all are."""
        pods = [self.demo.admin_port + 100 + n for n in range(self.apis)]
        seats = [self.demo.admin_port + m for m in range(1, self.signers + 1)]
        found = await asyncio.gather(*map(self._status, [*pods, *seats]))
        self.pods.ready = [status == 200 for status in found[: self.apis]]
        return all(status == 200 for status in found)

    async def ask(self, pod: int, path: str) -> dict[str, Any]:
        """One of the pages of a pod; empty when there is none."""
        try:
            found: dict[str, Any] = (await self._http.get(f"http://{HOST}:{self.pods.ports[pod]}{path}")).json()
        except (httpx.HTTPError, ValueError):
            return {}
        return found

    async def whole(self) -> bool:
        """All are ready, and every pod hears every seat reading a part of the requests."""
        if not await self.look():
            return False
        for pod in range(self.apis):
            seats = (await self.ask(pod, "/v1/cluster")).get("replicas", [])
            reading = [seat for seat in seats if seat["partitions"] and seat["last_seen_ms"] < HEARD_MS]
            if len(reading) < self.signers:
                return False
        return True

    async def settled(self) -> bool:
        """Whole, and no ceremony runs."""
        if not await self.whole():
            return False
        keys = (await self.ask(0, "/v1/cluster")).get("keys", [])
        return bool(keys) and all(key["ceremony"] is None for key in keys)


async def wait_for(condition: Callable[[], Any], within_s: float, what: str) -> None:
    """Wait until an asynchronous condition holds.

    Raises:
        ChaosError: it does not, in time.
    """
    end = asyncio.get_running_loop().time() + within_s
    while not await condition():
        if asyncio.get_running_loop().time() > end:
            raise ChaosError(f"not within {within_s:.0f} s: {what}")
        await asyncio.sleep(0.1)


async def commit(step: Step, system: System, broker: OwnBroker | None, book: Book) -> None:
    """Do one fault, and return when everybody is ready again.

    Raises:
        ChaosError: they are not, or there is nothing to do it to.
    """
    began, over = now_ms(), 0
    try:
        if step.target == BROKER:
            if broker is None:
                raise ChaosError("the broker is not ours to stop")
            await _to_broker(step, broker, topics.requests(system.setting("TOPIC_PREFIX")).name)
            over = now_ms()
        else:
            await _to_process(step, system)
        await wait_for(system.whole, READY_AGAIN_S, f"everybody is ready again after: {step}")
    finally:
        book.write(Fault(step.kind, step.target, began, now_ms(), over))


def _limit(bootstrap: str, topic: str, size: int) -> None:
    """Have the broker take no longer record batch than this."""
    entry = ConfigEntry(_LIMIT, str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.incremental_alter_configs([resource])[resource].result(30.0)


async def _narrowed(step: Step, broker: OwnBroker, topic: str) -> None:
    await asyncio.to_thread(_limit, broker.bootstrap, topic, NARROW_BYTES)
    await asyncio.sleep(step.pause_s)
    await asyncio.to_thread(_limit, broker.bootstrap, topic, topics.MAX_RECORD_BYTES)


async def _to_broker(step: Step, broker: OwnBroker, requests: str) -> None:
    if step.kind == "narrow":
        await _narrowed(step, broker, requests)
        return
    if step.kind == "pause":
        broker.signal(signal.SIGSTOP)
        await asyncio.sleep(step.pause_s)
        broker.signal(signal.SIGCONT)
        return
    if step.kind == "full":
        broker.fill_disk()

        # Its only folder cannot be written to: sooner or later it ends by itself, and takes nothing until then.
        async def ended() -> bool:
            return not broker.runs()

        with contextlib.suppress(ChaosError):
            await wait_for(ended, FULL_S, "it ends")
        broker.empty_disk()
    await broker.stop(kill=step.kind != "term")
    await broker.start()


async def _to_process(step: Step, system: System) -> None:
    pid = system.demo.children().get(step.target)
    if pid is None:
        raise ChaosError(f"{step.target} is not running")
    if step.kind == "pause":
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(step.pause_s)
        os.kill(pid, signal.SIGCONT)
        return
    os.kill(pid, signal.SIGKILL if step.kind == "kill" else signal.SIGTERM)

    async def another() -> bool:
        return system.demo.children().get(step.target, pid) != pid

    await wait_for(another, READY_AGAIN_S, f"{step.target} is started again")


@asynccontextmanager
async def demo(kafka: str, own: bool, apis: int, signers: int, folder: Path) -> AsyncIterator[System]:
    """A demo on that broker, signing when the block begins. On a broker of our own it keeps its state with us."""
    base = free_ports(apis + signers + apis + 110)
    kept = ["--state-dir", str(folder / "state")] if own else []
    arguments = ["--kafka", kafka, "--apis", str(apis), "--signers", str(signers), "--log-level", "info", *kept]
    with tempfile.TemporaryDirectory(prefix="chaos-demo-") as temporary:
        running = RunningDemo(arguments, base, base + apis, Path(temporary))
        system = System(running, apis, signers)
        try:
            await asyncio.to_thread(running.wait_ready)
            await wait_for(system.whole, READY_AGAIN_S, "everybody is ready")
            yield system
        finally:
            await system.close()
            if running.process.poll() is None:
                await asyncio.to_thread(running.stop)
            (folder / "demo.log").write_text("\n".join(running.lines) + "\n")
