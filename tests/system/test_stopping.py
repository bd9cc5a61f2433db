"""A service that is told to end does so at once, also while it starts and while there is no broker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from signer_service.provision import Plan, provision
from tests.ports import free_ports
from tests.system.running_demo import wait_until

WITHIN_S = 15.0
SERVICES = ("signer_service", "rest_api")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    provision(tmp_path / "keys", Plan(3, 2), os.urandom)
    return tmp_path


def environment(service: str, root: Path, *, embedded: bool) -> dict[str, str]:
    nobody = f"127.0.0.1:{free_ports()}"
    settings = {
        "INDEX": "1",
        "KAFKA_BOOTSTRAP": nobody,
        "KAFKA_EMBEDDED": str(embedded).lower(),
        "SECRETS_DIR": str(root / "keys"),
        "ADMIN_PORT": "0",
    }
    settings |= {"STATE_DIR": str(root / "state")} if service == "signer_service" else {"PORT": "0"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SIGNER_")}
    return inherited | {f"SIGNER_{service.upper().removeprefix('SIGNER_')}_{name}": v for name, v in settings.items()}


@contextmanager
def started(service: str, root: Path, *, embedded: bool) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    """The process, and what it has said so far."""
    command = [sys.executable, "-m", service, *(["run"] if service == "signer_service" else [])]
    log = root / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment(service, root, embedded=embedded), stdout=out, stderr=subprocess.STDOUT
        )
    try:
        yield process, log.read_text
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)


@pytest.mark.parametrize("embedded", [True, False])
@pytest.mark.parametrize("service", SERVICES)
def test_without_a_broker_sigterm_ends_a_service_at_once_and_in_order(service: str, embedded: bool, root: Path) -> None:
    with started(service, root, embedded=embedded) as (process, said):
        wait_until(lambda: "no broker answers" in said(), 30, "it misses the broker")
        assert process.poll() is None, said()
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, said()
        assert time.monotonic() - began < WITHIN_S
        assert said().count("no broker answers") == 1
        assert "Traceback" not in said()
        assert "never retrieved" not in said()


INTERRUPTED = """
import os, runpy, signal, sys

_, late, service, *arguments = sys.argv


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == late:
            os.kill(os.getpid(), signal.SIGTERM)


sys.meta_path.insert(0, Finder)
sys.argv = [service, *arguments]
runpy.run_module(service, run_name="__main__", alter_sys=True)
"""
"""Runs a service, and ends it by a signal when it imports a module."""


@pytest.mark.parametrize(
    ("service", "late"), [("signer_service", "signer_service.app"), ("rest_api", "rest_api.server")]
)
def test_sigterm_while_a_service_is_still_importing_ends_it_in_order(service: str, late: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, late, service, *(["run"] if service == "signer_service" else [])],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
