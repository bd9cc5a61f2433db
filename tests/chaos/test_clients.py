"""What a caller on a WebSocket asks again when a pod says goodbye: what it did not take, and nothing else."""

import io
import json
from collections import deque
from collections.abc import Iterable

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close, CloseCode

from tests.chaos.clients import Pods, Quota, Socket
from tests.chaos.history import LOST, Ask, Book, Turned, only

pytestmark = pytest.mark.anyio

REFUSED = {"status": 503, "type": "urn:signer-flow:problem:overloaded", "request_id": "r"}


class Pod:
    """Takes so many messages and answers each; then it has said goodbye, whatever else is sent."""

    def __init__(self, takes: int, code: CloseCode) -> None:
        self.left = takes
        self.took: list[str] = []
        self.answers: deque[str] = deque()
        self._goodbye = ConnectionClosedError(Close(code, ""), Close(code, ""), True)

    async def send(self, text: str) -> None:
        if not self.left:
            raise self._goodbye
        self.left -= 1
        self.took.append(json.loads(text)["id"])
        self.answers.append(json.dumps({"id": self.took[-1], "error": REFUSED}))

    async def recv(self) -> str:
        if not self.answers:
            raise self._goodbye
        return self.answers.popleft()

    async def close(self) -> None:
        self.left = 0


class Caller(Socket):
    """Meets these pods, one after the other."""

    def __init__(self, pods: Iterable[Pod], book: Book) -> None:
        super().__init__(0, Pods([0]), Quota(None, 1), book, 5_000)
        self._met = iter(pods)

    async def _connect(self, ask: Ask) -> ClientConnection | None:
        return next(self._met)  # type: ignore[return-value]


async def test_what_was_answered_before_a_goodbye_is_not_asked_again() -> None:
    book = Book(io.StringIO())
    pods = [Pod(2, CloseCode.SERVICE_RESTART), Pod(9, CloseCode.SERVICE_RESTART)]
    answers = await Caller(pods, book)._ask(Ask(1, "socket", (b"a", b"b", b"c", b"d"), 5_000, 0))
    assert [pod.took for pod in pods] == [["1/0", "1/1"], ["1/2", "1/3"]]
    assert [(answer.item, answer.status) for answer in answers] == [(item, 503) for item in range(4)]
    assert [turned.op for turned in only(book.rows, Turned)] == [1]


async def test_what_may_have_been_taken_is_not_asked_again() -> None:
    pods = [Pod(2, CloseCode.GOING_AWAY), Pod(9, CloseCode.GOING_AWAY)]
    answers = await Caller(pods, Book(io.StringIO()))._ask(Ask(1, "socket", (b"a", b"b", b"c"), 5_000, 0))
    assert pods[1].took == []
    assert [(answer.item, answer.status) for answer in answers] == [(0, 503), (1, 503), (2, LOST)]
