"""Callers over HTTP: each asks, writes the question down before it leaves, waits, and writes down the one answer.

A caller has a home pod and goes to another while home is not ready, as behind a load balancer; a connection that is
refused was never a question, and is made to the next pod. Nothing else is asked again: a question has one outcome.
"""

import asyncio
import base64
import binascii
import contextlib
import json
import random  # noqa: TID251 (sizes of messages, the same for the same seed)
import time
from collections.abc import Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.frames import CloseCode
from websockets.protocol import State

from tests.bench.http1 import NOT_CONNECTED, Connection
from tests.bench.http1 import Answer as Reply
from tests.chaos.history import HUNG, LOST, NOBODY, Answer, Ask, Book, Turned

HOST = "127.0.0.1"
GIVE_UP_S = 15.0
"""After its deadline a question is given up, and a finding."""
NOBODY_S = 15.0
AFTER_FAILURE_S = 0.25
"""A caller who was turned away does not come back at once."""
BATCH_ITEMS = 8
BURST = 6
LONG = 4_000


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


class Pods:
    """Where to go: the front ports, and which pods a load balancer would name."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.ports = tuple(ports)
        self.ready = [True] * len(self.ports)

    def order(self, home: int) -> list[int]:
        """Home first if it is ready, then the other ready ones, then the rest."""
        return sorted(range(len(self.ports)), key=lambda pod: (not self.ready[pod], pod != home))


class Quota:
    """What is asked next, until it is closed. ``rate`` is in messages a second; None: as fast as answers come."""

    def __init__(self, rate: float | None, seed: int) -> None:
        self.rate = rate
        self.open = True
        self.asked = 0
        self._ops = 0
        self._slot = 0.0
        self._chance = random.Random(f"messages {seed}")
        self._name = f"chaos {seed} {now_ms()}"

    async def next(self, way: str, count: int, timeout_ms: int) -> Ask | None:
        """The next question, when it is due; None when there are no more."""
        loop = asyncio.get_running_loop()
        if self.rate is not None:
            self._slot = max(loop.time(), self._slot) + count / self.rate
            await asyncio.sleep(self._slot - loop.time())
        if not self.open:
            return None
        self.asked += count
        self._ops += 1
        messages = tuple(self._message(self._ops, item) for item in range(count))
        return Ask(self._ops, way, messages, timeout_ms, now_ms())

    def _message(self, op: int, item: int) -> bytes:
        longest = LONG if self._chance.random() < 0.05 else 200
        return f"{self._name} {op}/{item} ".encode() + b"\xc3\xa4" * self._chance.randrange(longest // 2)


class Caller:
    """One caller of one way of asking."""

    way = ""
    items = 1

    def __init__(self, home: int, pods: Pods, quota: Quota, book: Book, timeout_ms: int) -> None:
        self._home, self._pods, self._quota, self._book = home, pods, quota, book
        self._timeout_ms = timeout_ms

    async def run(self) -> None:
        """Ask until there is nothing more to ask."""
        while (ask := await self._quota.next(self.way, self.items, self._timeout_ms)) is not None:
            self._book.write(ask)
            answers = await self._ask(ask)
            for answer in answers:
                self._book.write(answer)
            if any(answer.status != 200 for answer in answers):
                await asyncio.sleep(AFTER_FAILURE_S)
        await self.close()

    async def close(self) -> None:
        """Hang up."""

    async def _ask(self, ask: Ask) -> list[Answer]:
        raise AssertionError("a way of asking says how")

    def _turned(self, ask: Ask, pod: int) -> None:
        self._book.write(Turned(ask.op, pod, now_ms()))


class Http(Caller):
    """POST on one kept connection."""

    path = ""

    def __init__(self, home: int, pods: Pods, quota: Quota, book: Book, timeout_ms: int) -> None:
        super().__init__(home, pods, quota, book, timeout_ms)
        self._at = home
        self._connection = self._to(home)

    def _to(self, pod: int) -> Connection:
        return _Timed(HOST, self._pods.ports[pod], self._timeout_ms)

    async def close(self) -> None:
        self._connection.close()

    async def _post(self, ask: Ask, body: bytes) -> tuple[int, Reply | None]:
        """Who answered and what; None: nobody did."""
        end = time.monotonic() + NOBODY_S
        if self._at != self._home and self._pods.ready[self._home]:
            self._go(self._home)
        while True:
            for pod in self._choices():
                if pod != self._at:
                    self._go(pod)
                try:
                    async with asyncio.timeout(self._timeout_ms / 1000 + GIVE_UP_S):
                        reply = await self._connection.post(self.path, body)
                except TimeoutError:
                    self._go(pod)
                    return pod, None
                if reply is not NOT_CONNECTED:
                    return pod, reply
                self._turned(ask, pod)
            if time.monotonic() > end:
                return self._at, NOT_CONNECTED
            await asyncio.sleep(0.1)

    def _choices(self) -> list[int]:
        if self._connection.connected:
            return [self._at, *(pod for pod in self._pods.order(self._home) if pod != self._at)]
        return self._pods.order(self._home)

    def _go(self, pod: int) -> None:
        self._connection.close()
        self._at, self._connection = pod, self._to(pod)

    async def _ask(self, ask: Ask) -> list[Answer]:
        pod, reply = await self._post(ask, self._body(ask))
        at_ms = now_ms()
        if reply is None:
            return [_without(ask, item, pod, HUNG, "", at_ms) for item in range(len(ask.messages))]
        if reply.status == 0:
            status = NOBODY if reply is NOT_CONNECTED else LOST
            return [_without(ask, item, pod, status, "", at_ms) for item in range(len(ask.messages))]
        results = self._results(reply, len(ask.messages))
        return [_answer(ask.op, item, pod, result, at_ms) for item, result in enumerate(results)]

    def _body(self, ask: Ask) -> bytes:
        raise AssertionError("a way of asking says how")

    def _results(self, reply: Reply, count: int) -> list[dict[str, Any]]:
        """One object for each message, a problem where there is no signature."""
        found = json.loads(reply.body)
        if reply.status == 200 and self.way == "batch":
            return [result.get("error", result) for result in found["results"]]
        return [found] * count


class Single(Http):
    """One message a request, every second one as base64."""

    way, path = "single", "/v1/sign"

    def _body(self, ask: Ask) -> bytes:
        return json.dumps(_named(ask.messages[0], ask.op)).encode()


class Batch(Http):
    """A few messages a request."""

    way, path, items = "batch", "/v1/sign/batch", BATCH_ITEMS

    def _body(self, ask: Ask) -> bytes:
        return json.dumps({"items": [_named(message, ask.op) for message in ask.messages]}).encode()


class Socket(Caller):
    """Bursts of messages on one WebSocket."""

    way, items = "socket", BURST

    def __init__(self, home: int, pods: Pods, quota: Quota, book: Book, timeout_ms: int) -> None:
        super().__init__(home, pods, quota, book, timeout_ms)
        self._at = home
        self._open: ClientConnection | None = None

    async def close(self) -> None:
        if self._open is not None:
            await self._open.close()
            self._open = None

    async def _connect(self, ask: Ask) -> ClientConnection | None:
        end = time.monotonic() + NOBODY_S
        if self._open is not None and self._open.state is not State.OPEN:
            self._open = None  # the pod has said goodbye since the last answer
        if self._at != self._home and self._pods.ready[self._home]:
            await self.close()
        while self._open is None and time.monotonic() < end:
            for pod in self._pods.order(self._home):
                try:
                    self._open = await connect(
                        f"ws://{HOST}:{self._pods.ports[pod]}/sign/ws",
                        additional_headers={"Request-Timeout-Ms": str(self._timeout_ms)},
                        compression=None,
                        proxy=None,
                    )
                    self._at = pod
                    break
                except (OSError, InvalidHandshake, EOFError):
                    self._turned(ask, pod)
            else:
                await asyncio.sleep(0.1)
        return self._open

    async def _ask(self, ask: Ask) -> list[Answer]:
        answers: dict[int, Answer] = {}
        status = NOBODY
        end = time.monotonic() + NOBODY_S
        while status == NOBODY and time.monotonic() < end:
            status = await self._try(ask, answers)
        at_ms = now_ms()
        missing = [item for item in range(len(ask.messages)) if item not in answers]
        return [*answers.values(), *(_without(ask, item, self._at, status, "", at_ms) for item in missing)]

    async def _try(self, ask: Ask, answers: dict[int, Answer]) -> int:
        """Send what has no answer yet. Returns what became of those that have none then."""
        opened = await self._connect(ask)
        if opened is None:
            return NOBODY
        status = LOST
        try:
            async with asyncio.timeout(self._timeout_ms / 1000 + GIVE_UP_S):
                await self._talk(opened, ask, answers)
        except TimeoutError:
            status = HUNG
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code == CloseCode.SERVICE_RESTART:
                status = NOBODY
                self._turned(ask, self._at)
        if len(answers) < len(ask.messages):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GIVE_UP_S):
                    await self.close()
            self._open = None
        return status

    async def _talk(self, opened: ClientConnection, ask: Ask, answers: dict[int, Answer]) -> None:
        left = [(item, message) for item, message in enumerate(ask.messages) if item not in answers]
        with contextlib.suppress(ConnectionClosed):  # what was answered before the goodbye is still to be read
            for item, message in left:
                await opened.send(json.dumps({"id": f"{ask.op}/{item}", **_named(message, ask.op)}))
        while len(answers) < len(ask.messages):
            found = json.loads(await opened.recv())
            op, item = map(int, str(found["id"]).split("/"))
            answer = _answer(op, item, self._at, found.get("error", found), now_ms())
            if item in answers or op != ask.op:
                # A second one, or of an earlier burst: written down as it came, for the checker to find.
                self._book.write(answer)
            else:
                answers[item] = answer


class _Timed(Connection):
    """Says how long it is ready to wait."""

    def __init__(self, host: str, port: int, timeout_ms: int) -> None:
        super().__init__(host, port)
        self._timeout_ms = timeout_ms

    def head(self, path: str, length: int) -> bytes:
        return super().head(path, length)[:-2] + f"Request-Timeout-Ms: {self._timeout_ms}\r\n\r\n".encode()


def _named(message: bytes, op: int) -> dict[str, str]:
    return {"text": message.decode()} if op % 2 else {"data": base64.b64encode(message).decode()}


def _without(ask: Ask, item: int, pod: int, status: int, code: str, at_ms: int) -> Answer:
    return Answer(ask.op, item, pod, status, code, "", b"", b"", 0, at_ms)


def _answer(op: int, item: int, pod: int, found: dict[str, Any], at_ms: int) -> Answer:
    request_id = str(found.get("request_id", ""))
    if "signature" not in found:
        code = str(found.get("type", "")).rpartition(":")[2]
        return Answer(op, item, pod, int(found.get("status", 0)), code, request_id, b"", b"", 0, at_ms)
    signature, public_key = (_bytes(found[name]) for name in ("signature", "public_key"))
    return Answer(op, item, pod, 200, "", request_id, signature, public_key, int(found["epoch"]), at_ms)


def _bytes(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return b""
