"""Every query of the Grafana dashboard asks for metrics, labels and values that the table has, as they are meant.

A dashboard that asks for a name nobody sets shows an empty panel, which looks like peace.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.observability.metric_table import PREFIX, SPECS, Kind, MetricSpec

DASHBOARD = Path(__file__).parents[2] / "helm" / "signer-flow" / "files" / "dashboard.json"
TARGET_LABELS = frozenset({"job", "instance"})
"""Prometheus itself puts these on everything that it scrapes."""
FOREIGN = {"process_resident_memory_bytes", "process_cpu_seconds_total"}
"""Of the client library's own collector."""
SUFFIXES = ("_bucket", "_sum", "_count")

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_SELECTOR = re.compile(r"(signer_flow_[a-z_]+|process_[a-z_]+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"""\s*([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*(?:,|$)""")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
_LEGEND = re.compile(r"\{\{\s*([a-z_]+)\s*\}\}")


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def queries() -> Iterator[tuple[str, str, str]]:
    """(where, PromQL, legend)"""
    whole = dashboard()
    for panel in whole["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target["expr"], target["legendFormat"]
    for annotation in whole["annotations"]["list"]:
        yield annotation["name"], annotation["expr"], annotation["titleFormat"]
    for variable in whole["templating"]["list"]:
        if variable["type"] == "query":
            (inner,) = re.findall(r"^label_values\((.*), [a-z]+\)$", variable["query"]["query"])
            yield variable["name"], inner, ""


def spec_of(name: str) -> tuple[MetricSpec, str]:
    """The row of a series' name, and its suffix; fails if there is none."""
    for suffix in ("", *SUFFIXES):
        spec = SPECS.get(name.removeprefix(PREFIX).removesuffix(suffix)) if name.endswith(suffix) else None
        if spec is not None:
            assert bool(suffix) == (spec.kind is Kind.HISTOGRAM), f"{name}: a {spec.kind} has no such series"
            return spec, suffix
    raise AssertionError(f"no metric is called {name}")


def problems(query: str, legend: str) -> list[str]:
    """What is wrong with a query, by the table."""
    wrong: list[str] = []
    known: set[str] = set(TARGET_LABELS)
    found = list(_SELECTOR.finditer(query))
    if not found:
        wrong.append("it asks for no metric of ours")
    for selector in found:
        name, matchers = selector.group(1), selector.group(2) or ""
        if name in FOREIGN:
            continue
        try:
            spec, suffix = spec_of(name)
        except AssertionError as error:
            wrong.append(str(error))
            continue
        labels = {label.name: label for label in spec.labels}
        own = set(labels) | TARGET_LABELS | ({"le"} if suffix == "_bucket" else set())
        known |= own
        parsed = list(_MATCHER.finditer(matchers))
        if "".join(each.group(0) for each in parsed) != matchers:
            wrong.append(f"{name}: cannot read {{{matchers}}}")
        for label, operator, value in (each.groups() for each in parsed):
            if label not in own:
                wrong.append(f"{name} has no label {label}")
                continue
            values = labels[label].values if label in labels else None
            if operator in {"=", "!="} and values is not None and value not in values:
                wrong.append(f"{name}: {label} is never {value}")
        before = query[: selector.start()]
        grows = re.search(r"\b(rate|increase)\($", before) is not None
        after = query[selector.end() :]
        if grows != (spec.kind is not Kind.GAUGE):
            wrong.append(f"{name}: a {spec.kind} is asked for {'with' if grows else 'without'} rate()")
        if grows and not after.startswith("[$__"):
            wrong.append(f"{name}: rate() takes Grafana's own interval")
        if (suffix == "_bucket") != ("histogram_quantile(" in before):
            wrong.append(f"{name}: buckets are for quantiles, and quantiles for buckets")
    kept: set[str] = set()
    for grouping in _GROUPING.finditer(query):
        names = {each.strip() for each in grouping.group(1).split(",")}
        kept |= names
        wrong += [f"nothing here has the label {each}" for each in sorted(names - known)]
    aggregated = re.search(r"\b(sum|min|max|avg)\b", query) is not None
    for shown in _LEGEND.findall(legend):
        if shown not in (kept if aggregated else known):
            wrong.append(f"the legend shows {shown}, which is not left in the result")
    for opening, closing in ("()", "{}", "[]"):
        if query.count(opening) != query.count(closing):
            wrong.append(f"{opening} and {closing} do not match")
    return wrong


@pytest.mark.parametrize(("where", "query", "legend"), list(queries()), ids=[where for where, _, _ in queries()])
def test_every_query_of_the_dashboard_fits_the_metric_table(where: str, query: str, legend: str) -> None:
    assert problems(query, legend) == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("rate(signer_flow_no_such_total[$__rate_interval])", "no metric is called"),
        ("signer_flow_http_requests_total", "without rate"),
        ("rate(signer_flow_kafka_up[$__rate_interval])", "with rate"),
        ('signer_flow_kafka_up{colour="red"}', "has no label colour"),
        ('signer_flow_alarm{alarm="invented"}', "is never invented"),
        ("sum by (seat) (signer_flow_kafka_up)", "nothing here has the label seat"),
        ("rate(signer_flow_stage_duration_seconds[$__rate_interval])", "no such series"),
        ("rate(signer_flow_stage_duration_seconds_bucket[$__rate_interval])", "buckets are for quantiles"),
        ("rate(signer_flow_signatures_total[5m])", "own interval"),
        ("max(signer_flow_kafka_up", "do not match"),
        ("up", "no metric of ours"),
    ],
)
def test_a_query_that_would_show_nothing_is_found(query: str, said: str) -> None:
    assert any(said in each for each in problems(query, "")), problems(query, "")


def test_every_metric_of_the_table_is_on_the_dashboard() -> None:
    asked = {spec_of(name)[0].name for _, query, _ in queries() for name in re.findall(r"signer_flow_[a-z_]+", query)}
    assert {spec.name for spec in SPECS.values()} - asked == set()


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
