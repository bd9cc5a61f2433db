"""Brokers and clients for the contract tests."""

from collections.abc import AsyncIterator

import pytest

from common.kafka.port import Producer
from tests.brokers import Broker, apache, broker, kafka
from tests.kafka.members import Client

__all__ = ["apache", "broker", "kafka"]


@pytest.fixture
async def client(broker: Broker) -> AsyncIterator[Client]:
    """A process's Kafka, everything of which is closed after the test; a fatal error fails the test."""
    made = Client(broker.settings)
    yield made
    await made.close()
    assert made.fatal == made.expected_fatal


@pytest.fixture
async def producer(client: Client) -> Producer:
    """A started producer."""
    return client.producer()
