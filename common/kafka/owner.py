"""One Consumer, one thread: the only thread that may touch it.

In confluent-kafka 2.16 a call on a Consumer from another thread starves while the owner polls, or is refused. So each
Consumer lives and dies in its owner thread; others leave commands, which it does between two polls. The rule is
enforced here: ``Owner.consumer`` raises in any other thread.

Records cross to the event loop once per batch, and never run ahead of it: with ``MAX_BATCHES`` undelivered the
thread waits (what it has not fetched is safe at the broker; a heap full of it would not be).
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, KafkaException, Message

from common.errors import Bug, Unavailable
from common.kafka.options import Options
from common.kafka.port import Deliver, Headers, Record
from common.kafka.state import Witness

POLL_S = 0.1
BATCH = 500
MAX_BATCHES = 4
NO_BROKER_CLOSE_S = 1.2
"""Longer than the longest single question to a broker."""

Answer = TypeVar("Answer")
_RawHeaders = list[tuple[str, str | bytes | None]]

_logger = logging.getLogger(__name__)

TRANSIENT = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError._WAIT_CACHE,
}
"""Errors that pass by themselves: a topic that was made a moment ago, a broker that is starting or moving."""

DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "cluster",
}
"""The broker knows us, and has no rule that allows it: to what kind of thing."""

TOPIC_MISSING = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}


class Stopped(Exception):
    """The thread was told to end while it was still beginning."""


class _Fatal(Exception):
    """The client says that it cannot go on: no bug of ours."""


class Again(Exception):
    """The client cannot go on, and another one in its place can."""


class Owner:
    """Base of the two consumers: thread, command queue, batches, errors, end."""

    def __init__(self, witness: Witness, config: Options, deliver: Deliver, close_s: float) -> None:
        self.witness = witness
        self.connection = witness.connection
        self._config = config
        self._deliver = deliver
        self._close_s = close_s
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._room = threading.Semaphore(MAX_BATCHES)
        self._stop = threading.Event()
        self._ready: asyncio.Future[None] = self.connection.loop.create_future()
        # Whoever waited may have been cancelled: an exception that nobody fetches is no line in the log.
        self._ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        self._ended = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._owner: int | None = None
        self._client: Consumer | None = None
        self._closed = False
        self._giving_up = False  # the owner thread's own

    # For the event loop.

    async def start(self) -> None:
        if self._thread is not None:
            raise Bug("a consumer is started once")
        self._thread = threading.Thread(target=self._run, name=self.witness.name, daemon=True)
        self._thread.start()
        try:
            await asyncio.shield(self._ready)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        if self._thread is None or self._ended.is_set():
            return
        self._stop.set()
        reachable = self.connection.up()
        bound_s = self._close_s if reachable else min(self._close_s, NO_BROKER_CLOSE_S)
        try:
            await asyncio.wait_for(self._ended.wait(), bound_s)
        except TimeoutError:
            self._closed = True  # what it still fetches is delivered to nobody
            # Without a broker that is how it is: librdkafka waits for an answer that cannot come, and the thread is
            # left to the end of the process.
            _logger.log(
                logging.WARNING if reachable else logging.DEBUG, "%s did not end in %s s", self.witness.name, bound_s
            )
            return
        self._thread.join(1.0)

    def command(self, action: Callable[[], None]) -> None:
        """Have the owner thread do something, after its current poll (at most 0.1 s) and in the order given."""
        self._commands.put(action)

    async def ask(self, question: Callable[[], Answer], timeout_s: float) -> Answer:
        """Have the owner thread answer something; its exceptions come here.

        Raises:
            Unavailable: ``broker-unreachable`` after ``timeout_s``, or when the consumer is not running.
        """
        if self._thread is None or self._stop.is_set() or self._ended.is_set():
            raise Unavailable("broker-unreachable", "the consumer is not running")
        answer: asyncio.Future[Answer] = self.connection.loop.create_future()

        def settle(value: Answer | None, error: Exception | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(value)  # type: ignore[arg-type]

        def do() -> None:
            try:
                value = question()
            except Exception as error:  # noqa: BLE001 - it is raised again, where it was asked
                self.connection.post(settle, None, error)
            else:
                self.connection.post(settle, value, None)

        self.command(do)
        try:
            return await asyncio.wait_for(answer, timeout_s)
        except TimeoutError as late:
            raise Unavailable("broker-unreachable", f"no answer within {timeout_s} s") from late

    # For the owner thread.

    @property
    def consumer(self) -> Consumer:
        """The Consumer, in its owner thread.

        Raises:
            Bug: in any other thread.
        """
        if threading.get_ident() != self._owner or self._client is None:
            raise Bug(f"{self.witness.name}: a Consumer belongs to its owner thread")
        return self._client

    def opening(self) -> None:
        """Assign or subscribe. May take its time, watching ``stopping``; what it raises comes out of ``start()``."""
        raise Bug("a consumer has to say what it reads")

    def turn(self) -> None:
        """Once per poll: what has gathered since."""

    def batch_begins(self) -> None:
        """Its first record was fetched; more of them may be, before they are delivered together."""

    def ours(self, records: list[Record]) -> list[Record]:
        """The records of a batch that may still be delivered."""
        return records

    def failed(self, message: Message, error: KafkaError) -> None:
        """An error came in place of a record."""
        if (kind := DENIED.get(error.code())) is not None:
            name = message.topic() if kind == "topic" else self._config["group.id"]
            self.connection.trouble.denied(f"{kind} {name}")
            return
        self.connection.trouble.log(logging.WARNING, "%s: %s: %s", self.witness.name, error.name(), error.str())

    def close_client(self) -> None:
        """End the Consumer in order. Left out, it is only dropped: nobody is told."""
        self.consumer.close()

    def replaceable(self, error: KafkaError) -> bool:
        """Whether a new client may take the place of one that has met this fatal error."""
        return False

    def give_up_client(self) -> None:
        """Have a new client take the place of this one, at the end of this poll."""
        self._giving_up = True

    def replaced(self) -> None:
        """What the client that was given up held is gone."""

    def stopping(self) -> bool:
        """Whether ``close()`` was called."""
        return self._stop.is_set()

    def patiently(self, question: Callable[[], Answer], bound_s: float, passing: set[int]) -> Answer:
        """Ask until the answer is not one of the passing errors.

        Raises:
            KafkaException: the last passing error when the bound is over, or any other at once.
            Stopped: ``close()`` was called meanwhile.
        """
        end = time.monotonic() + bound_s
        while True:
            if self.stopping():
                raise Stopped
            self.witness.beat()
            try:
                answer = question()
            except KafkaException as error:
                if error.args[0].code() not in passing or time.monotonic() > end:
                    raise
                # Not a bare pause: errors (wrong credentials, say) and log lines are only told while polling.
                self.consumer.poll(POLL_S)
            else:
                self.witness.seen_up()
                return answer

    def _run(self) -> None:
        self._owner = threading.get_ident()
        in_order = False
        try:
            self._client = self._new_client()
            try:
                self.opening()
            except Exception as error:  # noqa: BLE001 - it is raised again, by start()
                self.connection.post(self._opened, error)
                in_order = True
            else:
                self.connection.post(self._opened, None)
                self._turns()
                self._do_commands()
                self.turn()
                in_order = True
            self.close_client()
        except _Fatal as fatal:
            self.witness.fatal(str(fatal))
        except Exception as bug:  # a dead thread that says nothing would be a consumer that is silent for ever
            _logger.exception("%s ended", self.witness.name)
            self.witness.fatal(repr(bug))
        finally:
            # The last reference ends librdkafka's threads: here, where it may take its time.
            self._client = None
            self.connection.post(self._finished, in_order)

    def _new_client(self) -> Consumer:
        return Consumer(
            self._config | {"error_cb": self._on_error, "stats_cb": self.witness.statistics},
            logger=self.connection.trouble,
        )

    def _turns(self) -> None:
        while True:
            try:
                self._loop()
            except Again:
                self.replaced()
                # Only dropped: in order, it would ask a broker about what it no longer has.
                self._client = None
                self._client = self._new_client()
                self.opening()
            else:
                return

    def _loop(self) -> None:
        while not self.stopping():
            self.witness.beat()
            self._do_commands()
            self.turn()
            first = self.consumer.poll(POLL_S)
            if self._giving_up:  # with what was just fetched: it is fetched again
                self._giving_up = False
                raise Again
            if first is None:
                continue
            self.batch_begins()
            batch = [first, *self.consumer.consume(BATCH, 0)]
            records = []
            for message in batch:
                error = message.error()
                if error is None:
                    records.append(_record(message))
                elif error.fatal() or error.code() == KafkaError._FATAL:  # a fenced member shows only as the code
                    if self._may_go_on(error):
                        self._giving_up = False
                        raise Again
                    raise _Fatal(error.str())
                else:
                    self.failed(message, error)
            if records:
                self.witness.seen_up()
            records = self.ours(records)
            if records and not self._hand_over(records):
                return

    def _hand_over(self, records: Sequence[Record]) -> bool:
        while not self._room.acquire(timeout=POLL_S):
            self.witness.beat()
            if self.stopping():
                return False
        return self.connection.post(self._receive, records)

    def _do_commands(self) -> None:
        for _ in range(self._commands.qsize()):
            self._commands.get()()

    def _may_go_on(self, error: KafkaError) -> bool:
        # Asked once of each end: one may be told twice, and the first answer counts.
        return self._giving_up or self.replaceable(error)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() and self._may_go_on(error):
            self.give_up_client()
        elif error.fatal():
            self.witness.fatal(f"{error.name()}: {error.str()}")
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.witness.seen_down()
        else:
            self.witness.failed(error.name(), error.str())

    # Back on the event loop.

    def _receive(self, records: Sequence[Record]) -> None:
        try:
            if not self._closed:
                self._deliver(records)
        except Exception as bug:  # the process must end rather than go on with records nobody has seen
            _logger.exception("deliver raised")
            self.witness.fatal(f"deliver raised {bug!r}")
        finally:
            self._room.release()

    def _opened(self, error: Exception | None) -> None:
        if self._ready.done():
            return
        if error is None:
            self._ready.set_result(None)
        elif isinstance(error, Stopped):
            self._ready.set_exception(Unavailable("broker-unreachable", "closed while it was starting"))
        else:
            self._ready.set_exception(error)

    def _finished(self, in_order: bool) -> None:
        self._closed = True
        if not self._ready.done():
            self._ready.set_exception(Unavailable("broker-unreachable", "the consumer could not be made"))
        self._ended.set()
        if in_order:
            self.witness.closed()


def _record(message: Message) -> Record:
    kind, timestamp = message.timestamp()
    try:
        headers: Headers = tuple((name, _bytes(value)) for name, value in cast("_RawHeaders", message.headers() or []))
    except (UnicodeDecodeError, SystemError, ValueError):
        # A header name that is no text: whoever wrote it gets a record without headers, which nothing can route.
        headers = ()
    return Record(
        topic=message.topic() or "",
        partition=-1 if (partition := message.partition()) is None else partition,
        offset=-1 if (offset := message.offset()) is None else offset,
        timestamp_ms=timestamp if kind == TIMESTAMP_LOG_APPEND_TIME else None,
        key=message.key(),
        value=message.value() or b"",
        headers=headers,
    )


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""
