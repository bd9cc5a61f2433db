"""The two brokers that tests run on: the embedded one, and a real Apache Kafka.

Import the fixtures into a ``conftest.py`` beside the tests that want them::

    from tests.brokers import apache, broker, kafka

``kafka`` (and ``broker``) run a test once on each. Each test has a topic prefix of its own, so that tests, and people,
can share a cluster. The Apache Kafka is ``KAFKA_BOOTSTRAP``, else one that ``.ci/kafka`` starts for the whole test run
(all xdist workers share it), else these tests are skipped with the reason; with ``CI=true`` in the environment a
missing broker is a failure, because a skipped test defends nothing.
"""

import asyncio
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from confluent_kafka.admin import AdminClient

from common.kafka.client import KafkaClient
from common.kafka.embedded import EmbeddedBroker
from common.kafka.settings import KafkaSettings
from common.wire.topics import TopicSpec
from tests.scripts import load

WAIT_S = 30.0
_LAUNCHER = Path(__file__).parent.parent / ".ci" / "kafka" / "kafka.py"


async def until(condition: Callable[[], object], what: str, within_s: float = WAIT_S) -> None:
    """Wait for a condition; fail, naming it, when it does not come."""
    end = asyncio.get_running_loop().time() + within_s
    while not condition():
        if asyncio.get_running_loop().time() > end:
            pytest.fail(f"waited {within_s} s for: {what}")
        await asyncio.sleep(0.005)


async def until_async(question: Callable[[], Awaitable[object]], answer: object, within_s: float = WAIT_S) -> None:
    """Ask until the answer is this one; fail, showing the last, when it does not come."""
    end = asyncio.get_running_loop().time() + within_s
    while (last := await question()) != answer:
        if asyncio.get_running_loop().time() > end:
            pytest.fail(f"waited {within_s} s for {answer}, and got {last}")


def launcher() -> ModuleType:
    """``.ci/kafka/kafka.py`` as a module."""
    return load(_LAUNCHER)


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker, as one test sees it."""

    settings: KafkaSettings
    embedded: EmbeddedBroker | None

    @property
    def prefix(self) -> str:
        return self.settings.topic_prefix

    def arguments(self) -> dict[str, str | bool]:
        """What a process of its own needs to connect, for JSON: arguments of ``KafkaSettings``."""
        known = self.settings
        return {"bootstrap": known.bootstrap, "topic_prefix": known.topic_prefix, "embedded": known.embedded}

    def create(self, specs: Sequence[TopicSpec]) -> None:
        """Make topics, on either broker. Waits; also to be called inside a running event loop."""
        if self.embedded is not None:
            self.embedded.create_topics(specs)
            return

        async def ensure() -> None:
            admin = KafkaClient(self.settings).admin()
            try:
                await admin.ensure(specs)
            finally:
                await admin.close()

        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, ensure()).result()


@pytest.fixture(scope="session")
def apache(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[str]:
    """Bootstrap address of a real Apache Kafka; the tests that want it are skipped where there is none."""
    given = os.environ.get("KAFKA_BOOTSTRAP")
    if given:
        yield given
        return
    require_tools(", and no KAFKA_BOOTSTRAP")
    kafka = launcher()
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    name = f"tests-{hashlib.sha256(str(shared).encode()).hexdigest()[:12]}"
    instance = kafka.Instance(name)
    # Workers share one broker: the first starts it, the last one out stops it.
    lock, users = shared / "kafka.lock", shared / "kafka.users"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        port_file = shared / "kafka.port"
        if instance.pid() is None:
            try:
                _, port = instance.start(0, keep=False, bench=False, die_with_us=False)
            except kafka.Failed as reason:
                absent(str(reason))
            port_file.write_text(str(port))
            users.write_text("0")
        port = int(port_file.read_text())
        users.write_text(str(int(users.read_text()) + 1))
    try:
        yield f"{kafka.HOST}:{port}"
    finally:
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            left = int(users.read_text()) - 1
            users.write_text(str(left))
            if left == 0:
                instance.stop()
                shutil.rmtree(instance.folder, ignore_errors=True)


def require_tools(besides: str = "") -> None:
    """Skip, or fail, where a broker of our own cannot be started; ``besides`` goes into the reason."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if missing:
        absent(f"no {' and no '.join(missing)} here{besides}")


def absent(reason: str) -> None:
    """There is no Apache Kafka: skip, or fail where a skipped test would prove nothing."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"no Apache Kafka: {reason}")
    pytest.skip(f"no Apache Kafka: {reason}")


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker with a topic prefix that nobody else has. No topic exists yet."""
    prefix = f"t-{uuid.uuid4().hex[:12]}."
    if request.param == "embedded":
        with EmbeddedBroker() as cluster:
            yield Broker(cluster.settings("test", prefix), cluster)
    else:
        bootstrap = request.getfixturevalue("apache")
        yield Broker(KafkaSettings(bootstrap=bootstrap, client_id="test", topic_prefix=prefix), None)


@pytest.fixture
def kafka(broker: Broker) -> KafkaSettings:
    """Only the settings, where a test needs no more."""
    return broker.settings


__all__ = ["Broker", "apache", "broker", "kafka", "launcher", "until", "until_async"]


async def made_again(broker: Broker, spec: TopicSpec, within_s: float = 60.0) -> None:
    """Delete a topic of an Apache Kafka, wait until it is gone, and make it again."""

    def delete() -> None:
        admin = AdminClient({"bootstrap.servers": broker.settings.bootstrap})
        admin.delete_topics([spec.name])[spec.name].result(20.0)

    await asyncio.to_thread(delete)
    watch = KafkaClient(broker.settings).admin()

    async def is_there() -> bool:
        return spec.name in await watch.topics()

    try:
        await until_async(is_there, False, within_s)
        await watch.ensure([spec])
    finally:
        await watch.close()
