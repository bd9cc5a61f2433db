"""The Gateway: registers a request, sends it to a signer, and completes its future with the one outcome.

Everything runs on the event loop. What was submitted within one turn of the loop goes out together, as one signed
record per chosen replica. A request is registered before its record is produced, so no answer can be too early; the
consumer of answers is positioned before the first request is taken, so none can be missed.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final, TypeAlias

from common import ed25519
from common.errors import Unavailable
from common.ids import BootId, Index, Instant, KeyId, RequestId
from common.kafka.port import Kafka
from common.observability.lines import Lines
from common.observability.logging import get_logger
from common.observability.metrics import Metrics
from common.observability.spans import Spans
from common.observability.tracing import TraceContext
from common.secret import Secret
from common.wire import codec, envelope, topics
from common.wire.messages import (
    Accepted,
    Mode,
    MsgSigned,
    Refused,
    ReplicaState,
    Role,
    Signed,
    SignItem,
)
from rest_api import correlation
from rest_api.correlation import Completed, Correlation, Step
from rest_api.gateway.beats import ClockWatch, Pods, RivalWatch
from rest_api.gateway.config import GatewayConfig
from rest_api.gateway.inbox import Inbox, Places
from rest_api.gateway.key_directory import KeyDirectory
from rest_api.gateway.outbox import Outbox, Sender, new_uuid
from rest_api.gateway.readers import Readers
from rest_api.gateway.room import EMBEDDED_ROOM_BYTES, Room
from rest_api.gateway.routing import RoutingTable
from rest_api.gateway.standing import Standing
from rest_api.gateway.traces import Traces

Result: TypeAlias = Signed | Accepted | Refused | correlation.End

TICK_S: Final = 0.025
TICKS_PER_SCAN: Final = 10
STALL_S: Final = 0.5
FLUSH_S: Final = 2.0
OUTAGE_GRACE_S: Final = 1.0
"""What is pending has no more than this while no broker answers: its answers cannot come."""
FAILURES_SAID: Final = 20
"""Items without a signature that get a line of their own in ten seconds; the rest are counted."""


class _View:
    """``pending.View`` for correlation: the routing table and the key directory as one."""

    def __init__(self, routing: RoutingTable, keys: KeyDirectory) -> None:
        self.live: Callable[[], AbstractSet[Index]] = routing.live
        self.suspected: Callable[[Index, BootId], bool] = routing.suspected
        self.draining: Callable[[Index], bool] = routing.draining
        self.owner: Callable[[int], tuple[Index, BootId] | None] = routing.owner
        self.dark: Callable[[int], bool] = routing.dark
        self.blocking: Callable[[KeyId], int] = keys.blocking
        self.threshold: Callable[[KeyId], int] = keys.threshold


class Gateway:
    """One pod's way to the signers. Made on the running event loop; ``start``, ``drain``, ``close`` in this order.

    Args:
        kafka: The clients' factory.
        keys: What is believed; filled from the keys topic from now on.
        config: Figures.
        edge_key: Signs our requests and beats; its public half has to be in the roster.
        metrics: Where things are counted.
        on_fatal: Told, once, that this process cannot go on.
        spans: Where spans go; None: nowhere.
    """

    def __init__(
        self,
        kafka: Kafka,
        keys: KeyDirectory,
        config: GatewayConfig,
        edge_key: Secret[bytes],
        metrics: Metrics,
        on_fatal: Callable[[str], None],
        spans: Spans | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._kafka = kafka
        self._config = config
        self._metrics = metrics
        self._on_fatal = on_fatal
        self.instance_id = BootId(new_uuid())
        self.keys = keys
        self.routing = RoutingTable(
            topics.REQUEST_PARTITIONS, self._loop.time, secrets.randbelow, config.suspect_after_s
        )
        self.pods = Pods(config.index, self.instance_id, Instant(time.time_ns() // 1_000_000), self._loop.time)
        self._sealer = envelope.Signer(Role.API, config.index, self.instance_id, edge_key)
        self._correlation = Correlation(self.instance_id, keys.verify)
        self._view = _View(self.routing, keys)

        prefix = kafka.settings.topic_prefix
        own_topic = topics.responses(prefix, config.index)
        self._reply_to = own_topic.name
        self._places = Places(
            replies=self._reply_to,
            presence=topics.presence(prefix).name,
            keys=topics.keys(prefix).name,
            prefix=prefix,
            reader=f"rest-api-{config.index}",
        )
        self._producer = kafka.producer()
        self._logger = get_logger(__name__)
        self._lines = Lines(self._logger, self._loop.time)
        self._traces = Traces(spans)
        self._outbox = Outbox(
            Sender(
                topic=topics.requests(prefix).name,
                reply_to=self._reply_to,
                instance_id=self.instance_id,
                edge_key_id=envelope.edge_key_id(ed25519.public_key(edge_key)),
                edge_key=edge_key,
            ),
            self._correlation,
            self.routing,
            self._producer,
            Room(EMBEDDED_ROOM_BYTES if kafka.settings.embedded else None),
            metrics,
            self._lines,
            self._traces,
            self._apply,
        )
        self._inbox = Inbox(
            self._places,
            keys,
            self.routing,
            self.pods,
            self._producer,
            metrics,
            self._lines,
            self._traces,
            self._answered,
            self._send_beat,
        )
        self._readers = Readers(kafka, own_topic, self._places, self._inbox, self._lines, self._loop.time)
        self.standing = Standing(
            kafka, config, self._readers, self._correlation, self.routing, keys, self.pods, metrics, self._loop.time
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._futures: dict[RequestId, asyncio.Future[Result]] = {}
        self._rivals = RivalWatch(self.pods, self._logger)
        self._clock = ClockWatch(self.pods, self._logger)
        self._closed = False

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: connects in the background, as long as it takes; ``standing`` says how far it is."""
        self._producer.start()
        for work in (self._connect(), self._tick(), self._beat_for_ever()):
            task = self._loop.create_task(work)
            task.add_done_callback(self._task_ended)
            self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._lines.error("a task of the gateway died", exc_info=error)
            self._on_fatal(f"a task of the gateway died: {type(error).__name__}")

    async def _connect(self) -> None:
        await self._readers.open()
        self._lines.info("positioned", topic=self._reply_to, instance_id=self.instance_id)
        self._send_beat()

    def drain(self, grace_s: float, last_orders_s: float = 0.0) -> None:
        """Call ourselves unready, and go away.

        Args:
            grace_s: What is pending may take so long, then it is told that we go away.
            last_orders_s: Requests of clients who do not know of it yet are taken for so long.
        """
        if self.standing.draining.is_set():
            return
        if not self._kafka.up():
            grace_s = min(grace_s, OUTAGE_GRACE_S)
        # Nothing is taken after what is pending was given up: nobody would end it.
        self.standing.drain(min(last_orders_s, grace_s))
        self._send_beat()
        self._loop.call_later(grace_s, self._abandon)

    def _abandon(self) -> None:
        self._apply(self._correlation.abandon())

    async def close(self) -> None:
        """Answer what is left, flush, and stop every client. Bounded; may be repeated."""
        if self._closed:
            return
        self._closed = True
        self.standing.draining.set()
        self._abandon()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._producer.flush(FLUSH_S if self._kafka.up() else 0)
        await asyncio.gather(self._readers.close(), self._producer.close())

    # --- requests ----------------------------------------------------------------------------------------------------

    def submit(
        self,
        request_id: RequestId,
        key_id: KeyId,
        message: bytes,
        principal: str,
        timeout_ms: int,
        *,
        trace: TraceContext | None = None,
        mode: Mode = Mode.SIGN,
    ) -> "asyncio.Future[Result]":
        """Take a request; it goes out at the end of this turn of the loop.

        Args:
            request_id: New, made by this pod.
            key_id: A key that the directory knows.
            message: At most 64 KiB, without the reserved prefix; empty for a refresh.
            principal: Who asks, for the audit.
            timeout_ms: 1 to 30,000.
            trace: What it is a part of, if anybody traces it.
            mode: SIGN, or REFRESH.

        Returns:
            A future that gets exactly one result, at the latest when the time is over. It never gets an exception.

        Raises:
            Unavailable: as ``Standing.can_take``.
        """
        self.standing.can_take(timeout_ms)
        now_ms = time.time_ns() // 1_000_000
        item = SignItem(request_id, key_id, mode, message, principal, Instant(now_ms), Instant(now_ms + timeout_ms))
        self._correlation.open(item, self._loop.time() + timeout_ms / 1000)
        future: asyncio.Future[Result] = self._loop.create_future()
        self._futures[request_id] = future
        self._traces.begin(request_id, trace)
        self._outbox.put(item)
        return future

    def pending(self) -> int:
        """Items under way."""
        return len(self._correlation)

    # --- what comes in ----------------------------------------------------------------------------------------------

    def _answered(self, answer: MsgSigned, seat: Index | None) -> None:
        step = self._correlation.answered(answer, seat, self._view)
        if seat is not None and step.counts["refused"]:
            self.routing.refused(seat, step.counts["refused"])
        self._apply(step)

    def _apply(self, step: Step) -> None:
        for kind, count in step.counts.items():
            self._metrics.answers.labels(kind=kind).inc(count)
        for completed in step.completed:
            self._finish(completed)
        if step.resend:
            self._outbox.put_again(step.resend)

    def _finish(self, completed: Completed) -> None:
        request_id, result = completed.item.request_id, completed.result
        self._outbox.forget(request_id)
        if isinstance(result, Refused):
            self._failed(completed.item, result.code.value)
        elif isinstance(result, correlation.End):
            self._failed(completed.item, result.value)
        self._traces.end(request_id)
        future = self._futures.pop(request_id)
        if not future.done():  # cancelled: the caller went away
            future.set_result(result)

    def _failed(self, item: SignItem, code: str) -> None:
        self._metrics.refusals.labels(code=code).inc()
        trace_id = next(iter(self._traces.of([item.request_id])), None)
        self._lines.warn(
            "an item got no signature" if item.mode is Mode.SIGN else "a refresh was not accepted",
            burst=FAILURES_SAID,
            request_id=item.request_id,
            trace_id=trace_id,
            key_id=item.key_id,
            principal=item.principal,
            code=code,
        )

    # --- time --------------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        turn = 0
        while True:
            await asyncio.sleep(TICK_S)
            now = self._loop.time()
            late = self.standing.turned(now) - TICK_S
            self._metrics.event_loop_lag.observe(max(0.0, late))
            if late > STALL_S:
                self.routing.forgive(late)
                self.pods.forgive(late)
            self._apply(self._correlation.expire(now))
            turn += 1
            if turn % TICKS_PER_SCAN == 0:
                self._scan()
            self._outbox.retry()

    def _scan(self) -> None:
        self.routing.decay()
        self.pods.forget()
        self._apply(self._correlation.scan(self._view))
        self.standing.queue_wait_ms = self.routing.queue_wait_ms()
        self._rivals.look()
        self._clock.look()

    async def _beat_for_ever(self) -> None:
        while True:
            self._send_beat()
            await asyncio.sleep(self._config.beat_interval_s)

    def _send_beat(self) -> None:
        if self._readers.positioned_at is None:
            return
        draining = self.standing.draining.is_set()
        state = ReplicaState.DRAINING if draining else ReplicaState.READY
        beat = self.pods.beat(state, draining, len(self._correlation), Instant(time.time_ns() // 1_000_000))
        sealed = envelope.seal(self._sealer, self._places.presence, codec.encode(beat))
        with contextlib.suppress(Unavailable):  # the next one is due soon
            self._producer.send(self._places.presence, sealed, on_delivery=self._readers.hearing.delivered)
