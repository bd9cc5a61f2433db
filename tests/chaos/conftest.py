"""The Apache Kafka that the whole test run shares."""

from tests.brokers import apache

__all__ = ["apache"]
