"""librdkafka's statistics become metrics: with a real client, and whatever a report holds."""

import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.kafka.client import KafkaClient
from common.kafka.embedded import EmbeddedBroker
from common.kafka.port import Hooks, Start
from common.observability.kafka_statistics import KafkaStatistics
from common.observability.metrics import Metrics
from common.wire import topics
from tests.brokers import until


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"signer_flow_{name}", labels)


@pytest.mark.anyio
async def test_a_real_client_shows_its_round_trip_and_its_connections() -> None:
    prefix = f"t-{uuid.uuid4().hex[:8]}."
    topic = topics.presence(prefix)
    metrics = Metrics()
    with EmbeddedBroker() as broker:
        broker.create_topics([topic])
        kafka = KafkaClient(broker.settings("t", prefix), Hooks(on_statistics=KafkaStatistics(metrics).take))
        producer, got = kafka.producer(), []  # type: ignore[var-annotated]
        tail = kafka.tail({topic.name: Start()}, got.extend)
        producer.start()
        await tail.start()
        producer.send(topic.name, b"beat")
        await until(lambda: got, "the record comes")
        names = ("kafka-producer-1", "kafka-tail-1")
        await until(
            lambda: all(
                (value(metrics, "kafka_round_trip_seconds", client=n, statistic="p99") or 0) > 0 for n in names
            ),
            "both clients have reported",
            15,
        )
        await tail.close()
        await producer.close()
    for name in names:
        assert (value(metrics, "kafka_client_events_total", client=name, event="connects") or 0) >= 1
        assert (value(metrics, "kafka_round_trip_seconds", client=name, statistic="p50") or 9) < 5
        assert value(metrics, "kafka_queued_records", client=name) == 0
        assert value(metrics, "kafka_waiting_requests", client=name) is not None
    assert value(metrics, "kafka_lag_records", client="kafka-tail-1") is None, "only a group is behind"


def report(**more: Any) -> dict[str, Any]:
    broker: dict[str, Any] = {"nodeid": 1, "connects": 2, "disconnects": 1, "outbuf_cnt": 3, "waitresp_cnt": 4}
    broker |= {"rtt": {"p50": 1_500, "p99": 250_000}, "throttle": {"max": 20}}
    partitions = {
        "0": {"partition": 0, "fetchq_cnt": 5, "fetchq_size": 700, "consumer_lag_stored": 9},
        "1": {"partition": 1, "fetchq_cnt": 0, "fetchq_size": 0, "consumer_lag_stored": -1},
        "-1": {"partition": -1, "fetchq_cnt": 99, "fetchq_size": 99, "consumer_lag_stored": 99},
    }
    bootstrap = {"nodeid": -1, "connects": 1, "rtt": {"p50": 9_000_000, "p99": 9_000_000}}
    return {
        "msg_cnt": 6,
        "msg_size": 60,
        "brokers": {"b:1/1": broker, "b:1/bootstrap": bootstrap},
        "topics": {"t": {"partitions": partitions}},
        **more,
    }


def test_each_figure_is_taken_in_its_unit() -> None:
    metrics = Metrics()
    KafkaStatistics(metrics).take("c", json.dumps(report(cgrp={"rebalance_cnt": 3})))
    assert value(metrics, "kafka_round_trip_seconds", client="c", statistic="p50") == pytest.approx(0.0015)
    assert value(metrics, "kafka_round_trip_seconds", client="c", statistic="p99") == pytest.approx(0.25)
    assert value(metrics, "kafka_throttle_seconds", client="c") == pytest.approx(0.02)
    assert value(metrics, "kafka_waiting_requests", client="c") == 7
    assert value(metrics, "kafka_queued_records", client="c") == 11
    assert value(metrics, "kafka_queued_bytes", client="c") == 760
    assert value(metrics, "kafka_lag_records", client="c") == 9
    assert value(metrics, "kafka_client_events_total", client="c", event="connects") == 3
    assert value(metrics, "kafka_client_events_total", client="c", event="rebalances") == 3


def test_counters_grow_by_the_difference_and_survive_a_new_client() -> None:
    metrics = Metrics()
    statistics = KafkaStatistics(metrics)
    for connects in (2, 2, 5, 1):
        told = report()
        told["brokers"] = {"b:1/1": {"nodeid": 1, "connects": connects}}
        statistics.take("c", json.dumps(told))
    assert value(metrics, "kafka_client_events_total", client="c", event="connects") == 2 + 0 + 3 + 1
    assert value(metrics, "kafka_client_events_total", client="c", event="disconnects") == 0


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["brokers", "topics", "partitions", "rtt", "nodeid", "partition", "cgrp", "msg_cnt", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["brokers", "topics", "cgrp", "msg_cnt", "msg_size"]), json_values))
def test_a_report_of_another_version_is_taken_as_far_as_it_goes(told: dict[str, Any]) -> None:
    KafkaStatistics(Metrics()).take("c", json.dumps(told))
