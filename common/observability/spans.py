"""Spans for whoever traces: OpenTelemetry's SDK behind one door, loaded only when an endpoint is set.

Where no endpoint is set there is no ``Spans`` at all (``None`` is handed around), so the hot path makes no span object
and pays for none of the SDK's memory; a ``traceparent`` that a caller gave still travels (``tracing``). Spans say which
parts a request went through and how long it took. They never hold a message, a signature share or an error's text.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from common.errors import BadInput
from common.observability.tracing import TraceContext

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

Attribute = str | int | float | bool

CLOSE_WITHIN_S: Final = 2.0
"""A collector that does not answer must not hold up the end of a process."""
EXPORT_TIMEOUT_S: Final = 5.0
_TRACES_PATH: Final = "/v1/traces"


class Kind(Enum):
    """What a span is in OpenTelemetry's model. SERVER spans are the web framework's own."""

    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"


class Span:
    """A span that has begun. ``context`` is what its children and the wire are told; ``end`` it exactly once."""

    __slots__ = ("_failed", "_span", "context")

    def __init__(self, span: Any, failed: Any) -> None:
        self._span = span
        self._failed = failed
        found = span.get_span_context()
        self.context = TraceContext(f"{found.trace_id:032x}", f"{found.span_id:016x}", found.trace_flags.sampled)

    def end(self, error: str | None = None, at_ns: int | None = None, **attributes: Attribute) -> None:
        """End it: now, or at that Unix time.

        Args:
            error: A stable code of ours, if it failed; never an exception's text.
            at_ns: Unix nanoseconds.
            attributes: Public values, prefixed with ``signer_flow.``.
        """
        for name, value in attributes.items():
            self._span.set_attribute(f"signer_flow.{name}", value)
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(self._failed)
        self._span.end(at_ns)


class Spans:
    """Begins the spans of one process and hands them to ``processor``. Made by ``exporting``, or by a test."""

    def __init__(self, service: str, index: int, processor: "SpanProcessor") -> None:
        from opentelemetry import trace  # noqa: PLC0415 - only where spans are wanted
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

        ours = Resource({"service.name": f"signer-flow-{service}", "service.instance.id": str(index)})
        # What the operator says in OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES goes before our own names.
        self._provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("signer_flow")
        self._trace = trace
        self._kinds = {kind: trace.SpanKind[kind.value] for kind in Kind}
        self._failed = trace.Status(trace.StatusCode.ERROR)

    @property
    def provider(self) -> "TracerProvider":
        """For the web framework, which makes the spans of requests itself."""
        return self._provider

    def begin(
        self,
        name: str,
        kind: Kind,
        parent: TraceContext | None,
        attributes: Mapping[str, Attribute] | None = None,
        *,
        began_ns: int | None = None,
        links: Sequence[TraceContext] = (),
    ) -> Span:
        """Begin a span: now, or at that Unix time in nanoseconds.

        Args:
            name: Of few different values: an operation and what it works on, not an id.
            kind: As OpenTelemetry has it.
            parent: None begins a new trace.
            attributes: Public values; names as the semantic conventions have them, else prefixed ``signer_flow.``.
            began_ns: When it began.
            links: Spans of other traces that it belongs to.
        """
        trace = self._trace
        span = self._tracer.start_span(
            name,
            context=trace.set_span_in_context(trace.INVALID_SPAN) if parent is None else self._context(parent),
            kind=self._kinds[kind],
            attributes=attributes,
            links=[trace.Link(self._remote(each)) for each in links],
            start_time=began_ns,
        )
        return Span(span, self._failed)

    def current(self) -> TraceContext | None:
        """The web framework's span of the request that this task serves, if there is one."""
        found = self._trace.get_current_span().get_span_context()
        if not found.is_valid:
            return None
        return TraceContext(f"{found.trace_id:032x}", f"{found.span_id:016x}", found.trace_flags.sampled)

    def close(self) -> None:
        """Export what is left and stop. Blocks, at most ``CLOSE_WITHIN_S``: call it from a thread."""
        # The SDK would wait half a minute for a collector that is away.
        last = threading.Thread(target=self._provider.shutdown, name="spans-close", daemon=True)
        last.start()
        last.join(CLOSE_WITHIN_S)

    def _remote(self, context: TraceContext) -> Any:
        flags = self._trace.TraceFlags.SAMPLED if context.sampled else self._trace.TraceFlags.DEFAULT
        return self._trace.SpanContext(
            int(context.trace_id, 16),
            int(context.span_id, 16),
            is_remote=True,
            trace_flags=self._trace.TraceFlags(flags),
        )

    def _context(self, parent: TraceContext) -> "Context":
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(self._remote(parent)))


def endpoint_of(given: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the URL that spans are posted to, or None: nobody traces.

    ``given`` is our own setting, the collector's base URL; else OpenTelemetry's own variables count, the one for traces
    first (a full URL), then the one for all signals (a base URL, to which ``/v1/traces`` is added). Their
    ``OTEL_SDK_DISABLED=true`` turns all of it off.

    Raises:
        BadInput: ``otlp-endpoint``: not a URL of http or https. Its field is None if a standard variable is wrong.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    base = given or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    whole = "" if given else environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    url = whole or (base.rstrip("/") + _TRACES_PATH if base else "")
    if not url:
        return None
    try:
        parts = urlsplit(url)
        ok = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        ok = False
    if not ok:
        name = "" if given else f"OTEL_EXPORTER_OTLP_{'TRACES_' if whole else ''}ENDPOINT: "
        field = "otlp_endpoint" if given else None
        raise BadInput("otlp-endpoint", f"{name}not a URL such as http://collector:4318", field)
    return url


def exporting(endpoint: str | None, service: str, index: int) -> Spans | None:
    """Return spans that are posted to ``endpoint`` (OTLP over HTTP, in batches, by a thread of their own), or None.

    The standard variables for headers, certificates, compression, sampling and batch sizes hold
    (``OTEL_EXPORTER_OTLP_*``, ``OTEL_TRACES_SAMPLER``, ``OTEL_BSP_*``). By default a caller's decision to sample is
    followed, and without one everything is.
    """
    if endpoint is None:
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    return Spans(service, index, BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S)))


def now_ns() -> int:
    """Unix nanoseconds, for spans that begin before it is known that they are wanted."""
    return time.time_ns()
