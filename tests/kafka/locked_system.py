"""Three signers and two pods as real processes on a locked broker, each with a login of its own."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import pytest

from rest_api.demo import plan as plans
from rest_api.demo.children import ChildSpec
from tests.kafka.locked import HOST, Locked
from tests.ports import free_ports
from tests.system.replicas import provisioned

APIS, SIGNERS = 2, 3
WAIT_S = 90.0
STOP_S = 20.0


class LockedSystem:
    """Started by ``with``; whatever happens, no process is left."""

    def __init__(self, locked: Locked, folder: Path) -> None:
        self._locked = locked
        self._folder = folder
        self.keys = provisioned(folder / "keys", SIGNERS, 2)
        self._port = free_ports(APIS)
        self._admin = free_ports(APIS + 103)
        self._plan = plans.Plan(self._port, APIS, SIGNERS, 2, "", None, self._admin, "info")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            for m in range(1, SIGNERS + 1):
                name = f"signer-{m}"
                self._start(name, plans.signer(self._plan, self._place(name), m), "SIGNER_SERVICE_")
            for n in range(APIS):
                name = f"rest-api-{n}"
                self._start(name, plans.api(self._plan, self._place(name), n), "SIGNER_REST_API_")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the processes: those of their principals."""
        return tuple(self._processes)

    def _place(self, name: str) -> plans.Place:
        return plans.Place(self.keys, self._folder / "state", self._locked.login(name)[0], "", embedded=False)

    def _start(self, name: str, spec: ChildSpec, prefix: str) -> None:
        options = self._locked.file(self._locked.login(name)[1])
        ours = {key: value for key, value in os.environ.items() if not key.startswith("SIGNER_")}
        environment = {**ours, **spec.env, f"{prefix}KAFKA_SECURITY_FILE": str(options)}
        with self._log(name).open("wb") as log:
            self._processes[name] = subprocess.Popen(
                list(spec.argv), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def log(self, name: str) -> str:
        """Everything that it has said."""
        return self._log(name).read_text()

    def url(self, pod: int) -> str:
        """Where a pod is."""
        return f"http://{HOST}:{self._port + pod}"

    def ready(self, name: str) -> bool:
        """As a load balancer sees it."""
        kind, _, number = name.rpartition("-")
        port = self._admin + int(number) + (100 if kind == "rest-api" else 0)
        try:
            return httpx.get(f"http://{HOST}:{port}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def until(self, name: str, condition: Callable[[str], bool], what: str) -> None:
        """Wait until what it has said is so; fail, showing it, if that does not come, or if anybody has ended."""
        end = time.monotonic() + WAIT_S
        while not condition(self.log(name)):
            ended = [name for name, process in self._processes.items() if process.poll() is not None]
            if ended or time.monotonic() > end:
                logs = "\n".join(f"{each}: {self.log(each)[-3000:]}" for each in {name, *ended})
                pytest.fail(f"{ended or 'nobody'} ended, and {name} not within {WAIT_S} s: {what}\n{logs}")
            time.sleep(0.1)

    def until_all_ready(self) -> None:
        """Wait until everybody is."""
        for name in self.names:
            self.until(name, lambda _, name=name: self.ready(name), "it is ready")  # type: ignore[misc]

    def close(self) -> None:
        """End them."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)
