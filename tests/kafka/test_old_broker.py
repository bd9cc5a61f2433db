"""A broker of long ago, played by one that says so: what a person reads who runs us on it."""

import pytest

from common.kafka.settings import KafkaSettings
from common.kafka.trouble import OLDEST_KAFKA
from common.wire import topics
from tests.brokers import until
from tests.kafka.fake_broker import APACHE_0_10_2, FakeBroker
from tests.kafka.members import Client

pytestmark = pytest.mark.anyio

KEYS = topics.keys("").name


async def test_a_broker_that_is_too_old_is_one_line_with_version_and_setting_and_ends_the_process() -> None:
    with FakeBroker(APACHE_0_10_2, [KEYS]) as broker:
        client = Client(KafkaSettings(broker.bootstrap, "test", variables="SIGNER_SERVICE_"))
        client.producer().send(KEYS, b"x")
        await until(lambda: client.fatal, "the fatal hook")
        await client.close()
    (line,) = client.fatal
    assert f"the broker at {broker.bootstrap} is too old: it needs Apache Kafka {OLDEST_KAFKA} or newer" in line
    assert "SIGNER_SERVICE_KAFKA_BOOTSTRAP" in line
    assert "\n" not in line
