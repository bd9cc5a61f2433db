"""The load client: a process of its own that signs over HTTP, verifies every answer, and says what it saw.

It is told one JSON object per line and answers each with one. Common fields: ``urls``, ``public_key`` (base64),
``seconds``. ``kind`` is one of:

``closed``  ``concurrency`` callers, each asks again as soon as it was answered: what the system can do at most.
``open``    ``rate`` requests a second at random moments, whether answers come or not: what callers see who do not
            wait for each other. Latency counts from the moment at which a request was due, so that a slow answer
            cannot hide the ones that should have been sent meanwhile.
``batch``   as ``closed``, each request with ``items`` items; counts are items.

``connections`` is how many an open loop may have at most; while each of them waits for an answer, what is due is not
sent, and counted: callers who do not know each other would not wait in a line of ours. With ``each`` the answer also
has when every good answer came, and what it took: ``begun_ns`` (``time.perf_counter_ns``, one clock for all processes),
``came_us`` after that, ``took_us``.
"""

import asyncio
import base64
import binascii
import itertools
import json
import os
import random  # noqa: TID251 (moments of arrival: repeatable on purpose, nothing to guess)
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson
import uvloop

from common import ed25519
from tests.bench.http1 import Answer, Connection
from tests.bench.stats import latencies
from tests.bench.talk import say

DRAIN_S = 15.0
"""What has no answer this long after the end gets none."""
FAILED_PAUSE_S = 0.02
MAX_BACKLOG = 20_000
MAX_CALLERS = 512
NEVER_SENT = "never sent: too many before it had no answer"

_run = os.urandom(4).hex()
_numbers = itertools.count()


def fresh_message() -> bytes:
    """64 bytes that nobody has signed before: no cache on the way could help."""
    return f"benchmark {_run} message {next(_numbers):012d} ".ljust(64, ".").encode()


class Tally:
    """What became of the requests of one phase. All times by ``time.perf_counter_ns``."""

    def __init__(self, public_key: bytes, seconds: float) -> None:
        self.public_key = public_key
        self.start_ns = time.perf_counter_ns()
        self.end_ns = self.start_ns + int(seconds * 1e9)
        self.ok = self.in_time = self.wrong = self.requests = 0
        self.failed: Counter[str] = Counter()
        self.taken_ns: list[int] = []
        self.came_ns: list[int] = []
        self.refused_ns: list[int] = []
        self.without_retry_after = 0

    def open(self) -> bool:
        """Whether new requests may still begin."""
        return time.perf_counter_ns() < self.end_ns

    def answered(self, answer: Answer, messages: Sequence[bytes], since_ns: int, batch: bool) -> bool:
        """Judge one answer for these messages; True if all of them were signed."""
        now = time.perf_counter_ns()
        self.requests += 1
        if answer.status != 200:
            self.failed[_reason(answer)] += len(messages)
            if answer.status in (429, 503):
                self.refused_ns.append(now - since_ns)
                self.without_retry_after += not answer.retry_after
            return False
        try:
            body = orjson.loads(answer.body)
            results = body["results"] if batch else [body]
        except (ValueError, KeyError, TypeError):
            results = []
        good = 0
        for message, result in itertools.zip_longest(messages, results):
            match self._judge(message, result):
                case None:
                    good += 1
                case "wrong":
                    self.wrong += 1
                case reason:
                    self.failed[reason] += 1
        self.ok += good
        if now <= self.end_ns:
            self.in_time += good
        if good == len(messages):
            self.taken_ns.append(now - since_ns)
            self.came_ns.append(now)
        return good == len(messages)

    def _judge(self, message: bytes | None, result: Any) -> str | None:
        if isinstance(result, dict) and isinstance(problem := result.get("error"), dict):
            return f"item: {problem.get('type')}"
        try:
            signature = binascii.a2b_base64(result["signature"], strict_mode=True)
        except (KeyError, TypeError, ValueError):
            return "wrong"
        right = message is not None and ed25519.verify(self.public_key, message, signature)
        return None if right else "wrong"

    def report(self, command: dict[str, Any]) -> dict[str, Any]:
        """The phase in numbers; ``rate_per_s`` counts what was answered before the end of the phase."""
        seconds = command["seconds"]
        each = {
            "begun_ns": self.start_ns,
            "came_us": [(came - self.start_ns) // 1000 for came in self.came_ns],
            "took_us": [took // 1000 for took in self.taken_ns],
        }
        return (each if command.get("each") else {}) | {
            "ok": self.ok,
            "wrong": self.wrong,
            "failed": dict(self.failed),
            "requests": self.requests,
            "seconds": seconds,
            "rate_per_s": round(self.in_time / seconds, 2),
            "latency": latencies(self.taken_ns),
            "refused_latency": latencies(self.refused_ns),
            "without_retry_after": self.without_retry_after,
        }


def _reason(answer: Answer) -> str:
    if answer.status == 0:
        return answer.body.decode()
    try:
        return f"{answer.status} {orjson.loads(answer.body)['type']}"
    except (ValueError, KeyError, TypeError):
        return str(answer.status)


def _connections(urls: Sequence[str], count: int) -> list[Connection]:
    places = [urlsplit(url) for url in urls]
    chosen = itertools.islice(itertools.cycle(places), count)
    return [Connection(str(place.hostname), place.port or 80) for place in chosen]


async def _finish(tally: Tally, work: Sequence["asyncio.Task[None]"], connections: Sequence[Connection]) -> None:
    """Wait for the callers, but not for ever; a request without an answer is counted as LOST when we hang up."""
    left_s = (tally.end_ns - time.perf_counter_ns()) / 1e9 + DRAIN_S
    _, late = await asyncio.wait(work, timeout=max(0.0, left_s))
    for connection in connections:
        connection.close()
    if late:
        await asyncio.wait(late, timeout=DRAIN_S)
    for task in work:
        task.cancel()
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


async def closed(command: dict[str, Any]) -> dict[str, Any]:
    """``closed`` and ``batch``."""
    items = command.get("items")
    path = "/v1/sign" if items is None else "/v1/sign/batch"
    connections = _connections(command["urls"], command["concurrency"])
    tally = Tally(base64.b64decode(command["public_key"]), command["seconds"])

    async def caller(connection: Connection) -> None:
        while tally.open():
            messages = [fresh_message() for _ in range(items or 1)]
            body = _single(messages[0]) if items is None else _batch(messages)
            began = time.perf_counter_ns()
            answer = await connection.post(path, body)
            if not tally.answered(answer, messages, began, items is not None):
                await asyncio.sleep(FAILED_PAUSE_S)

    work = [asyncio.create_task(caller(connection)) for connection in connections]
    await _finish(tally, work, connections)
    return tally.report(command)


async def open_loop(command: dict[str, Any]) -> dict[str, Any]:
    """``open``."""
    rate, seconds = command["rate"], command["seconds"]
    # Each connection is used every two or four seconds, so that no server's idle timeout hits one in use.
    # What waits for its answer keeps one: more requests at a time than there are would wait here, and not there.
    most, each_s = (command["connections"], 4) if "connections" in command else (MAX_CALLERS, 2)
    connections = _connections(command["urls"], max(8, min(most, int(rate * each_s))))
    due: asyncio.Queue[int | None] = asyncio.Queue()
    # A line that grows without an end would be our memory; and whoever stopped would measure how a system recovers.
    free, may_line_up = 0, 0 if "connections" in command else MAX_BACKLOG
    tally = Tally(base64.b64decode(command["public_key"]), seconds)

    async def caller(connection: Connection) -> None:
        nonlocal free
        while True:
            free += 1
            scheduled = await due.get()
            free -= 1
            if scheduled is None:
                return
            message = fresh_message()
            answer = await connection.post("/v1/sign", _single(message))
            tally.answered(answer, [message], scheduled, batch=False)

    planned = list(_arrivals(rate, seconds))

    async def clock() -> None:
        for moment in planned:
            wait = (tally.start_ns - time.perf_counter_ns()) / 1e9 + moment
            if wait > 0:
                await asyncio.sleep(wait)
            if due.qsize() >= free + may_line_up:
                continue
            due.put_nowait(tally.start_ns + int(moment * 1e9))
        for _ in connections:
            due.put_nowait(None)

    work = [asyncio.create_task(caller(connection)) for connection in connections]
    work.append(asyncio.create_task(clock()))
    await _finish(tally, work, connections)
    if len(planned) > tally.requests:
        tally.failed[NEVER_SENT] += len(planned) - tally.requests
    return tally.report(command) | {"offered_per_s": rate}


def _arrivals(rate: float, seconds: float) -> Iterator[float]:
    """Moments of independent callers, in seconds from the start: exponential gaps, the same in every run."""
    chance = random.Random(1)
    moment = chance.expovariate(rate)
    while moment < seconds:
        yield moment
        moment += chance.expovariate(rate)


def _single(message: bytes) -> bytes:
    return b'{"text":"%b"}' % message


def _batch(messages: Sequence[bytes]) -> bytes:
    return b'{"items":[%b]}' % b",".join(b'{"text":"%b"}' % message for message in messages)


def main() -> None:
    """Answer commands until the input ends."""
    for line in sys.stdin:
        command = json.loads(line)
        work = open_loop if command["kind"] == "open" else closed
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(work(command))
        say(report)


if __name__ == "__main__":
    main()
