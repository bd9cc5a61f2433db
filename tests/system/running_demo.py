"""A real ``signer-flow demo`` for tests: started as a user starts it, read as a user reads it, ended for certain."""

import os
import queue
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.ports import free_ports

READY_WITHIN_S = 100.0
STOP_WITHIN_S = 15.0
"""It takes less than 5 s where the machine has nothing else to do."""
WHOLE_WITHIN_S = 60.0
HEARD_MS = 2_000
PLAIN = httpx.Client(
    timeout=10,
    trust_env=False,
    verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    limits=httpx.Limits(max_keepalive_connections=0),
)
"""For single requests, each on a connection of its own. (``httpx.get`` would read all certificates for each first.)"""


class RunningDemo:
    """One demo process. ``lines`` is everything it has printed so far."""

    def __init__(
        self,
        arguments: Sequence[str],
        port: int,
        admin_port: int,
        temporary: Path,
        *,
        apis: int = 2,
        signers: int = 3,
    ) -> None:
        self.apis, self.signers = apis, signers
        self.port, self.admin_port, self.temporary = port, admin_port, temporary
        self.lines: list[str] = []
        self._fresh: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        command = (sys.executable, "-m", "rest_api.cli", "demo", "--port", str(port), "--admin-port", str(admin_port))
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            self._fresh.put(line)
        self._fresh.put(None)

    def wait_for_line(self, pattern: str, timeout_s: float, start: int = 0) -> str:
        """The first line from number ``start`` on that matches; fails with all output when there is none in time."""
        deadline = time.monotonic() + timeout_s
        seen = start
        while True:
            while seen < len(self.lines):
                if re.search(pattern, self.lines[seen]):
                    return self.lines[seen]
                seen += 1
            try:
                if self._fresh.get(timeout=max(0.0, deadline - time.monotonic())) is None and seen >= len(self.lines):
                    raise AssertionError(f"demo ended without {pattern!r}:\n" + "\n".join(self.lines))
            except queue.Empty:
                raise AssertionError(f"no {pattern!r} within {timeout_s} s:\n" + "\n".join(self.lines)) from None

    def wait_ready(self) -> None:
        self.wait_for_line(rf"^ready: {re.escape(self.url)}/sign$", READY_WITHIN_S)

    def whole(self) -> bool:
        """Whether every process runs and is ready, and every pod hears every signer reading a part of the requests."""
        if len(self.children()) < self.apis + self.signers:
            return False
        seats = [self.admin_port + seat for seat in range(1, self.signers + 1)]
        pods = [self.admin_port + 100 + pod for pod in range(self.apis)]
        try:
            if any(_get(port, "/readyz").status_code != 200 for port in (*seats, *pods)):
                return False
            for pod in range(self.apis):
                heard = _get(self.port + pod, "/v1/cluster").json()["replicas"]
                reading = [seat for seat in heard if seat["partitions"] and seat["last_seen_ms"] < HEARD_MS]
                if len(reading) < self.signers:
                    return False
        except (httpx.HTTPError, ValueError, KeyError):
            return False
        return True

    def wait_until_whole(self) -> None:
        """What was done to it before is over."""
        wait_until(self.whole, WHOLE_WITHIN_S, "everybody is there, ready and heard")

    def children(self) -> dict[str, int]:
        """Name to pid of each child, by looking at the process table as an operator would."""
        found: dict[str, int] = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent != self.process.pid:
                    continue
                environment = (folder / "environ").read_bytes().split(b"\0")
            except (OSError, IndexError, ValueError):
                continue
            for entry in environment:
                name, _, value = entry.decode(errors="replace").partition("=")
                if name == "SIGNER_SERVICE_INDEX":
                    found[f"signer {value}"] = int(folder.name)
                elif name == "SIGNER_REST_API_INDEX":
                    found[f"api {value}"] = int(folder.name)
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal and wait. Returns exit code and seconds."""
        started = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        self._reader.join(timeout=5)
        return code, time.monotonic() - started


def _get(port: int, path: str) -> httpx.Response:
    return PLAIN.get(f"http://127.0.0.1:{port}{path}", timeout=5)


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for a condition; fails, naming it, when it does not come true in time."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        pause.wait(0.05)


@contextmanager
def running_demo(*arguments: str, apis: int = 2, signers: int = 3) -> Iterator[RunningDemo]:
    """Start a demo on free ports; whatever happens, no process of it is left afterwards."""
    base = free_ports(apis + signers + apis + 110)
    with tempfile.TemporaryDirectory(prefix="demo-test-") as temporary:
        demo = RunningDemo(
            ["--apis", str(apis), "--signers", str(signers), *arguments],
            base,
            base + apis,
            Path(temporary),
            apis=apis,
            signers=signers,
        )
        try:
            yield demo
        finally:
            if demo.process.poll() is None:
                demo.stop()
