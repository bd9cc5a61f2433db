"""A whole system as tests see it, whatever it runs in: signers and pods by name, a broker, and callers who ask."""

import itertools
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import httpx

from rest_api.client import Client, ClientError, Limited, ServiceUnavailable
from tests.system.running_demo import PLAIN, wait_until

SIGNERS, THRESHOLD, PODS = 3, 2, 2
UP_WITHIN_S = 300.0
AGAIN_WITHIN_S = 120.0
CALLERS = 4
TAIL = 60
PAUSE_S = 0.02
"""Between two questions of a caller: what has to come back needs some of the machine, too."""


class System(ABC):
    """Three signers of whom two sign together, and two pods. Names: ``signer 1``, ``pod 0``.

    What ends by itself is started again, by whoever runs it; what a test has killed or stopped does not
    run until ``start``.
    """

    @property
    def names(self) -> Sequence[str]:
        """Everybody but the broker."""
        return [*(f"signer {m}" for m in range(1, SIGNERS + 1)), *(f"pod {n}" for n in range(PODS))]

    @abstractmethod
    def url(self, pod: int = 0) -> str:
        """Where a pod is."""

    @abstractmethod
    def kill(self, name: str) -> None:
        """SIGKILL."""

    @abstractmethod
    def stop(self, name: str) -> int:
        """SIGTERM, and wait. Returns the exit code."""

    @abstractmethod
    def start(self, name: str) -> None:
        """Again, with the disk of before."""

    @abstractmethod
    def log(self, name: str) -> str:
        """What it has said."""

    @abstractmethod
    def restart_broker(self) -> None:
        """In order; returns when it serves again."""

    def logs(self) -> str:
        """What everybody has said last, and how each pod sees the others: for a failure."""
        parts = []
        for name in self.names:
            # Of single requests there may be thousands of lines.
            lines = [line for line in self.log(name).splitlines() if "request_id" not in line]
            parts += [f"--- {name}", *lines[-TAIL:]]
        for pod, path in itertools.product(range(PODS), ("/readyz", "/v1/cluster")):
            try:
                said = PLAIN.get(f"{self.url(pod)}{path}").text
            except httpx.HTTPError as error:
                said = str(error)
            parts.append(f"--- pod {pod} {path}: {said}")
        return "\n".join(parts)

    def wait_signing(self, pod: int = 0) -> None:
        """Until a message is signed through this pod."""

        def signs() -> bool:
            try:
                return bool(client.sign(uuid.uuid4().bytes).signature)
            except ClientError:
                return False

        with Client(self.url(pod), retry_for_s=0.0) as client:
            self.wait(signs, UP_WITHIN_S, f"a signature through pod {pod}")

    def wait_ready(self, count: int, what: str) -> None:
        """Until so many signers are ready, as pod 0 hears them."""
        with Client(self.url(), retry_for_s=5.0) as client:
            self.wait(lambda: _ready(client.cluster()) == count, UP_WITHIN_S, what)

    def wait(self, condition: Any, within_s: float, what: str) -> None:
        """Wait for a condition; fails, showing what everybody said, when it does not come."""
        try:
            wait_until(condition, within_s, what)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.logs()}") from None


def _ready(cluster: Mapping[str, Any]) -> int:
    return sum(each["state"] == "ready" for each in cluster["replicas"])


class Callers:
    """Some threads that ask one pod for signatures until they are told to stop, and remember what they were told."""

    def __init__(self, system: System, pod: int = 0) -> None:
        self._system = system
        self.outcomes: Counter[str] = Counter()
        self.longest_s = 0.0
        self._url = system.url(pod)
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(CALLERS)
        self._tasks = [self._pool.submit(self._ask) for _ in range(CALLERS)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for task in self._tasks:
            task.result()

    @property
    def signed(self) -> int:
        return self.outcomes["signed"]

    @property
    def others(self) -> set[str]:
        """Every outcome that was no signature, each once."""
        return set(self.outcomes) - {"signed"}

    def wait_signed(self, more: int, what: str, within_s: float = AGAIN_WITHIN_S) -> None:
        """Until so many more were signed than now."""
        before = self.signed
        try:
            wait_until(lambda: self.signed >= before + more, within_s, what)
        except AssertionError as late:
            raise AssertionError(f"{late}: {self.outcomes}\n{self._system.logs()}") from None

    def _ask(self) -> None:
        with Client(self._url, retry_for_s=0.0) as client:
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    client.sign(uuid.uuid4().bytes)  # which checks the signature
                    self.outcomes["signed"] += 1
                except (ServiceUnavailable, Limited) as refused:
                    self.outcomes[str(refused)[-80:]] += 1
                self.longest_s = max(self.longest_s, time.monotonic() - began)
                self._stop.wait(PAUSE_S)
