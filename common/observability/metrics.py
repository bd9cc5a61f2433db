"""The values of the metric table, in a registry of their own.

One ``Metrics`` belongs to one process and is handed to whoever counts; there is no global registry, and nothing
happens at import.
"""

from typing import Generic, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from common.observability.metric_table import OTHER, PHASES, SPECS, Label, MetricSpec

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

M = TypeVar("M", Counter, Gauge, Histogram)


class Family(Generic[M]):
    """A metric with labels. ``labels`` is cheap enough for the hot path: one dictionary look-up once a child exists."""

    __slots__ = ("_children", "_labels", "_metric", "_names", "_seen")

    def __init__(self, metric: M, labels: tuple[Label, ...]) -> None:
        self._metric: M = metric
        self._labels = labels
        self._names = frozenset(label.name for label in labels)
        self._seen: tuple[set[str], ...] = tuple(set() for _ in labels)
        self._children: dict[tuple[str | int, ...], M] = {}

    def labels(self, **given: str | int) -> M:
        """Return the counter, gauge or histogram of these label values, each bounded as the table says.

        Raises:
            ValueError: other label names than the table's.
        """
        try:
            values = tuple(given[label.name] for label in self._labels)
        except KeyError:
            values = ()
        if len(values) != len(given):
            raise ValueError(f"this metric has the labels {sorted(self._names)}")
        child = self._children.get(values)
        if child is None:
            bounded = tuple(map(self._bound, range(len(values)), values))
            child = self._metric.labels(*bounded)
            if all(str(value) == kept for value, kept in zip(values, bounded, strict=True)):
                # Only kept values are cached: the cache must not grow by names that are counted as OTHER.
                self._children[values] = child
        return child

    def _bound(self, place: int, value: str | int) -> str:
        label, text = self._labels[place], str(value)
        if label.values is not None:
            return text if text in label.values else OTHER
        seen = self._seen[place]
        if text in seen:
            return text
        if len(seen) >= label.most:
            return OTHER
        seen.add(text)
        return text


class Metrics:
    """The values of one process. Attributes are named as the table's rows, less prefix, unit and ``_total``.

    Those with labels are used as ``metrics.answers.labels(kind="late").inc()``, those without as
    ``metrics.pending_items.set(3)``. Safe to use from several threads.
    """

    def __init__(self) -> None:
        # The library's start-time series (``_created``) double what a scrape carries and answer no question here.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        self.http_requests = self._counters("http_requests_total")
        self.http_request_duration = self._histograms("http_request_duration_seconds")
        self.pending_items = self._gauge("pending_items")
        self.record_items = self._histogram("record_items")
        self.resends = self._counters("resends_total")
        self.answers = self._counters("answers_total")
        self.presence_age = self._gauges("presence_age_seconds")

        self.refusals = self._counters("refusals_total")
        self.signatures = self._counters("signatures_total")
        self.stage_duration = self._histograms("stage_duration_seconds")
        self.work_queue_items = self._gauge("work_queue_items")
        self.nonce_commitments = self._gauges("nonce_commitments")
        self.shares = self._counter("shares_total")
        self.declined = self._counters("declined_total")
        self.blame = self._counters("blame_total")

        self.key_epoch = self._gauges("key_epoch")
        self.quorum_margin = self._gauges("quorum_margin_seats")
        self.ceremony_phase = self._gauges("ceremony_phase")
        self.ceremony_failures = self._counters("ceremony_failures_total")
        self.unerased_seats = self._gauges("unerased_seats")
        self.alarm = self._gauges("alarm")

        self.dead_letters = self._counters("dead_letters_total")
        self.kafka_delivery_failures = self._counters("kafka_delivery_failures_total")
        self.answers_undeliverable = self._counter("answers_undeliverable_total")
        self.kafka_up = self._gauge("kafka_up")
        self.kafka_round_trip = self._gauges("kafka_round_trip_seconds")
        self.kafka_throttle = self._gauges("kafka_throttle_seconds")
        self.kafka_waiting_requests = self._gauges("kafka_waiting_requests")
        self.kafka_queued_records = self._gauges("kafka_queued_records")
        self.kafka_queued_bytes = self._gauges("kafka_queued_bytes")
        self.kafka_lag_records = self._gauges("kafka_lag_records")
        self.kafka_client_events = self._counters("kafka_client_events_total")
        self.paused_partitions = self._gauge("paused_partitions")
        self.clock_skew = self._gauge("clock_skew_seconds")

        self.event_loop_lag = self._histogram("event_loop_lag_seconds")

    def set_ceremony_phase(self, key_id: str, phase: str) -> None:
        """Say that ``key_id``'s ceremony is in ``phase`` (``idle`` for none), and in no other."""
        for name in PHASES:
            self.ceremony_phase.labels(key_id=key_id, phase=name).set(1 if name == phase else 0)

    def render(self) -> bytes:
        """Return all values in Prometheus' text format; its media type is ``CONTENT_TYPE``."""
        return generate_latest(self.registry)

    def _counter(self, row: str) -> Counter:
        spec = SPECS[row]
        return Counter(spec.name, spec.help, _names(spec), registry=self.registry)

    def _counters(self, row: str) -> Family[Counter]:
        return Family(self._counter(row), SPECS[row].labels)

    def _gauge(self, row: str) -> Gauge:
        spec = SPECS[row]
        return Gauge(spec.name, spec.help, _names(spec), registry=self.registry)

    def _gauges(self, row: str) -> Family[Gauge]:
        return Family(self._gauge(row), SPECS[row].labels)

    def _histogram(self, row: str) -> Histogram:
        spec = SPECS[row]
        return Histogram(spec.name, spec.help, _names(spec), registry=self.registry, buckets=spec.buckets)

    def _histograms(self, row: str) -> Family[Histogram]:
        return Family(self._histogram(row), SPECS[row].labels)


def _names(spec: MetricSpec) -> tuple[str, ...]:
    return tuple(label.name for label in spec.labels)
