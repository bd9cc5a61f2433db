"""The real producer: ``produce()`` straight from the event loop, outcomes collected by one small thread.

``produce()`` only queues, and takes some 18 µs. What costs is crossing threads, so outcomes cross once per poll,
not once per record. (librdkafka's batch call is not used: it drops headers without a word.)
"""

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as Client

from common.errors import BadInput, Bug, Unavailable
from common.kafka import options
from common.kafka.owner import DENIED
from common.kafka.port import Delivery, OnDelivery
from common.kafka.settings import KafkaSettings
from common.kafka.state import Witness
from common.kafka.trouble import not_allowed, too_old
from common.wire.topics import MAX_SENT_BYTES

CLOSE_S = 5.0
_POLL_S = 0.1

_NO_SUCH_TOPIC = {KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART}
_UNWRITTEN = {KafkaError.MSG_SIZE_TOO_LARGE}
"""The broker measures a batch before it writes any of it, and each attempt is the same batch: none was written before.
Other refusals may answer a repeated attempt, of which the first was written and its answer lost."""

_logger = logging.getLogger(__name__)


class RealProducer:
    """``port.Producer`` on confluent-kafka."""

    def __init__(self, settings: KafkaSettings, witness: Witness) -> None:
        self._settings = settings
        self._witness = witness
        self._client: Client | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._ended = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._outstanding = 0
        self._outcomes: list[tuple[OnDelivery | None, Delivery]] = []  # the poll thread's own

    def start(self) -> None:
        if self._thread is not None:
            raise Bug("a producer is started once")
        callbacks = {"error_cb": self._on_error, "stats_cb": self._witness.statistics}
        try:
            self._client = Client(options.producer(self._settings) | callbacks, logger=self._witness.connection.trouble)
        except KafkaException as refused:
            # All else in it is ours: what librdkafka does not take is in the file of security options.
            where = self._settings.told_by[1]
            raise BadInput("kafka-security-option", f"{where}: {refused.args[0].str()}", "security") from None
        self._thread = threading.Thread(target=self._run, name=self._witness.name, daemon=True)
        self._thread.start()

    def send(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        on_delivery: OnDelivery | None = None,
    ) -> None:
        client = self._client
        if client is None or self._stop.is_set():
            raise Unavailable("producer-closed", "the producer is not running")
        size = len(value) + len(key or b"") + sum(len(name) + len(text) for name, text in headers)
        if size > MAX_SENT_BYTES:
            raise BadInput("record-too-large", f"a record of {size} bytes; at most {MAX_SENT_BYTES}")
        report = self._delivered if on_delivery is None else functools.partial(self._delivered, on_delivery=on_delivery)
        try:
            client.produce(
                topic,
                value,
                key,
                -1 if partition is None else partition,
                on_delivery=report,
                headers=list(headers) if headers else None,
            )
        except BufferError as full:
            raise Unavailable("producer-full", "too many records wait for the broker", 1.0) from full
        except KafkaException as refused:
            raise self._as_ours(refused.args[0], topic) from refused
        self._outstanding += 1
        self._idle.clear()

    def outstanding(self) -> int:
        return self._outstanding

    async def flush(self, timeout_s: float) -> int:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        return self._outstanding

    async def close(self) -> None:
        if self._thread is None:
            return
        self._stop.set()
        try:
            await asyncio.wait_for(self._ended.wait(), CLOSE_S)
        except TimeoutError:
            _logger.warning("the producer's thread did not end within %s s", CLOSE_S)
            return
        self._thread.join(1.0)
        self._client = None

    # From here on: the poll thread.

    def _run(self) -> None:
        client = self._client
        if client is None:
            raise Bug("the poll thread began before its client")
        try:
            while not self._stop.is_set():
                self._witness.beat()
                try:
                    client.poll(_POLL_S)
                except KafkaException as error:  # fatal; on with it, so that whoever waits for an outcome gets one
                    self._fatal(error.args[0])
                    self._stop.wait(_POLL_S)
                self._hand_over()
            # Whoever waits for an outcome gets one: "purged" is an error like another.
            client.purge()
            end = CLOSE_S / _POLL_S / 2
            while len(client) > 0 and end > 0:
                client.poll(_POLL_S)
                end -= 1
            self._hand_over()
        except Exception as bug:  # a dead thread that says nothing would leave every sender waiting
            _logger.exception("%s ended", self._witness.name)
            self._witness.fatal(repr(bug))
        finally:
            # The last reference ends librdkafka's threads: here, where it may take its time.
            self._client = None
            del client
            self._witness.connection.post(self._finished)

    def _delivered(self, error: KafkaError | None, message: Message, on_delivery: OnDelivery | None = None) -> None:
        if error is None:
            self._witness.seen_up()
        elif error.code() in DENIED:
            self._denied(error.code(), message.topic() or "")
        outcome = Delivery(
            topic=message.topic() or "",
            partition=-1 if (partition := message.partition()) is None else partition,
            offset=-1 if (offset := message.offset()) is None else offset,
            error=None if error is None else f"{error.name()}: {error.str()}",
            unwritten=error is not None and error.code() in _UNWRITTEN,
        )
        self._outcomes.append((on_delivery, outcome))

    def _hand_over(self) -> None:
        if self._outcomes:
            self._witness.connection.post(self._report, self._outcomes)
            self._outcomes = []

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal(error)
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._witness.seen_down()
        else:
            self._witness.failed(error.name(), error.str())

    def _fatal(self, error: KafkaError) -> None:
        if error.code() in DENIED:
            # An idempotent producer is told so at its first contact (KIP-679), and never asks again.
            self._witness.fatal(f"{not_allowed('to write to any topic', self._settings)} ({error.name()})")
        elif error.code() == KafkaError._UNSUPPORTED_FEATURE:
            self._witness.fatal(f"{too_old(self._settings)} ({error.str()})")
        else:
            self._witness.fatal(f"{error.name()}: {error.str()}")

    # Back on the event loop.

    def _report(self, outcomes: list[tuple[OnDelivery | None, Delivery]]) -> None:
        self._outstanding -= len(outcomes)
        for on_delivery, outcome in outcomes:
            if on_delivery is not None:
                try:
                    on_delivery(outcome)
                except Exception as bug:  # one bad callback must not swallow the others' outcomes
                    _logger.exception("an on_delivery callback raised")
                    self._witness.fatal(f"an on_delivery callback raised {bug!r}")
        if self._outstanding == 0:
            self._idle.set()

    def _finished(self) -> None:
        self._ended.set()
        self._witness.closed()

    def _as_ours(self, error: KafkaError, topic: str) -> BadInput | Unavailable:
        detail = f"{error.name()}: {error.str()}"
        if error.fatal() or error.code() == KafkaError._FATAL:
            return Unavailable("producer-fatal", detail)
        if error.code() in _NO_SUCH_TOPIC:
            return Unavailable("topic-missing", f"{topic}: {detail}")
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return BadInput("record-too-large", detail)
        if error.code() in DENIED:
            self._denied(error.code(), topic)
            return Unavailable("not-authorized", f"{not_allowed(f'topic {topic}', self._settings)} ({error.name()})")
        return Unavailable("producer-refused", detail)

    def _denied(self, code: int, topic: str) -> None:
        self._witness.connection.trouble.denied(
            f"topic {topic}" if DENIED[code] == "topic" else "to write to any topic"
        )
