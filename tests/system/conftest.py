"""A demo runs on its own embedded broker, or on the Apache Kafka that the test run shares."""

import pytest

from tests.brokers import apache

__all__ = ["apache", "on_broker"]


@pytest.fixture(scope="module", params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def on_broker(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The demo's arguments that choose its broker."""
    if request.param == "embedded":
        return ()
    return ("--kafka", request.getfixturevalue("apache"))
