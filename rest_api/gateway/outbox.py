"""What goes out: the requests of a turn of the loop, or of a few ms, together as one signed record for a replica."""

import asyncio
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from common.errors import SignerFlowError
from common.ids import BootId, EdgeKeyId, Index, RecordId, RequestId
from common.kafka.port import Delivery, Producer
from common.observability.lines import Lines
from common.observability.metrics import Metrics
from common.pacing import Pace
from common.secret import Secret
from common.wire.messages import SignItem
from rest_api.correlation import Correlation, Resend, Step
from rest_api.gateway import records
from rest_api.gateway.room import Room
from rest_api.gateway.routing import Route, RoutingTable
from rest_api.gateway.traces import Traces

GATHER_LEAST_S: Final = 0.004
GATHER_MOST_S: Final = 0.035
GATHER_PART: Final = 1 / 2
"""What comes within this part of a usual answer's time after the last record waits for the next.

It stays together on its whole way and back, at each hop for the price of one. Where answers are fast nobody has to wait
for company; where they are slow, it is company that makes them faster."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who asks, where to, and where the answer goes."""

    topic: str
    reply_to: str
    instance_id: BootId
    edge_key_id: EdgeKeyId
    edge_key: Secret[bytes]


class Outbox:
    """Gathers with ``put`` and ``put_again``; sends at the end of the turn, or soon. On the event loop only.

    Args:
        sender: Goes into each record.
        correlation: Told of each send before it happens: no answer can be too early.
        routing: Says where to.
        producer: Sends.
        room: How much a partition may hold.
        metrics: Where things are counted.
        lines: Where things are said.
        traces: Which trace each request is in.
        apply: Takes what correlation decides when a record could not be sent.
    """

    def __init__(
        self,
        sender: Sender,
        correlation: Correlation,
        routing: RoutingTable,
        producer: Producer,
        room: Room,
        metrics: Metrics,
        lines: Lines,
        traces: Traces,
        apply: Callable[[Step], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sender = sender
        self._correlation = correlation
        self._routing = routing
        self._producer = producer
        self._room = room
        self._metrics = metrics
        self._lines = lines
        self._traces = traces
        self._apply = apply
        self._fresh: list[SignItem] = []
        self._again: list[Resend] = []
        self._pace = Pace(self._loop, self._gather_s, self._flush)

    def put(self, item: SignItem) -> None:
        """A new request."""
        self._fresh.append(item)
        self._pace.ask()

    def put_again(self, resends: Iterable[Resend]) -> None:
        """Requests that another seat must be asked for."""
        self._again.extend(resends)
        self._pace.ask()

    def retry(self) -> None:
        """Try again what found no room. To be called now and then."""
        if self._fresh:
            self._pace.ask()

    def forget(self, request_id: RequestId) -> None:
        """The request has ended."""
        self._room.give(request_id)

    def _gather_s(self) -> float:
        return min(GATHER_MOST_S, max(GATHER_LEAST_S, self._correlation.usual.mean_s * GATHER_PART))

    def _flush(self) -> None:
        fresh, self._fresh = self._fresh, []
        for chunk in records.cut(fresh):
            route = self._route(frozenset())
            if route is None:
                self._fresh.extend(chunk)
            else:
                self._send(chunk, route)
        again, self._again = self._again, []
        groups: dict[frozenset[Index], list[Resend]] = {}
        for resend in again:
            self._metrics.resends.labels(reason=resend.reason).inc()
            groups.setdefault(resend.exclude, []).append(resend)
        for exclude, resends in groups.items():
            for chunk in records.cut(resend.item for resend in resends):
                route = self._route(exclude)
                if route is None:
                    for item in chunk:
                        self._correlation.put_back(item.request_id)
                else:
                    self._send(chunk, route)

    def _route(self, exclude: frozenset[Index]) -> Route | None:
        in_flight, has_room, mute = self._correlation.in_flight, self._room.has, self._correlation.avoid - exclude
        elsewhere = self._routing.route(exclude | mute, in_flight, has_room) if mute else None
        return elsewhere or self._routing.route(exclude, in_flight, has_room)

    def _send(self, chunk: Sequence[SignItem], route: Route) -> None:
        sender = self._sender
        record_id = RecordId(new_uuid())
        items = [
            item
            for item in chunk
            if self._correlation.sent(item.request_id, record_id, route.partition, route.seat, route.boot_id)
        ]
        if not items:
            return
        value = records.seal(record_id, items, sender.reply_to, sender.instance_id, sender.edge_key_id, sender.edge_key)
        trace_headers, done = self._traces.sending(sender.topic, items)

        def on_delivery(delivery: Delivery) -> None:
            done(None if delivery.error is None else "not-confirmed")
            self._delivered(delivery)
            if delivery.unwritten:
                self._unsent(items, record_id)

        try:
            self._producer.send(
                sender.topic,
                value,
                key=record_id.encode(),
                partition=route.partition,
                headers=records.headers(record_id, items, sender.reply_to, sender.instance_id) + trace_headers,
                on_delivery=on_delivery,
            )
        except SignerFlowError as error:
            done(error.code)
            self._say_not_sent(items, error)
            self._unsent(items, record_id)
            return
        self._metrics.record_items.observe(len(items))
        self._room.take(record_id, route.partition, len(value), (item.request_id for item in items))

    def _unsent(self, items: Sequence[SignItem], record_id: RecordId) -> None:
        for item in items:
            self._apply(self._correlation.unsent(item.request_id, record_id))

    def _say_not_sent(self, items: Sequence[SignItem], error: SignerFlowError) -> None:
        ids = [item.request_id for item in items]
        self._lines.warn(
            "requests could not be sent",
            code=error.code,
            detail=error.detail,
            request_ids=ids,
            trace_ids=self._traces.of(ids),
        )

    def _delivered(self, delivery: Delivery) -> None:
        if delivery.error is not None:
            # Mostly "unknown", not "unwritten": then the deadline ends the request if no answer comes.
            self._metrics.kafka_delivery_failures.labels(topic=delivery.topic).inc()
            self._lines.warn("a record was not confirmed", topic=delivery.topic, detail=delivery.error)


def new_uuid() -> str:
    """A random UUID. Not guessable, or an answer could be made before its question."""
    return str(UUID(bytes=secrets.token_bytes(16), version=4))
