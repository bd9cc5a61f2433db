"""The Docker daemon and the images that these tests run in, or the reason why there are none.

Without Docker the tests are skipped with that reason. With ``SIGNER_FLOW_REQUIRE=docker`` in the environment they fail
instead, and make the images themselves; elsewhere they run only where ``make images`` has been run.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import pytest

sdk: Any = import_module("docker")
"""By name, because for a type checker our own folder docker/ stands before the library."""
ROOT = Path(__file__).resolve().parent.parent.parent
BUILD_S = 900
TAG = "local"
OURS = {"rest_api": f"signer-flow/rest-api:{TAG}", "signer_service": f"signer-flow/signer-service:{TAG}"}
OWNER = "signer-flow.tests"
"""Label of all that a test run makes: host and process id of who made it."""
SWEEPING = Path(tempfile.gettempdir()) / f"signer-flow-tests-{os.geteuid()}.lock"


@dataclass(frozen=True, slots=True)
class Images:
    """Names, as ``docker/.env`` has them for compose too."""

    base: str
    kafka: str
    rest_api: str
    signer_service: str


def required() -> bool:
    """Whether a missing Docker is a failure."""
    return "docker" in os.environ.get("SIGNER_FLOW_REQUIRE", "").split(",")


def absent(reason: str) -> NoReturn:
    """Skip, or fail where Docker is required."""
    if required():
        pytest.fail(f"no Docker: {reason}")
    pytest.skip(f"no Docker: {reason}")


def client() -> Any:
    """A client of the daemon that answers here; else the tests are skipped, or fail."""
    try:
        found = sdk.from_env(timeout=120)
        found.ping()
    except sdk.errors.DockerException:
        absent(f"no daemon answers at {os.environ.get('DOCKER_HOST', 'the usual socket')}")
    return found


def images() -> Images:
    """The images as the tree is now: built anew where something changed, which costs little where nothing did."""
    reached = client()
    if not required():
        for name in OURS.values():
            try:
                reached.images.get(name)
            except sdk.errors.NotFound:
                absent(f"there is no image {name}: run `make images`")
    if shutil.which("docker") is None:
        absent("a daemon answers, but there is no docker command to build images with")
    command = [str(ROOT / ".ci" / "docker" / "images")]
    environment = {**os.environ, "TAG": TAG, "PYTHON": sys.executable}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BUILD_S, check=False)
    if done.returncode != 0:
        absent(f"the images could not be made: {done.stderr.strip()[-2000:]}")
    said = dict(line.split("=", 1) for line in done.stdout.splitlines())
    return Images(base=said["BASE_IMAGE"], kafka=said["KAFKA_IMAGE"], **OURS)


def labels() -> dict[str, str]:
    """What everything that this run makes is labelled with."""
    return {OWNER: f"{socket.gethostname()}:{os.getpid()}"}


def sweep(reached: Any) -> None:
    """Remove what runs of this machine left that were killed: their containers, networks and volumes."""
    chosen = {"label": OWNER}
    with SWEEPING.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two at once would meet in the middle of a removal
        # What other runs remove meanwhile may be listed, and gone a moment later.
        for container in reached.containers.list(all=True, filters=chosen, ignore_removed=True):
            if _left(container.labels):
                container.remove(force=True, v=True)
        for network in reached.networks.list(filters=chosen):
            if _left(network.attrs["Labels"]):
                network.remove()
        for volume in reached.volumes.list(filters=chosen):
            if _left(volume.attrs["Labels"]):
                volume.remove(force=True)


def _left(found: dict[str, str]) -> bool:
    host, _, pid = found[OWNER].rpartition(":")
    return host == socket.gethostname() and not Path("/proc", pid).exists()
