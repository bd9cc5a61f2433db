"""Spans are posted where the operator says, nothing is loaded where he says nothing, and no end is held up by them."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from common.errors import BadInput
from common.observability.spans import CLOSE_WITHIN_S, Kind, endpoint_of, exporting
from tests.observability.collector import Collector, running_collector
from tests.observability.traces import trace


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as server:
        yield server


def test_spans_reach_the_collector_before_the_process_ends(collector: Collector) -> None:
    spans = exporting(f"{collector.url}/v1/traces", "signer", 2)
    assert spans is not None
    parent = trace(1)
    span = spans.begin("round", Kind.INTERNAL, parent, {"signer_flow.sessions": 3})
    assert span.context.trace_id == parent.trace_id
    span.end("quorum-lost", items=2)
    spans.begin("quiet", Kind.INTERNAL, trace(2, sampled=False)).end()
    spans.close()
    ((path, body),) = collector.posted
    assert path == "/v1/traces"
    for shown in (
        b"signer-flow-signer",
        b"round",
        bytes.fromhex(parent.trace_id),
        b"quorum-lost",
        b"signer_flow.items",
    ):
        assert shown in body
    assert b"quiet" not in body, "the caller did not want this one"


def test_a_collector_that_does_not_answer_holds_up_no_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        spans = exporting(f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces", "signer", 1)
        assert spans is not None
        spans.begin("round", Kind.INTERNAL, None).end()
        began = time.monotonic()
        spans.close()
        assert time.monotonic() - began < CLOSE_WITHIN_S + 5


@pytest.mark.parametrize(
    ("given", "environment", "wanted"),
    [
        (None, {}, None),
        ("", {}, None),
        ("http://c:4318", {}, "http://c:4318/v1/traces"),
        ("http://c:4318/", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://d"}, "http://c:4318/v1/traces"),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://d:1/x"}, "https://d:1/x/v1/traces"),
        (
            None,
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://d", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://e/t"},
            "http://e/t",
        ),
        ("http://c", {"OTEL_SDK_DISABLED": "True"}, None),
    ],
)
def test_our_setting_goes_before_the_standard_variables(
    given: str | None, environment: dict[str, str], wanted: str | None
) -> None:
    assert endpoint_of(given, environment) == wanted


@pytest.mark.parametrize(
    "wrong", ["collector:4318", "ftp://c", "http://", "http://c:0", "http://c:99999", "http://[", "x"]
)
def test_an_endpoint_that_is_no_url_is_refused_by_the_name_of_its_variable(wrong: str) -> None:
    with pytest.raises(BadInput, match="not a URL such as"):
        endpoint_of(wrong, {})
    with pytest.raises(BadInput, match="OTEL_EXPORTER_OTLP_ENDPOINT: not a URL"):
        endpoint_of(None, {"OTEL_EXPORTER_OTLP_ENDPOINT": wrong})


@pytest.mark.parametrize("module", ["rest_api.server", "signer_service.app"])
def test_a_process_that_traces_nothing_does_not_load_the_sdk(module: str) -> None:
    code = f"import sys, {module}; print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
