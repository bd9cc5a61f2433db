"""The processes of a run: started, asked, and ended by their pid, whatever happens.

Each gets SIGTERM from the kernel if the benchmark itself is killed, and its output goes to a file of the run's folder.
"""

import contextlib
import ctypes
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.bench import accounting
from tests.bench.plan import Committee
from tests.ports import free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = "127.0.0.1"
STOP_S = 40.0


class BenchError(Exception):
    """One line: what could not be measured, and why."""


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def start(argv: Sequence[str], output: Path, *, talks: bool = False) -> "subprocess.Popen[bytes]":
    """Start one process; with ``talks`` its standard input and output are ours."""
    with output.open("ab") as log:
        return subprocess.Popen(
            argv,
            cwd=ROOT,
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else log,
            stderr=log,
            bufsize=0,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C comes to us, and we end them in order
            preexec_fn=_die_with_parent,  # noqa: PLW1509 (this process has one thread)
        )


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End it: in order, or by force."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)


@contextlib.contextmanager
def running(argv: Sequence[str], output: Path, *, talks: bool = False) -> Iterator["subprocess.Popen[bytes]"]:
    """A process for as long as the block runs."""
    process = start(argv, output, talks=talks)
    try:
        yield process
    finally:
        stop(process)


def _await_line(process: "subprocess.Popen[bytes]", output: Path, begins: str, within_s: float) -> str:
    """The first line of the output that begins so.

    Raises:
        BenchError: the process ended, or there is none in time; with the last lines that it wrote.
    """
    end = time.monotonic() + within_s
    while True:
        ended = process.poll() is not None
        lines = output.read_text("utf-8", "replace").splitlines()
        for line in lines:
            if line.startswith(begins):
                return line
        if ended or time.monotonic() > end:
            last = " / ".join(lines[-3:]) or "no output"
            what = "ended" if ended else f"not ready after {within_s:.0f} s"
            raise BenchError(f"{output.stem}: {what}: {last}")
        time.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Broker:
    """The Apache Kafka of this run; ``about`` goes into the report."""

    bootstrap: str
    pid: int | None
    about: dict[str, Any]


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    """``KAFKA_BOOTSTRAP``, else one of our own with the JVM options of a broker that is measured."""
    given = os.environ.get("KAFKA_BOOTSTRAP")
    if given:
        yield _broker(given, "given as KAFKA_BOOTSTRAP")
        return
    output = folder / "kafka.log"
    launcher = ROOT / ".ci" / "kafka" / "kafka.py"
    # One name: two benchmarks at once would measure each other, and the launcher refuses the second.
    argv = [sys.executable, str(launcher), "run", "--bench", "--port", "0", "--name", "bench"]
    with running(argv, output) as process:
        line = _await_line(process, output, "ready: ", 900.0)
        address = re.search(r" on (\S+:\d+) ", line)
        version = re.search(
            r"<artifactId>kafka_[^<]*</artifactId>\s*<version>([^<]+)", (launcher.parent / "pom.xml").read_text()
        )
        if address is None or version is None:
            raise BenchError(f"{launcher} does not say where Kafka is: {line}")
        yield _broker(address[1], f"Apache Kafka {version[1]}, one node, KRaft")


def _broker(bootstrap: str, what: str) -> Broker:
    pid = accounting.listener(int(bootstrap.rpartition(":")[2]))
    jvm: list[str] = []
    if pid is not None:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        jvm = [each for each in arguments if each.startswith("-X")]
    return Broker(bootstrap, pid, {"what": what, "jvm": jvm})


@dataclass(frozen=True, slots=True)
class System:
    """What is measured. ``pids`` by name (``api 0``, ``signer 2``), ``scrapes`` the addresses of /metrics."""

    urls: tuple[str, ...]
    pids: dict[str, int]
    public_key: str
    scrapes: tuple[str, ...] = field(default=())


@contextlib.contextmanager
def demo(committee: Committee, apis: int, broker_: Broker, folder: Path) -> Iterator[System]:
    """``signer-flow demo`` on the broker: signing when the block begins, ended when it ends."""
    n = committee.signers
    base = free_ports(apis + n + apis + 110)
    admin = base + apis
    output = folder / f"demo-{committee.name}.log"
    argv = [
        *(sys.executable, "-m", "rest_api.cli", "demo", "--kafka", broker_.bootstrap, "--apis", str(apis)),
        *("--signers", str(n), "--threshold", str(committee.threshold)),
        *("--port", str(base), "--admin-port", str(admin)),
    ]
    with running(argv, output) as process:
        _await_line(process, output, "ready: ", 120.0)
        pids = accounting.children(process.pid)
        if len(pids) != n + apis:
            raise BenchError(f"{committee.name}: of {n + apis} processes only {sorted(pids)} are there")
        if broker_.pid is not None:
            pids["broker"] = broker_.pid
        urls = tuple(f"http://{HOST}:{base + i}" for i in range(apis))
        ports = [admin + m for m in range(1, n + 1)] + [admin + 100 + i for i in range(apis)]
        yield System(urls, pids, _public_key(urls[0]), tuple(f"http://{HOST}:{port}/metrics" for port in ports))


@contextlib.contextmanager
def baseline(folder: Path) -> Iterator[System]:
    """The service with the key in its memory."""
    port = free_ports(1)
    argv = [sys.executable, "-m", "tests.bench.baseline", "--port", str(port)]
    url = f"http://{HOST}:{port}"
    output = folder / "baseline.log"
    with running(argv, output) as process:
        end = time.monotonic() + 30.0
        while accounting.listener(port) is None:
            if process.poll() is not None or time.monotonic() > end:
                raise BenchError(f"the baseline service does not serve: {output.read_text()[-300:]}")
            time.sleep(0.05)
        yield System((url,), {"api 0": process.pid}, _public_key(url))


def _public_key(url: str) -> str:
    try:
        return str(httpx.get(f"{url}/v1/keys", timeout=10.0).json()["keys"][0]["public_key"])
    except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
        raise BenchError(f"{url}/v1/keys names no key: {error!r}") from None


class Talker:
    """A process that answers one JSON line with one JSON line."""

    def __init__(self, process: "subprocess.Popen[bytes]", name: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.pid = process.pid
        self._name, self._in, self._out = name, process.stdin, process.stdout
        self._rest = b""
        os.set_blocking(self._out.fileno(), False)

    def tell(self, command: dict[str, Any]) -> None:
        """Send a command.

        Raises:
            BenchError: it is gone.
        """
        try:
            self._in.write(json.dumps(command).encode() + b"\n")
        except BrokenPipeError:
            raise BenchError(f"the {self._name} ended") from None

    def hear(self, within_s: float) -> dict[str, Any]:
        """Its next answer.

        Raises:
            BenchError: none in time, or it is gone.
        """
        end = time.monotonic() + within_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise BenchError(f"the {self._name} has not answered within {within_s:.0f} s")
                data = self._out.read(65536)
                if data == b"":
                    raise BenchError(f"the {self._name} ended")
                self._rest += data or b""
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def talker(module: str, folder: Path) -> Iterator[Talker]:
    """``python -m tests.bench.<module>`` for as long as the block runs."""
    argv = [sys.executable, "-m", f"tests.bench.{module}"]
    with running(argv, folder / f"{module}.log", talks=True) as process:
        yield Talker(process, f"{module} process")


def scrape(addresses: Sequence[str]) -> list[str]:
    """/metrics of each; an empty text where there is none."""
    found = []
    for address in addresses:
        try:
            found.append(httpx.get(address, timeout=5.0).text)
        except httpx.HTTPError:
            found.append("")
    return found
