"""docker/compose.yaml as a newcomer uses it: up, a signature, down, up again."""

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from rest_api.client import Client, ClientError
from tests.integration import daemon
from tests.integration.daemon import ROOT, Images
from tests.integration.system import UP_WITHIN_S
from tests.ports import free_ports
from tests.system.running_demo import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]

COMMAND_S = 600
ONCE = {"topics", "provision", "hand-out"}
"""Services that do their work and end."""


class Compose:
    """One project of compose.yaml, beside any other on this machine."""

    def __init__(self, images: Images) -> None:
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
        if not plugin and shutil.which("docker-compose") is None:
            daemon.absent("neither `docker compose` nor docker-compose is installed")
        self.project = f"signer-flow-test-{uuid.uuid4().hex[:8]}"
        self.ports = [free_ports(), free_ports()]
        program = ["docker", "compose"] if plugin else ["docker-compose"]
        self._command = [*program, "-f", str(ROOT / "docker" / "compose.yaml"), "-p", self.project]
        self._environment = {
            **os.environ,
            "PORT": str(self.ports[0]),
            "PORT_1": str(self.ports[1]),
            "TAG": daemon.TAG,
            "KAFKA_IMAGE": images.kafka,
            "BASE_IMAGE": images.base,
        }

    def run(self, *arguments: str) -> str:
        command = [*self._command, *arguments]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=False, timeout=COMMAND_S
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def containers(self) -> dict[str, Any]:
        """What Docker knows of each container, by the name of its service."""
        chosen = {"label": f"com.docker.compose.project={self.project}"}
        found = daemon.client().containers.list(all=True, filters=chosen, ignore_removed=True)
        return {each.labels["com.docker.compose.service"]: each.attrs for each in found}

    def wait_up(self) -> None:
        """Until every service is healthy, or has done its work."""

        def up() -> bool:
            states = {name: each["State"] for name, each in self.containers().items()}
            for name in ONCE & states.keys():
                assert states[name]["Status"] != "exited" or states[name]["ExitCode"] == 0, self.run("logs", name)
            return all(
                state["Status"] == "exited" if name in ONCE else state.get("Health", {}).get("Status") == "healthy"
                for name, state in states.items()
            )

        try:
            wait_until(up, UP_WITHIN_S, "every service of compose.yaml is healthy")
        except AssertionError as late:
            states = {name: json.dumps(each["State"])[:2000] for name, each in self.containers().items()}
            raise AssertionError(f"{late}\n{states}\n{self.run('logs', '--tail', '15')}") from None

    def sign(self, pod: int, message: bytes) -> bytes:
        """Sign, check with another library, and return the public key."""
        with Client(f"http://127.0.0.1:{self.ports[pod]}", retry_for_s=30.0, timeout_ms=30_000) as client:
            signature = client.sign(message)
        Ed25519PublicKey.from_public_bytes(signature.public_key).verify(signature.signature, message)
        return signature.public_key


@pytest.fixture(scope="module")
def compose(images: Images) -> Iterator[Compose]:
    project = Compose(images)
    try:
        project.run("up", "-d", "--no-build")
        project.wait_up()
        yield project
    finally:
        project.run("down", "--volumes", "--timeout", "10")


def test_compose_up_gives_signatures_through_both_pods(compose: Compose) -> None:
    assert compose.sign(0, b"hello") == compose.sign(1, b"world")


def test_only_the_pods_are_published_and_only_on_loopback(compose: Compose) -> None:
    published = {
        name: [(where["HostIp"], int(where["HostPort"])) for bound in ports.values() for where in bound]
        for name, each in compose.containers().items()
        if (ports := {key: value for key, value in (each["NetworkSettings"]["Ports"] or {}).items() if value})
    }
    assert published == {
        "api-0": [("127.0.0.1", compose.ports[0])],
        "api-1": [("127.0.0.1", compose.ports[1])],
    }


def test_every_service_of_ours_is_hardened_and_signers_reach_the_broker_alone(compose: Compose) -> None:
    containers = compose.containers()
    for name, each in containers.items():
        host = each["HostConfig"]
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        if name == "kafka":
            continue
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert bool(host["CapAdd"]) == (name == "hand-out"), name
        assert each["Config"]["User"] == ("0:0" if name == "hand-out" else "10001:10001"), name
    networks = daemon.client().networks.list(names=[f"{compose.project}_kafka"])
    assert [each.attrs["Internal"] for each in networks] == [True]
    for name in ("signer-1", "signer-2", "signer-3", "kafka"):
        assert list(containers[name]["NetworkSettings"]["Networks"]) == [f"{compose.project}_kafka"]


def test_a_page_of_a_stranger_that_points_its_name_at_a_published_port_gets_nothing(compose: Compose) -> None:
    import httpx

    asked = httpx.get(f"http://127.0.0.1:{compose.ports[0]}/v1/keys", headers={"Host": "evil.example"}, timeout=30)
    assert 400 <= asked.status_code < 500


def test_the_key_outlives_the_containers(compose: Compose) -> None:
    before = compose.sign(0, b"before")
    compose.run("down", "--timeout", "15")
    with pytest.raises(ClientError), Client(f"http://127.0.0.1:{compose.ports[0]}", retry_for_s=0.0) as client:
        client.keys()
    compose.run("up", "-d", "--no-build")
    compose.wait_up()
    assert compose.sign(1, b"after") == before
