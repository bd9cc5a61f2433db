"""What cannot be used: kept in the dead-letter topic, counted, and answered where an answer can be addressed.

Anybody with Kafka credentials can write rubbish, so rubbish must be cheap: beyond a rate, letters about topics that
lose nothing by it (peer records, presence) are counted only. A record of the request topic is different: its offset
moves on only when its letter is safe, so that what a pod has sent is never lost without a trace.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from common.errors import BadInput, Unavailable
from common.ids import BootId
from common.kafka import dead_letter
from common.kafka.port import Delivery, Producer, Record
from common.observability.logging import get_logger
from common.observability.metrics import Metrics
from common.wire import codec
from common.wire.messages import MAX_ITEMS, MsgSigned, Outcome, RefusalCode, Refused
from common.wire.topics import is_reply_topic

AGAIN_S: Final = 1.0
MOST_PER_S: Final = 20

_log = get_logger(__name__)


class DeadLetters:
    """Writes the letters of one process. On the event loop only."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, producer: Producer, prefix: str, found_by: str, metrics: Metrics
    ) -> None:
        self._loop = loop
        self._producer = producer
        self._prefix = prefix
        self._found_by = found_by
        self._metrics = metrics
        self._second = 0
        self._this_second = 0
        self._next_line = 0.0

    def keep(self, record: Record, reason: str, detail: str, final: Callable[[], None]) -> None:
        """Write a letter, again and again until a broker has it; then call ``final``."""
        self._count(record, reason)

        def on_delivery(delivery: Delivery) -> None:
            if delivery.error is None:
                final()
            else:
                self._loop.call_later(AGAIN_S, send)

        def send() -> None:
            try:
                dead_letter.send(
                    self._producer, self._prefix, record, reason, detail, self._found_by, on_delivery=on_delivery
                )
            except Unavailable as error:
                if error.code != "producer-closed":
                    self._loop.call_later(AGAIN_S, send)

        send()

    def note(self, record: Record, reason: str, detail: str) -> None:
        """Write a letter if there is room for it in this second; count it in any case."""
        self._count(record, reason)
        second = int(self._loop.time())
        if second != self._second:
            self._second, self._this_second = second, 0
        self._this_second += 1
        if self._this_second > MOST_PER_S:
            return
        try:
            dead_letter.send(self._producer, self._prefix, record, reason, detail, self._found_by)
        except Unavailable:
            self._metrics.kafka_delivery_failures.labels(topic=f"{self._prefix}signer.v1.dlq").inc()

    def _count(self, record: Record, reason: str) -> None:
        self._metrics.dead_letters.labels(topic=record.topic, reason=reason).inc()
        if self._loop.time() >= self._next_line:
            # One line a second at most: whoever floods a topic must not flood the log as well.
            self._next_line = self._loop.time() + 1.0
            _log.warning("a record could not be used", topic=record.topic, offset=record.offset, reason=reason)


def error_answer(prefix: str, raw: bytes, error: BadInput) -> tuple[str, MsgSigned] | None:
    """Return topic and answer that tell the sender of an unusable MsgToSign, if its bytes say whom to tell.

    Nothing in the bytes was checked; the reply topic must at least be one, of this system.
    """
    whom = codec.addressee(raw)
    if whom is None or not whom.request_ids or not is_reply_topic(prefix, whom.reply_to):
        return None
    refused = Refused(RefusalCode.BAD_REQUEST, f"the record could not be used: {error.detail}"[:256], retryable=False)
    outcomes = tuple(Outcome(request_id, refused) for request_id in whom.request_ids[:MAX_ITEMS])
    return whom.reply_to, MsgSigned(whom.record_id, BootId(whom.instance_id), outcomes)
