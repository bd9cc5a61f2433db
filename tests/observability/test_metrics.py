"""The metric table follows Prometheus' conventions, and no caller can grow it."""

import re

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from common.observability.metric_table import OTHER, PREFIX, SPECS, Kind
from common.observability.metrics import Family, Metrics

UNITS = ("_seconds", "_bytes", "_items", "_seats", "_partitions", "_commitments", "_records", "_requests")
UNITLESS_GAUGES = {"key_epoch", "ceremony_phase", "alarm", "kafka_up"}


@pytest.mark.parametrize("row", SPECS)
def test_a_metric_is_named_and_described_by_the_conventions(row: str) -> None:
    spec = SPECS[row]
    assert spec.name == PREFIX + row
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", spec.name)
    assert spec.name.endswith("_total") == (spec.kind is Kind.COUNTER)
    assert spec.kind is Kind.COUNTER or row in UNITLESS_GAUGES or row.endswith(UNITS)
    assert spec.help.endswith(".")
    assert bool(spec.buckets) == (spec.kind is Kind.HISTOGRAM)
    assert list(spec.buckets) == sorted(set(spec.buckets))
    assert all(re.fullmatch(r"[a-z_]+", label.name) for label in spec.labels)
    assert not {label.name for label in spec.labels} & {"le", "quantile", "job", "instance"}


def test_the_table_and_the_registry_hold_the_same_metrics() -> None:
    metrics = Metrics()
    for value in vars(metrics).values():
        if isinstance(value, Family):
            value.labels(**{label.name: "1" for label in value._labels})
    found = {
        family.name: (family.type, frozenset(family.samples[0].labels) - {"le"})
        for family in text_string_to_metric_families(metrics.render().decode())
        if family.name.startswith(PREFIX)
    }
    expected = {
        spec.name.removesuffix("_total"): (str(spec.kind), frozenset(label.name for label in spec.labels))
        for spec in SPECS.values()
    }
    assert found == expected


def test_an_open_label_holds_a_bounded_number_of_values() -> None:
    metrics = Metrics()
    for number in range(1_000):
        metrics.refusals.labels(code=f"made-up-{number}").inc()
    series = [
        sample
        for family in text_string_to_metric_families(metrics.render().decode())
        if family.name == "signer_flow_refusals"
        for sample in family.samples
    ]
    most = SPECS["refusals_total"].labels[0].most
    assert len(series) == most + 1
    assert sum(sample.value for sample in series) == 1_000
    assert next(sample.value for sample in series if sample.labels["code"] == OTHER) == 1_000 - most
    assert len(metrics.refusals._children) == most


def test_a_closed_label_counts_unknown_values_as_other() -> None:
    metrics = Metrics()
    metrics.answers.labels(kind="late").inc()
    metrics.answers.labels(kind="invented").inc()
    text = metrics.render().decode()
    assert 'signer_flow_answers_total{kind="late"} 1.0' in text
    assert 'signer_flow_answers_total{kind="other"} 1.0' in text
    assert "invented" not in text


def test_wrong_label_names_are_refused() -> None:
    metrics = Metrics()
    with pytest.raises(ValueError, match="has the labels"):
        metrics.answers.labels(reason="late")
    with pytest.raises(ValueError, match="has the labels"):
        metrics.answers.labels(kind="late", seat=1)


def test_two_processes_in_one_do_not_share_values_and_nothing_is_global() -> None:
    one, other = Metrics(), Metrics()
    one.pending_items.set(7)
    assert b"signer_flow_pending_items 7.0" in one.render()
    assert b"signer_flow_pending_items 0.0" in other.render()
    assert not [name for name in REGISTRY._names_to_collectors if name.startswith(PREFIX)]


def test_a_ceremony_is_in_exactly_one_phase() -> None:
    metrics = Metrics()
    metrics.set_ceremony_phase("default", "deal")
    metrics.set_ceremony_phase("default", "verdict")
    rows = [line for line in metrics.render().decode().splitlines() if line.startswith("signer_flow_ceremony_phase{")]
    assert [line for line in rows if line.endswith(" 1.0")] == [
        'signer_flow_ceremony_phase{key_id="default",phase="verdict"} 1.0'
    ]
