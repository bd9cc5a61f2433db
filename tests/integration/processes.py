"""The same system without Docker: each signer and each pod a process, on an Apache Kafka that is a process too."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx

from rest_api.demo import children
from rest_api.demo import plan as plans
from rest_api.demo.children import ChildSpec
from tests.brokers import absent, launcher, require_tools
from tests.integration.system import PODS, SIGNERS, THRESHOLD, System
from tests.ports import free_ports
from tests.system.running_demo import PLAIN

STOP_S = 60.0
AGAIN_AFTER_S = 1.0
COMMAND_S = 120


def tethered(argv: Sequence[str]) -> list[str]:
    """The command, ended by the kernel should we be killed. ``argv`` begins with a program's whole path."""
    return [sys.executable, "-I", "-S", "-c", children._TETHER, str(os.getpid()), *argv]


class Kafka(Protocol):
    """The broker of such a system, or several."""

    @property
    def bootstrap(self) -> str:
        """Where it is."""

    def restart(self) -> None:
        """In order; returns when it serves again."""


class OwnKafka:
    """What ``make kafka`` starts, one for these tests alone: they stop it."""

    def __init__(self) -> None:
        require_tools()
        self._launcher = launcher()
        self._instance: Any = self._launcher.Instance(f"system-{uuid.uuid4().hex[:12]}")
        self._port = 0
        self._start(keep=False)

    def _start(self, keep: bool) -> None:
        try:
            _, self._port = self._instance.start(self._port, keep, False, True)
        except self._launcher.Failed as reason:
            absent(str(reason))

    @property
    def bootstrap(self) -> str:
        return f"{self._launcher.HOST}:{self._port}"

    def restart(self) -> None:
        self._instance.stop()
        self._start(keep=True)

    def close(self) -> None:
        """End it; nothing is left."""
        self._instance.stop(kill=True)
        shutil.rmtree(self._instance.folder, ignore_errors=True)


class Processes(System):
    """Started by ``running_processes``."""

    def __init__(self, kafka: Kafka, folder: Path, prefix: str) -> None:
        self.prefix = prefix
        self._kafka = kafka
        self._folder = folder
        port, admin = free_ports(PODS), free_ports(PODS + 103)
        self._plan = plans.Plan(port, PODS, SIGNERS, THRESHOLD, "", None, admin, "info")
        self._place = plans.Place(folder / "keys", folder / "state", kafka.bootstrap, prefix, embedded=False)
        self._specs: Mapping[str, ChildSpec] = {name: self._spec(name) for name in self.names}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._again = threading.Thread(target=self._keep_running, daemon=True)

    def _spec(self, name: str) -> ChildSpec:
        kind, number = name.split()
        make = plans.signer if kind == "signer" else plans.api
        return make(self._plan, self._place, int(number))

    def open(self) -> None:
        """Make the keys, start everybody."""
        _run(plans.provision_command(self._plan, self._place.keys))
        for name in self.names:
            self.start(name)
        self._again.start()

    def close(self) -> None:
        """End everybody."""
        self._over.set()
        if self._again.ident is not None:
            self._again.join()
        for name in list(self._running):
            self.kill(name)

    def _keep_running(self) -> None:
        while not self._over.wait(AGAIN_AFTER_S):
            with self._lock:
                ended = [name for name, process in self._running.items() if process.poll() is not None]
                for name in ended:
                    self._start(name)

    def _start(self, name: str) -> None:
        spec = self._specs[name]
        ours = {key: value for key, value in os.environ.items() if not key.startswith("SIGNER_")}
        with self._log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                tethered(spec.argv),
                env={**ours, **spec.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def log(self, name: str) -> str:
        return self._log(name).read_text()

    def url(self, pod: int = 0) -> str:
        return f"http://{plans.HOST}:{self._plan.port + pod}"

    def ready(self) -> bool:
        """Whether everybody runs, and says so to a load balancer."""
        with self._lock:
            if any(process.poll() is not None for process in self._running.values()):
                return False
        ports = [self._plan.admin_port + m for m in range(1, SIGNERS + 1)]
        ports += [self._plan.admin_port + 100 + n for n in range(PODS)]
        try:
            return all(PLAIN.get(f"http://{plans.HOST}:{port}/readyz").status_code == 200 for port in ports)
        except httpx.HTTPError:
            return False

    def start(self, name: str) -> None:
        with self._lock:
            self._start(name)

    def kill(self, name: str) -> None:
        self._end(name, signal.SIGKILL)

    def stop(self, name: str) -> int:
        return self._end(name, signal.SIGTERM)

    def _end(self, name: str, number: signal.Signals) -> int:
        with self._lock:
            process = self._running.pop(name)
        process.send_signal(number)
        try:
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)
            raise

    def restart_broker(self) -> None:
        self._kafka.restart()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@contextmanager
def running_processes(kafka: Kafka, folder: Path, replication: int = 1) -> Iterator[Processes]:
    """Keys, topics, signers, pods: until each pod has signed. Whatever happens, no process is left."""
    prefix = f"t-{uuid.uuid4().hex[:12]}."
    command = ["topics", "--create", "--kafka", kafka.bootstrap, "--topic-prefix", prefix]
    numbers = ["--replication", str(replication), "--apis", str(PODS), "--signers", str(SIGNERS)]
    _run([sys.executable, "-m", "rest_api.cli", *command, *numbers])
    system = Processes(kafka, folder, prefix)
    try:
        system.open()
        for pod in range(PODS):
            system.wait_signing(pod)
        yield system
    finally:
        system.close()
