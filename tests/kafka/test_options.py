"""The settings that promises rest on, and that nobody can undo from outside."""

import pytest

from common.errors import BadInput
from common.kafka import options
from common.kafka.port import OnLost, Record
from common.kafka.settings import KafkaSettings

REAL = KafkaSettings("127.0.0.1:9092", "signer-1")
EMBEDDED = KafkaSettings("127.0.0.1:9092", "signer-1", embedded=True)


def test_a_retry_inside_the_client_writes_nothing_twice_and_ends_in_time() -> None:
    made = options.producer(REAL)
    assert made["enable.idempotence"] is True
    assert made["message.timeout.ms"] == 5000
    assert made["linger.ms"] == 0
    assert made["compression.type"] == "none"
    assert made["queue.buffering.max.kbytes"] == 32768


def test_no_client_makes_topics_by_asking() -> None:
    made = [options.producer(REAL), options.tail(REAL, OnLost.ERROR), options.group(REAL, None), options.admin(REAL)]
    assert [config["allow.auto.create.topics"] for config in made] == [False] * 4


def test_nothing_is_committed_that_was_not_stored() -> None:
    assert options.group(REAL, "seat-1")["enable.auto.offset.store"] is False
    assert options.group(REAL, "seat-1")["auto.commit.interval.ms"] == 250
    assert options.tail(REAL, OnLost.EARLIEST)["enable.auto.commit"] is False


def test_a_lost_position_is_an_error_only_where_asked() -> None:
    assert options.tail(REAL, OnLost.EARLIEST)["auto.offset.reset"] == "earliest"
    assert options.tail(REAL, OnLost.ERROR)["auto.offset.reset"] == "error"


def test_the_embedded_broker_gets_its_own_timings_and_no_static_member() -> None:
    real, embedded = options.group(REAL, "seat-1"), options.group(EMBEDDED, "seat-1")
    assert (real["session.timeout.ms"], embedded["session.timeout.ms"]) == (10_000, 2_000)
    assert real["group.instance.id"] == "seat-1"
    assert "group.instance.id" not in embedded
    assert real["group.protocol"] == "classic"
    assert real["partition.assignment.strategy"] == "cooperative-sticky"
    assert embedded["fetch.wait.max.ms"] == options.tail(EMBEDDED, OnLost.EARLIEST)["fetch.wait.max.ms"] == 10
    assert options.tail(REAL, OnLost.EARLIEST)["fetch.wait.max.ms"] == 500


def test_the_group_belongs_to_the_prefix() -> None:
    prefixed = KafkaSettings("127.0.0.1:9092", "signer-1", topic_prefix="demo.")
    assert options.group(prefixed, None)["group.id"] == "demo.signer"
    assert options.group(REAL, None)["group.id"] == "signer"


@pytest.mark.parametrize(
    "name", ["enable.idempotence", "auto.offset.reset", "bootstrap.servers", "sasl", "plugin.library.paths"]
)
def test_security_options_cannot_undo_other_settings(name: str) -> None:
    with pytest.raises(BadInput) as refused:
        KafkaSettings("127.0.0.1:9092", "x", security={name: "x"})
    assert refused.value.code == "kafka-security-option"


def test_a_password_reaches_the_client_and_no_log() -> None:
    security = {"security.protocol": "SASL_SSL", "sasl.username": "signer", "sasl.password": "hunter2"}
    settings = KafkaSettings("127.0.0.1:9092", "x", security=security)
    assert security.items() <= options.producer(settings).items()
    assert "hunter2" not in repr(settings)


def test_the_last_header_of_a_name_counts() -> None:
    record = Record("t", 0, 0, None, None, b"", (("a", b"1"), ("b", b"2"), ("a", b"3")))
    assert (record.header("a"), record.header("b"), record.header("c")) == (b"3", b"2", None)
