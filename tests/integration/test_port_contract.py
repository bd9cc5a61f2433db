"""The contract of the port to Kafka, once more: on the broker in a container."""

import uuid

import pytest

from common.kafka.settings import KafkaSettings
from tests.brokers import Broker
from tests.integration.containers import KafkaContainer
from tests.kafka import test_both_brokers
from tests.kafka.conftest import client, producer

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.timeout(1200)]

__all__ = ["client", "producer"]

globals().update({name: test for name, test in vars(test_both_brokers).items() if name.startswith("test_")})


@pytest.fixture
def broker(kafka_container: KafkaContainer) -> Broker:
    """The broker in the container, with a topic prefix that nobody else has."""
    prefix = f"t-{uuid.uuid4().hex[:12]}."
    settings = KafkaSettings(bootstrap=kafka_container.bootstrap, client_id="test", topic_prefix=prefix)
    return Broker(settings, None)
