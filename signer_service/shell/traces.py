"""Which traces the requests in our hands belong to, kept beside the machines, which know nothing of it.

A caller's trace goes through a replica like this; each line is a span, the child of the one above it::

    send signer.v1                       the API pod
      process signer.v1                  the coordinator: from its turn until the broker has the answer
        round                            one attempt: from the package that left until the request was answered
          process signer.v1.peer2        a participant: from the package that came until its shares are on their way
        send signer.v1.resp0             the answer
          process signer.v1.resp0        the API pod

A package works for many requests at once, and so does a participant's one step over it: its spans in the traces of
these requests have the same times, and say among how many sessions they are shared. Without an exporter there are no
spans, and a caller's own context is handed on to whoever takes our records.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from common.ids import RequestId
from common.kafka.port import Headers, Record
from common.observability import tracing
from common.observability.spans import Attribute, Kind, Span, Spans, now_ns
from common.observability.tracing import TraceContext
from common.wire.messages import MsgToSign, Outcome, Refused, SignGroup, SignPackage

Place: TypeAlias = tuple[int, int]
"""Partition and offset of a request record."""
Done: TypeAlias = Callable[[str | None], None]

DROPPED: Final = "dropped"
"""Why a span ended whose request is another replica's now."""


def nothing(_: str | None) -> None:
    """The ``Done`` of an answer in no span."""


@dataclass(slots=True, eq=False)
class _Traced:
    """One request record of which at least one item is in a trace. Where spans are made, keys are the traces' given
    contexts."""

    raw: bytes
    contexts: list[TraceContext | None]
    positions: dict[RequestId, int]
    spans: dict[TraceContext, Span] = field(default_factory=dict)
    open_items: dict[TraceContext, int] = field(default_factory=dict)
    rounds: dict[int, dict[TraceContext, Span]] = field(default_factory=dict)
    """By the first session of the group that went out."""

    def given(self, positions: Iterable[int]) -> Iterator[TraceContext]:
        """Contexts of these items; one for each that has any."""
        for position in positions:
            context = self.contexts[position]
            if context is not None:
                yield context

    def end_rounds(self, context: TraceContext) -> None:
        """Whatever was under way for this trace is over."""
        for spans in self.rounds.values():
            span = spans.pop(context, None)
            if span is not None:
                span.end()

    def end(self, error: str) -> None:
        """Nobody here works on it any more."""
        for context in list(self.spans):
            self.end_rounds(context)
            self.spans.pop(context).end(error)


class Traces:
    """The traces of one replica. ``spans`` is None where nothing is exported."""

    def __init__(self, spans: Spans | None = None) -> None:
        self._spans = spans
        self._by_place: dict[Place, _Traced] = {}
        self._by_raw: dict[bytes, _Traced] = {}

    @property
    def open_records(self) -> int:
        """Records in a trace that are not finished."""
        return len(self._by_place)

    # --- the coordinator

    def arrived(self, record: Record, request: MsgToSign, waited_ms: int) -> None:
        """The coordinator is about to be handed this record, which has waited so long here."""
        if record.header(tracing.HEADER) is None:
            return
        contexts = tracing.read_item_headers(record.headers, len(request.items))
        if not any(contexts):
            return
        positions = {item.request_id: position for position, item in enumerate(request.items)}
        traced = _Traced(record.value, contexts, positions)
        for given in traced.given(range(len(contexts))):
            traced.open_items[given] = traced.open_items.get(given, 0) + 1
        if self._spans is not None:
            about = {
                **_about(record.topic, "process"),
                "messaging.kafka.offset": record.offset,
                "messaging.destination.partition.id": str(record.partition),
                "signer_flow.queued_ms": waited_ms,
            }
            for given, items in traced.open_items.items():
                traced.spans[given] = self._spans.begin(
                    f"process {record.topic}", Kind.CONSUMER, given, {**about, "signer_flow.items": items}
                )
        self._by_place[record.partition, record.offset] = traced
        self._by_raw[record.value] = traced

    def package(self, package: SignPackage) -> Headers:
        """Headers of a package that leaves for a participant now."""
        if not self._by_raw:
            return ()
        contexts: list[TraceContext] = []
        for group in package.groups:
            traced = self._by_raw.get(group.request)
            if traced is not None:
                contexts += self._of_group(traced, group)
        return tuple(tracing.set_headers(contexts))

    def _of_group(self, traced: _Traced, group: SignGroup) -> Iterable[TraceContext]:
        given = traced.given(session.item for session in group.sessions)
        if self._spans is None:
            return given
        first = group.sessions[0].session_id
        rounds = traced.rounds.get(first)
        if rounds is None:
            # The same group goes to each of its signers: one span for all of them.
            about: dict[str, Attribute] = {
                "signer_flow.key_id": group.scope.key_id,
                "signer_flow.epoch": group.epoch,
                "signer_flow.signers": ",".join(map(str, group.signers)),
                "signer_flow.sessions": len(group.sessions),
            }
            rounds = traced.rounds[first] = {
                each: self._spans.begin("round", Kind.INTERNAL, traced.spans[each].context, about)
                for each in dict.fromkeys(given)
                if each in traced.spans
            }
        return [span.context for span in rounds.values()]

    def answering(self, place: Place, topic: str, outcomes: Sequence[Outcome]) -> tuple[Headers, Done]:
        """An answer to these items leaves for ``topic`` now. Returns its headers, and what to call with its outcome:
        None, or what went wrong."""
        traced = self._by_place.get(place)
        if traced is None:
            return (), nothing
        codes: dict[TraceContext, str | None] = {}
        for outcome in outcomes:
            position = traced.positions.get(outcome.request_id)
            given = None if position is None else traced.contexts[position]
            if given is not None:
                code = outcome.result.code.value if isinstance(outcome.result, Refused) else None
                codes[given] = code or codes.get(given)
                traced.open_items[given] -= 1
        if self._spans is None:
            return tuple(tracing.set_headers(codes)), nothing
        sends: list[Span] = []
        ended: list[tuple[Span, str | None]] = []
        for given, code in codes.items():
            span = traced.spans.get(given)
            if span is None:
                continue
            sends.append(self._spans.begin(f"send {topic}", Kind.PRODUCER, span.context, _about(topic, "send")))
            if traced.open_items[given] <= 0:
                traced.end_rounds(given)
                ended.append((traced.spans.pop(given), code))

        def done(error: str | None) -> None:
            for send in sends:
                send.end(error)
            for span, code in ended:
                span.end(code or error)

        return tuple(tracing.set_headers(send.context for send in sends)), done

    def trace_of(self, place: Place, request_id: RequestId) -> str | None:
        """The id of the trace that an item is in, for a log line."""
        traced = self._by_place.get(place)
        position = None if traced is None else traced.positions.get(request_id)
        context = None if traced is None or position is None else traced.contexts[position]
        return None if context is None else context.trace_id

    def finished(self, place: Place) -> None:
        """Every item of that record has its answer."""
        self._forget(place)

    def lost(self, partitions: Iterable[int]) -> None:
        """These partitions are another replica's now: what is unfinished of them ends there."""
        gone = frozenset(partitions)
        for place in [place for place in self._by_place if place[0] in gone]:
            self._forget(place)

    def _forget(self, place: Place) -> None:
        traced = self._by_place.pop(place, None)
        if traced is not None:
            traced.end(DROPPED)
            if self._by_raw.get(traced.raw) is traced:
                del self._by_raw[traced.raw]

    # --- the participant

    def received_at(self) -> int:
        """When a package is begun to be looked at, for ``worked``; 0 where nobody will ask."""
        return 0 if self._spans is None else now_ns()

    def worked(self, record: Record, package: SignPackage, began_ns: int) -> None:
        """A package was checked, and what this seat has to say to it is on its way."""
        if self._spans is None:
            return
        parents = tracing.read_set_headers(record.headers)
        if not parents:
            return
        ended_ns = now_ns()
        about = {
            **_about(record.topic, "process"),
            "messaging.kafka.offset": record.offset,
            "signer_flow.groups": len(package.groups),
            "signer_flow.sessions": sum(len(group.sessions) for group in package.groups),
        }
        for parent in parents:
            span = self._spans.begin(f"process {record.topic}", Kind.CONSUMER, parent, about, began_ns=began_ns)
            span.end(at_ns=ended_ns)


def _about(topic: str, operation: str) -> dict[str, Attribute]:
    # OpenTelemetry's semantic conventions for messaging.
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": topic,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }
