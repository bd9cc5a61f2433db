"""librdkafka's own statistics as metrics: is it the broker, the network, or do we not keep up?

Each client of a process reports every few seconds, as JSON (STATISTICS.md of librdkafka). Of its hundreds of figures
those are kept that a person would act on. Counters there count from the client's start; a client that was made anew
begins at zero again.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from common.observability.metrics import Metrics

_MICRO: Final = 1e-6
_COUNTED: Final = {
    "connects": "connects",
    "disconnects": "disconnects",
    "tx_errors": "txerrs",
    "retries": "txretries",
    "timeouts": "req_timeouts",
}
"""Our name of an event, and librdkafka's counter of it, per broker."""


class KafkaStatistics:
    """Takes the reports of one process's clients. For ``Hooks.on_statistics``; on the event loop only."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._before: dict[tuple[str, str], int] = {}

    def take(self, client: str, text: str) -> None:
        """Take one report. Figures that are not there are passed over: they differ between versions."""
        report = orjson.loads(text)
        brokers = [each for each in _values(report, "brokers") if _number(each, "nodeid", -1) >= 0]
        partitions = [
            each
            for topic in _values(report, "topics")
            for each in _values(topic, "partitions")
            if _number(each, "partition", -1) >= 0
        ]
        metrics = self._metrics
        for statistic in ("p50", "p99"):
            slowest = max((_at(broker, "rtt", statistic) for broker in brokers), default=0)
            metrics.kafka_round_trip.labels(client=client, statistic=statistic).set(slowest * _MICRO)
        throttled = max((_at(broker, "throttle", "max") for broker in brokers), default=0)
        metrics.kafka_throttle.labels(client=client).set(throttled / 1000)
        waiting = sum(_number(broker, "outbuf_cnt") + _number(broker, "waitresp_cnt") for broker in brokers)
        metrics.kafka_waiting_requests.labels(client=client).set(waiting)
        # To be sent by a producer, or fetched and not yet taken by a consumer.
        fetched = sum(_number(partition, "fetchq_cnt") for partition in partitions)
        metrics.kafka_queued_records.labels(client=client).set(_number(report, "msg_cnt") + fetched)
        size = sum(_number(partition, "fetchq_size") for partition in partitions)
        metrics.kafka_queued_bytes.labels(client=client).set(_number(report, "msg_size") + size)
        # -1: nothing was finished yet. Only the member of the group finishes anything: others are behind with nothing.
        lags = [lag for each in partitions if (lag := _number(each, "consumer_lag_stored", -1)) >= 0]
        if lags:
            metrics.kafka_lag_records.labels(client=client).set(sum(lags))
        for event, name in _COUNTED.items():
            self._count(client, event, sum(_number(broker, name) for broker in _values(report, "brokers")))
        if "cgrp" in report:
            self._count(client, "rebalances", _at(report, "cgrp", "rebalance_cnt"))

    def _count(self, client: str, event: str, total: int) -> None:
        total = max(0, total)
        before = self._before.get((client, event), 0)
        self._before[client, event] = total
        more = total - before if total >= before else total
        # With 0 too: a series that begins with its first incident hides it from whoever asks for an increase.
        self._metrics.kafka_client_events.labels(client=client, event=event).inc(more)


def _values(value: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    found = value.get(name)
    return (each for each in found.values() if isinstance(each, dict)) if isinstance(found, dict) else iter(())


def _number(value: Mapping[str, Any], name: str, otherwise: int = 0) -> int:
    found = value.get(name, otherwise)
    return found if isinstance(found, int) else otherwise


def _at(value: Mapping[str, Any], name: str, inner: str) -> int:
    found = value.get(name)
    return _number(found, inner) if isinstance(found, dict) else 0
