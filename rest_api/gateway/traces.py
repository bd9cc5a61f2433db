"""Which trace each request under way is in, and the spans of this pod on Kafka, if it exports any.

One span for each record that is sent and each trace it carries requests of: a request that had to be sent again shows
each attempt. The record's header names that span (or, where nothing is exported, the caller's own), so that whoever
takes the record goes on from there.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from common.ids import RequestId
from common.kafka.port import Record
from common.observability import tracing
from common.observability.spans import Attribute, Kind, Spans, now_ns
from common.observability.tracing import TraceContext
from common.wire.messages import SignItem

KafkaHeaders: TypeAlias = list[tuple[str, bytes]]
Done: TypeAlias = Callable[[str | None], None]
"""Called once with the outcome: None, or a code of what went wrong."""

_SYSTEM: Final = "kafka"


def nothing(_: str | None) -> None:
    """The ``Done`` of a record in no span."""


class Traces:
    """The traces of one pod. ``spans`` is None where nothing is exported; contexts are passed on all the same."""

    def __init__(self, spans: Spans | None) -> None:
        self.spans = spans
        self._contexts: dict[RequestId, TraceContext] = {}

    def begin(self, request_id: RequestId, context: TraceContext | None) -> None:
        """A request is under way."""
        if context is not None:
            self._contexts[request_id] = context

    def end(self, request_id: RequestId) -> None:
        """It has its outcome."""
        self._contexts.pop(request_id, None)

    def of(self, request_ids: Iterable[RequestId]) -> list[str]:
        """The ids of the traces that these are in, each once: for a log line."""
        found = (self._contexts.get(request_id) for request_id in request_ids)
        return list(dict.fromkeys(context.trace_id for context in found if context is not None))

    def sending(self, topic: str, items: Sequence[SignItem]) -> tuple[KafkaHeaders, Done]:
        """A record with these items goes to ``topic`` now. Returns its headers, and what to call with its outcome."""
        if not self._contexts:
            return [], nothing
        contexts = [self._contexts.get(item.request_id) for item in items]
        if self.spans is None:
            return tracing.item_headers(contexts), nothing
        counts = {context: contexts.count(context) for context in contexts if context is not None}
        begun = {
            parent: self.spans.begin(
                f"send {topic}", Kind.PRODUCER, parent, {**_about(topic, "send"), "signer_flow.items": count}
            )
            for parent, count in counts.items()
        }
        headers = tracing.item_headers([None if parent is None else begun[parent].context for parent in contexts])

        def done(error: str | None) -> None:
            for span in begun.values():
                span.end(error)

        return headers, done

    def received_at(self) -> int:
        """When an answer is begun to be looked at, for ``answered``; 0 where nobody will ask."""
        return 0 if self.spans is None else now_ns()

    def answered(self, record: Record, began_ns: int, error: str | None = None) -> None:
        """An answer was read, checked and given to whom it is for."""
        if self.spans is None:
            return
        for parent in tracing.read_set_headers(record.headers):
            about = {**_about(record.topic, "process"), "messaging.kafka.offset": record.offset}
            self.spans.begin(f"process {record.topic}", Kind.CONSUMER, parent, about, began_ns=began_ns).end(error)


def _about(topic: str, operation: str) -> dict[str, Attribute]:
    # OpenTelemetry's semantic conventions for messaging.
    return {
        "messaging.system": _SYSTEM,
        "messaging.destination.name": topic,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }
