"""Containers that a whole file of tests shares."""

from collections.abc import Iterator

import pytest
from testcontainers.core.network import Network

from tests.integration import daemon
from tests.integration.containers import KafkaContainer, System, running_kafka, running_system
from tests.integration.daemon import Images


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
def system(images: Images, kafka_and_network: tuple[KafkaContainer, Network]) -> Iterator[System]:
    """Three signers and two pods in containers beside that Kafka; each pod has signed."""
    with running_system(images, *kafka_and_network) as running:
        yield running
