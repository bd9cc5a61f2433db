"""The ceremony log as it stands on a broker, from its first record to the end that it had when reading began."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from common.errors import BadInput, Unavailable
from common.kafka.port import Hooks, Kafka, OnLost, Record, Start
from signer_service.audit.facts import Logged

STALL_S: Final = 30.0
"""So long the broker may give nothing although there is more."""


async def read_log(kafka: Kafka, topic: str, take: Callable[[Logged], None]) -> None:
    """Hand every record to ``take``, in order.

    Raises:
        BadInput: ``partitions``: the topic has more than the one partition that makes it a log.
        Unavailable: ``topic-missing``, ``broker-unreachable``; ``log-stalled``: the broker gave no more; ``log-moved``:
            the topic was lost or made anew meanwhile.
    """
    queue: asyncio.Queue[Sequence[Record] | str] = asyncio.Queue()
    tail = kafka.tail(
        {topic: Start()},
        queue.put_nowait,
        on_lost=OnLost.ERROR,
        on_reset_error=lambda _, detail: queue.put_nowait(detail),
    )
    try:
        await tail.start()
        following, end = tail.begin_at_start(topic), tail.end_at_start(topic)
        while following < end:
            try:
                records = await asyncio.wait_for(queue.get(), STALL_S)
            except TimeoutError:
                raise Unavailable(
                    "log-stalled", f"{topic}: nothing came for {STALL_S:.0f} s at offset {following} of {end}"
                ) from None
            if isinstance(records, str):
                raise Unavailable("log-moved", f"{topic}: offset {following} is gone ({records}): begin again")
            for record in records:
                if record.partition != 0:
                    raise BadInput("partitions", f"{topic} has more than one partition: it is no ceremony log")
                if record.offset < end:
                    take(Logged(record.offset, record.timestamp_ms, record.value))
                following = record.offset + 1
            await asyncio.sleep(0)
    finally:
        await tail.close()


async def read_log_of(client: Callable[[Hooks], Kafka], topic: str, take: Callable[[Logged], None]) -> None:
    """``read_log`` with a client that is made for it, and whose end is an error.

    Raises:
        BadInput, Unavailable: as ``read_log``; also Unavailable ``kafka``: the client cannot go on.
    """
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_fatal(detail: str) -> None:
        if not ended.done():
            ended.set_exception(Unavailable("kafka", detail))

    reading = asyncio.ensure_future(read_log(client(Hooks(on_fatal=on_fatal)), topic, take))
    await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
    if not reading.done():
        reading.cancel()
        await asyncio.wait({reading})
        ended.result()
    ended.cancel()
    reading.result()
