"""Apache Kafka as in production: three brokers, three copies of everything, two of which must have a record.

Each is a process on loopback, controller and broker, of the jars and the template that ``make kafka`` has.
"""

import shutil
import signal
import string
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.brokers import absent, launcher, require_tools
from tests.integration.processes import tethered
from tests.system.running_demo import wait_until

NODES: Final = (1, 2, 3)
UP_WITHIN_S: Final = 180.0
STOP_S: Final = 60.0
HEAP: Final = ("-Xms128m", "-Xmx384m")
COPIES: Final = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
}


class ThreeBrokers:
    """Started by ``open``; whatever happens, ``close`` leaves no process."""

    def __init__(self, folder: Path) -> None:
        require_tools()
        self._kafka = launcher()
        self._folder = folder
        first = self._kafka.free_port(2 * len(NODES))
        self._ports = {node: first + number for number, node in enumerate(NODES)}
        self._controllers = {node: first + len(NODES) + number for number, node in enumerate(NODES)}
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._admin: Any = None

    @property
    def bootstrap(self) -> str:
        return ",".join(f"{self._kafka.HOST}:{port}" for port in self._ports.values())

    def open(self) -> None:
        """Format and start all three; returns when each knows the others."""
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        formatting = [self._java(node, "kafka.tools.StorageTool", *self._format(node, cluster_id)) for node in NODES]
        for process in formatting:
            assert process.wait(UP_WITHIN_S) == 0, self._log(NODES[0])
        for node in NODES:
            self.start(node)
        # Without its lines of who does not answer: nobody does yet.
        self._admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        self._wait(lambda found: len(found.brokers) == len(NODES), "three brokers know each other")

    def close(self) -> None:
        """Kill what runs."""
        for node in list(self._running):
            self.end(node, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _format(self, node: int, cluster_id: str) -> list[str]:
        template = string.Template((self._kafka.HERE / "server.properties.template").read_text())
        here = self._folder / str(node)
        here.mkdir(parents=True)
        text = template.substitute(port=self._ports[node], controller_port=self._controllers[node], data=here / "data")
        voters = ",".join(f"{each}@{self._kafka.HOST}:{port}" for each, port in self._controllers.items())
        own = {"node.id": str(node), "controller.quorum.voters": voters, **COPIES}
        kept = [line for line in text.splitlines() if line.partition("=")[0] not in own]
        config = self._config(node)
        config.write_text("\n".join([*kept, *(f"{name}={value}" for name, value in own.items()), ""]))
        return ["format", f"--cluster-id={cluster_id}", "-c", str(config)]

    def _config(self, node: int) -> Path:
        return self._folder / str(node) / "server.properties"

    def _java(self, node: int, main: str, *arguments: str) -> "subprocess.Popen[bytes]":
        try:
            jars = self._kafka.jars()
        except self._kafka.Failed as reason:
            absent(str(reason))
        options = [f"-Dlog4j2.configurationFile={self._kafka.HERE / 'log4j2.properties'}"]
        options += [f"-Dkafka.log.file={self._folder / str(node) / 'server.log'}", "-cp", f"{jars}/*"]
        command = [str(shutil.which("java")), *HEAP, *self._kafka.JVM, *options, main, *arguments]
        with (self._folder / str(node) / "console.log").open("ab") as console:
            return subprocess.Popen(tethered(command), stdin=subprocess.DEVNULL, stdout=console, stderr=console)

    def _log(self, node: int) -> str:
        files = (self._folder / str(node) / name for name in ("console.log", "server.log"))
        return "\n".join(file.read_text()[-3000:] for file in files if file.exists())

    def start(self, node: int) -> None:
        """Start one, with what it had before."""
        self._running[node] = self._java(node, "kafka.Kafka", str(self._config(node)))

    def end(self, node: int, number: signal.Signals) -> None:
        """SIGTERM or SIGKILL one, and wait for its end."""
        process = self._running.pop(node)
        process.send_signal(number)
        process.wait(STOP_S)

    def restart(self) -> None:
        """All, one after another; returns when everything has its three copies again."""
        for node in NODES:
            self.end(node, signal.SIGTERM)
            self.start(node)
            self.wait_whole()

    def leader(self, topic: str) -> int:
        """The broker that leads the first partition of a topic."""
        return int(self._admin.list_topics(timeout=30).topics[topic].partitions[0].leader)

    def wait_whole(self) -> None:
        """Until every partition has a leader and three copies that are up to date."""
        self._wait(_is_whole, "everything has three copies")

    def _wait(self, condition: Callable[[Any], bool], what: str) -> None:
        def holds() -> bool:
            try:
                return condition(self._admin.list_topics(timeout=5))
            except KafkaException:  # nobody answers yet
                return False

        try:
            wait_until(holds, UP_WITHIN_S, what)
        except AssertionError as late:
            raise AssertionError("\n".join([str(late), *map(self._log, NODES)])) from None


def _is_whole(listed: Any) -> bool:
    return all(
        set(partition.isrs) == set(NODES) and partition.leader in NODES
        for topic in listed.topics.values()
        for partition in topic.partitions.values()
    )
