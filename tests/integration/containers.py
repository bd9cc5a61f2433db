"""Apache Kafka and our own two images in containers, as compose.yaml runs them, with every port on loopback."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from tests.brokers import launcher
from tests.integration import daemon
from tests.integration.daemon import Images
from tests.integration.system import PODS, SIGNERS, THRESHOLD, UP_WITHIN_S, System
from tests.ports import free_ports
from tests.system.running_demo import wait_until

# Its reaper is one more image from a registry; what it does, daemon.sweep does.
testcontainers_config.ryuk_disabled = True

HAND_OUT = daemon.ROOT / "docker" / "hand_out.py"
SHELLS = ("/usr/bin/dash", "/usr/bin/bash")
"""What every shell of the base image is, behind its links."""
HARDENED: Mapping[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    # No shell can be run, so whatever needs one is seen to fail.
    "mounts": [
        daemon.sdk.types.Mount(target=shell, source="/dev/null", type="bind", read_only=True) for shell in SHELLS
    ],
}
"""What all of our containers are run with."""
AGAIN = {"Name": "unless-stopped"}
"""A process that cannot get what it needs of the broker ends, and whoever runs it starts it again."""


def container(image: str, network: Network, alias: str, port: tuple[int, int] | None = None, **more: Any) -> Any:
    """A generic container on a network; ``port`` is (inside, on loopback outside)."""
    made = DockerContainer(image).with_network(network).with_network_aliases(alias)
    made.with_kwargs(labels=daemon.labels(), mem_limit="1g", **more)
    if port is not None:
        # with_bind_ports would publish on every address of this machine.
        made.ports[str(port[0])] = ("127.0.0.1", port[1])  # type: ignore[assignment]
    return made


def run_to_its_end(image: str, command: Sequence[str], **more: Any) -> tuple[int, str]:
    """Run a container until it ends. Returns its exit code and what it printed."""
    made = daemon.client().containers.run(image, list(command), detach=True, labels=daemon.labels(), **more)
    try:
        code = int(made.wait(timeout=120)["StatusCode"])
        return code, made.logs().decode()
    finally:
        made.remove(force=True, v=True)


class KafkaContainer:
    """One node of Apache Kafka: ``bootstrap`` for this machine, ``inside`` for containers of its network."""

    inside = "kafka:9092"

    def __init__(self, image: str, network: Network) -> None:
        # The same port inside and outside: an address that is advertised has to be right for both.
        self.port = free_ports()
        self.container = container(image, network, "kafka", (self.port, self.port))
        self.container.with_envs(**self._environment())

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def wrapped(self) -> Any:
        """The Docker SDK's container: to stop, kill, pause."""
        return self.container.get_wrapped_container()

    def wait(self) -> None:
        """Until it answers with itself among the brokers: a log line of an earlier start would prove nothing."""
        serves = launcher().serves
        wait_until(lambda: bool(serves(self.port)), UP_WITHIN_S, "Kafka in its container serves")

    def _environment(self) -> dict[str, str]:
        return {
            "KAFKA_HEAP_OPTS": "-Xms256m -Xmx512m",
            "KAFKA_JVM_PERFORMANCE_OPTS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_LISTENERS": f"HOST://:{self.port},INSIDE://:9092,CONTROLLER://localhost:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"HOST://127.0.0.1:{self.port},INSIDE://{self.inside}",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "HOST:PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_INTER_BROKER_LISTENER_NAME": "INSIDE",
            "KAFKA_LOG_DIRS": "/var/lib/kafka/data",
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "1",
            "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            # After kill -9 the node may register again only when its old session is over.
            "KAFKA_BROKER_SESSION_TIMEOUT_MS": "6000",
        }


@contextmanager
def running_kafka(image: str) -> Iterator[tuple[KafkaContainer, Network]]:
    """Apache Kafka in a container, on a network of its own."""
    with Network(docker_network_kw={"labels": daemon.labels()}) as network:
        kafka = KafkaContainer(image, network)
        with kafka.container:
            try:
                kafka.wait()
            except AssertionError as late:
                raise AssertionError(f"{late}\n{kafka.wrapped().logs(tail=40).decode()}") from None
            yield kafka, network


class Containers(System):
    """Started by ``running_containers``."""

    def __init__(self, kafka: KafkaContainer) -> None:
        self.kafka = kafka
        self.containers: dict[str, Any] = {}
        self.ports: dict[int, int] = {}

    def url(self, pod: int = 0) -> str:
        return f"http://127.0.0.1:{self.ports[pod]}"

    def wrapped(self, name: str) -> Any:
        """The Docker SDK's container, with what is known of it now."""
        found = self.containers[name].get_wrapped_container()
        found.reload()
        return found

    def kill(self, name: str) -> None:
        self.wrapped(name).kill()

    def stop(self, name: str) -> int:
        self.wrapped(name).stop(timeout=60)
        return int(self.wrapped(name).attrs["State"]["ExitCode"])

    def start(self, name: str) -> None:
        self.wrapped(name).start()

    def restart_broker(self) -> None:
        self.kafka.wrapped().restart(timeout=60)
        self.kafka.wait()

    def log(self, name: str) -> str:
        said: bytes = self.wrapped(name).logs(tail=5000)
        return said.decode()

    def healthy(self, name: str) -> bool:
        """Whether Docker's own health check, run in that container, found it well."""
        return bool(self.wrapped(name).attrs["State"]["Health"]["Status"] == "healthy")


@contextmanager
def running_containers(images: Images, kafka: KafkaContainer, network: Network) -> Iterator[Containers]:
    """Keys, topics, signers, pods: until a message was signed through each pod."""
    run = uuid.uuid4().hex[:12]
    prefix = f"t-{run}."
    made = daemon.client()
    keys = f"signer-flow-{run}-keys"
    given = {name: f"signer-flow-{run}-{name}" for name in ("api", *(f"signer-{i}" for i in range(1, SIGNERS + 1)))}
    states = {index: f"signer-flow-{run}-state-{index}" for index in range(1, SIGNERS + 1)}
    with ExitStack() as stack:
        for name in (keys, *given.values(), *states.values()):
            volume = made.volumes.create(name, labels=daemon.labels())
            stack.callback(volume.remove, force=True)
        _provision(images, keys, given)
        _topics(images, prefix, network)

        def start(
            image: str, name: str, volumes: Mapping[str, str], environment: Mapping[str, str], **more: Any
        ) -> Any:
            each = container(image, network, name, **more, **HARDENED, restart_policy=AGAIN)
            each.with_envs(**settings)
            for source, target in volumes.items():
                each.with_volume_mapping(source, target, "ro" if target == "/run/signer-flow" else "rw")
            return stack.enter_context(each)

        system = Containers(kafka)
        for index, state in states.items():
            settings = _settings("SIGNER_SERVICE_", prefix, index)
            volumes = {given[f"signer-{index}"]: "/run/signer-flow", state: "/var/lib/signer-flow"}
            system.containers[f"signer {index}"] = start(images.signer_service, f"signer-{index}", volumes, settings)
        for index in range(PODS):
            system.ports[index] = free_ports()
            settings = _settings("SIGNER_REST_API_", prefix, index) | {"SIGNER_REST_API_AUTH": "none"}
            port = (8000, system.ports[index])
            volumes = {given["api"]: "/run/signer-flow"}
            system.containers[f"pod {index}"] = start(images.rest_api, f"api-{index}", volumes, settings, port=port)
        for index in range(PODS):
            system.wait_signing(index)
        yield system


def _settings(variables: str, prefix: str, index: int) -> dict[str, str]:
    return {
        f"{variables}INDEX": str(index),
        f"{variables}KAFKA_BOOTSTRAP": KafkaContainer.inside,
        f"{variables}TOPIC_PREFIX": prefix,
    }


def _provision(images: Images, keys: str, given: Mapping[str, str]) -> None:
    command = ["provision", "--signers", str(SIGNERS), "--threshold", str(THRESHOLD)]
    where = {keys: {"bind": "/var/lib/signer-flow", "mode": "rw"}}
    code, said = run_to_its_end(
        images.signer_service,
        [*command, "--out", "/var/lib/signer-flow/keys"],
        volumes=where,
        network_mode="none",
        **HARDENED,
    )
    assert code == 0, said
    volumes = {volume: {"bind": f"/given/{name}", "mode": "rw"} for name, volume in given.items()}
    volumes |= {keys: {"bind": "/keys", "mode": "ro"}, str(HAND_OUT): {"bind": "/hand_out.py", "mode": "ro"}}
    code, said = run_to_its_end(
        images.signer_service,
        ["/keys/keys", "/given"],
        entrypoint=["python", "/hand_out.py"],
        user="0:0",
        cap_add=["CHOWN", "DAC_OVERRIDE", "FOWNER"],
        volumes=volumes,
        network_mode="none",
        **HARDENED,
    )
    assert code == 0, said


def _topics(images: Images, prefix: str, network: Network) -> None:
    asked = ["topics", "--create", "--kafka", KafkaContainer.inside, "--topic-prefix", prefix, "--replication", "1"]
    code, said = run_to_its_end(
        images.rest_api,
        [*asked, "--apis", str(PODS), "--signers", str(SIGNERS)],
        entrypoint=["python", "-m", "rest_api.cli"],
        network=network.name,
        **HARDENED,
    )
    assert code == 0, said
