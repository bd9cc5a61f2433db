"""The broker goes away under a whole system and comes back: everybody says so, nothing is lost silently, nobody has to
be started again."""

import base64
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from common.kafka.embedded import EmbeddedBroker
from common.wire import topics
from tests.brokers import Broker
from tests.ports import free_ports
from tests.shell.road import Signers
from tests.system.running_demo import PLAIN, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

BACK_WITHIN_S = 60.0
TIMEOUT_MS = 3_000
STOP_WITHIN_S = 15.0
SEATS = (1, 2, 3)


class System:
    """Three signers and a pod, each a process, on a broker that can be cut off."""

    def __init__(self, broker: EmbeddedBroker, root: Path) -> None:
        self.broker = broker
        self.signers = Signers(Broker(broker.settings("test"), broker), root, SIGNER_SERVICE_LOG_FORMAT="console")
        self.signers.provision(3, 2)
        self.port = free_ports(2)
        self.log = root / "api.log"
        settings = {
            "INDEX": "0",
            "KAFKA_BOOTSTRAP": broker.bootstrap,
            "KAFKA_EMBEDDED": "true",
            "SECRETS_DIR": str(self.signers.keys),
            "PORT": str(self.port),
            "ADMIN_PORT": str(self.port + 1),
            "LOG_FORMAT": "console",
        }
        self.signers.start(*SEATS)
        with self.log.open("wb") as log:
            self.pod = subprocess.Popen(
                [sys.executable, "-m", "rest_api"],
                env={
                    **{name: value for name, value in os.environ.items() if not name.startswith("SIGNER_")},
                    **{f"SIGNER_REST_API_{name}": value for name, value in settings.items()},
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def close(self) -> None:
        self.signers.close()
        if self.pod.poll() is None:
            self.pod.kill()
        self.pod.wait(10)

    def pod_status(self) -> int:
        try:
            return PLAIN.get(f"http://127.0.0.1:{self.port + 1}/readyz", timeout=5).status_code
        except httpx.HTTPError:
            return 0

    def statuses(self) -> list[int]:
        """What each process answers when it is asked whether it is ready: the pod first; 0 is no answer."""
        self.signers.check()
        assert self.pod.poll() is None, self.log.read_text()
        found = [self.pod_status()]
        for seat in SEATS:
            try:
                found.append(self.signers.page(seat, "/readyz")[0])
            except OSError:
                found.append(0)
        return found

    def wait_for(self, status: int, what: str) -> None:
        wait_until(lambda: self.statuses() == [status] * 4, BACK_WITHIN_S, what)

    def sign(self, http: httpx.Client, text: str) -> httpx.Response:
        url = f"http://127.0.0.1:{self.port}/v1/sign"
        return http.post(url, json={"text": text}, headers={"Request-Timeout-Ms": str(TIMEOUT_MS)})

    def logs(self) -> list[str]:
        return [self.log.read_text(), *(self.signers.log(seat).read_text() for seat in SEATS)]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with EmbeddedBroker() as broker:
        broker.create_topics(topics.all_topics("", 1, 3, 1))
        made = System(broker, tmp_path_factory.mktemp("outage"))
        try:
            made.wait_for(200, "all are ready")
            yield made
        finally:
            made.close()


class Load:
    """What became of each request: when it began, how long it took, its answer."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._stop = threading.Event()
        self.rows: list[tuple[float, float, str, httpx.Response | None]] = []

    def _run(self, caller: int) -> None:
        with httpx.Client(timeout=15) as http:
            number = 0
            while not self._stop.is_set():
                text, began = f"{caller}/{number}", time.monotonic()
                number += 1
                try:
                    answer = self._system.sign(http, text)
                except httpx.HTTPError:
                    answer = None
                self.rows.append((began, time.monotonic() - began, text, answer))
                self._stop.wait(0.1)

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._run, args=(caller,)) for caller in range(4)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(20)


def test_through_a_broker_outage_each_request_is_answered_and_everybody_comes_back_by_himself(system: System) -> None:
    load = Load(system)
    with load.running():
        wait_until(lambda: len(load.rows) > 20, 30, "requests are served")
        down = time.monotonic()
        system.broker.set_down()
        system.wait_for(503, "all say that they are not ready")
        pause = threading.Event()
        pause.wait(max(0.0, down + 4.0 - time.monotonic()))
        up = time.monotonic()
        system.broker.set_up()
        system.wait_for(200, "all are ready again")
        ready = time.monotonic()
        wait_until(lambda: load.rows[-1][0] > ready and is_signed(load.rows[-1]), 30, "requests are served again")

    for began, took, text, answer in load.rows:
        assert answer is not None, "a connection was dropped instead of an answer"
        assert answer.status_code in {200, 503, 504}, answer.text
        assert took < TIMEOUT_MS / 1000 + 10.0
        if answer.status_code == 200:
            body = answer.json()
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(body["public_key"]))
            key.verify(base64.b64decode(body["signature"]), text.encode())
        else:
            assert began + took > down, f"refused before the outage: {answer.text}"
            assert answer.json()["retryable"] is (answer.status_code == 503)
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) >= 1
    during = [answer for began, _, _, answer in load.rows if down + TIMEOUT_MS / 1000 < began < up]
    assert during
    assert all(answer is not None and answer.status_code == 503 for answer in during)

    for log in system.logs():
        lines = log.splitlines()
        assert sum("no broker answers" in line for line in lines) == 1, log
        assert sum("answers again" in line for line in lines) == 1, log
        assert sum("FAIL" in line for line in lines) == 0, log


def is_signed(row: tuple[float, float, str, httpx.Response | None]) -> bool:
    return row[3] is not None and row[3].status_code == 200


def test_told_to_end_in_an_outage_everybody_ends_at_once_and_in_order(system: System) -> None:
    system.broker.set_down()
    system.wait_for(503, "all say that they are not ready")
    began = time.monotonic()
    everybody = [system.pod, *system.signers.processes.values()]
    for process in everybody:
        process.send_signal(signal.SIGTERM)
    codes = [process.wait(30) for process in everybody]
    took = time.monotonic() - began
    system.signers.processes.clear()
    assert codes == [0, 0, 0, 0], system.logs()
    assert took < STOP_WITHIN_S
    assert not any("Traceback" in log for log in system.logs())
