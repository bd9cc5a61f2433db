"""What a whole file of tests shares: containers, or processes."""

from collections.abc import Iterator

import pytest
from testcontainers.core.network import Network

from tests.integration import daemon
from tests.integration.containers import Containers, KafkaContainer, running_containers, running_kafka
from tests.integration.daemon import Images
from tests.integration.processes import OwnKafka, Processes, running_processes


@pytest.fixture(scope="session")
def images() -> Images:
    """Names of the images, made of the tree as it is."""
    found = daemon.images()
    daemon.sweep(daemon.client())
    return found


@pytest.fixture(scope="session")
def kafka_and_network(images: Images) -> Iterator[tuple[KafkaContainer, Network]]:
    """Apache Kafka in a container."""
    with running_kafka(images.kafka) as running:
        yield running


@pytest.fixture(scope="session")
def kafka_container(kafka_and_network: tuple[KafkaContainer, Network]) -> KafkaContainer:
    """The same, without its network."""
    return kafka_and_network[0]


@pytest.fixture(scope="module")
def containers(images: Images, kafka_and_network: tuple[KafkaContainer, Network]) -> Iterator[Containers]:
    """Three signers and two pods in containers beside that Kafka; each pod has signed."""
    with running_containers(images, *kafka_and_network) as running:
        yield running


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """The same as processes, on an Apache Kafka of their own without Docker."""
    kafka = OwnKafka()
    try:
        with running_processes(kafka, tmp_path_factory.mktemp("system")) as running:
            yield running
    finally:
        kafka.close()
