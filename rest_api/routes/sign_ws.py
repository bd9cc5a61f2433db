"""WS /sign/ws: many messages under way on one connection, each answer tagged with the id that the client gave.

The client sends text frames, one JSON object each, whenever it likes::

    {"id": "1", "text": "hello"}                        text; its UTF-8 bytes are signed
    {"id": "2", "data": "aGVsbG8=", "key_id": "default"}  or base64; key_id as in POST /v1/sign

``id`` is a string of 1 to 64 characters; it is echoed and otherwise not looked at. Each message gets one answer, in the
order in which they are done, not in which they were sent::

    {"id": "1", "request_id": …, "key_id": …, "epoch": …, "algorithm": "Ed25519", "signature": …, "public_key": …,
     "message_sha256": …, "signers": […]}                 the object that POST /v1/sign returns
    {"id": "2", "error": {"type": "urn:signer-flow:problem:…", "status": …, "detail": …, "retryable": …, …}}

Where callers need a token and a browser cannot send the header, one message names it for all that follow, and is
answered with whose it is: ``{"id": "t", "token": "sft_…"}`` → ``{"id": "t", "principal": "billing"}``.

A message whose id cannot be read (not JSON, not an object, no id) is answered with ``"id": null``. An error concerns
that message alone; 429 and 503 say in ``retry_after_s`` when to try again. ``Request-Timeout-Ms`` and ``Authorization``
of the upgrade request hold for every message; its time begins when it is read.

Bounds: a message has at most 64 KiB; 64 are under way on a connection, and further ones are read when there is room (so
read answers while you send). A frame above 512 KiB closes the connection (1009), and so does a message that takes more
than 31 s to come, or more than 256 pings in 20 s (1008). Whoever answers no ping within 45 s is cut off, unless he has
taken all that he was sent and it is his messages that wait for the pod. Close codes of ours: 1012, this pod is going
away, and a message without an answer was not taken: connect again, and send it again; 1001, the same where answers
could not be delivered before its end (a message without one may have been signed); 1013, there is no room: another one
came, and on this one no message was without its answer, or none had said yet who is there, or too much is on its way to
the pod; and 1011, an internal error. An upgrade that is refused gets the problem as its HTTP answer.
"""

import asyncio
import contextlib
import time
from typing import Any, Final

import orjson
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from common.errors import BadInput, Unavailable
from common.ids import KeyId, RequestId
from common.observability.logging import get_logger
from common.observability.spans import Kind, Span
from rest_api import problems
from rest_api.body import parse_item
from rest_api.dependencies import (
    charge,
    check_allowed,
    choose_key,
    deadline_ms,
    identify,
    left_of,
    new_request_id,
    of_bad_input,
    of_unavailable,
    same_site,
    services,
)
from rest_api.gateway.core import Result
from rest_api.models import MAX_SOCKET_ID_CHARS, SocketRequest, SocketToken, message_of
from rest_api.problems import Problem, invalid
from rest_api.routes.answers import outcome_code, signature_or_problem
from rest_api.sockets import CONNECTION, SignSocketProtocol

router = APIRouter()

WINDOW: Final = 64
"""Messages under way on one connection."""
GOING_AWAY: Final = 1001
SERVICE_RESTART: Final = 1012
"""Of the IANA registry of close codes. Whoever reads it knows that what he sent and has no answer to was not taken."""
INTERNAL_ERROR: Final = 1011
LAST_ANSWERS_S: Final = 1.0
"""How long the last answers may take to leave, beyond the grace that requests under way have."""
ROUTE: Final = "/sign/ws"
_log = get_logger(__name__)


@router.websocket(ROUTE)
async def sign_ws(socket: WebSocket) -> None:
    """Serve one connection until either side ends it."""
    own_id = RequestId(socket.scope["signer_flow.request_id"])
    connection: SignSocketProtocol = socket.scope.pop(CONNECTION)  # which holds the scope: a circle otherwise
    try:
        same_site(socket)
        timeout_ms = deadline_ms(socket)
        sockets = services(socket).sockets
        if services(socket).gateway.standing.draining.is_set():
            raise Problem("shutting-down", "this pod is going away; connect again")
        if sockets.full():
            raise Problem("in-flight-limit", "too many WebSockets are open on this pod")
    except Problem as refused:
        await socket.send_denial_response(problems.respond(refused, own_id))
        return
    with sockets.one(connection), services(socket).bodies.one() as connection.may_hold:
        await socket.accept()
        await _Session(socket, connection, timeout_ms).run()


class _Session:
    """One connection: a reader, a writer, and whatever is under way between them.

    A place in the window is taken before a message is read and given back when its answer has left. So a client that
    does not read its answers soon is not read either, and holds no more than the window of our memory.
    """

    def __init__(self, socket: WebSocket, connection: SignSocketProtocol, timeout_ms: int) -> None:
        self._socket = socket
        self._connection = connection
        self._over = connection.over
        self._sockets = services(socket).sockets
        self._timeout_ms = timeout_ms
        self._authorization: str | None = None
        self._gateway = services(socket).gateway
        self._window = asyncio.Semaphore(WINDOW)
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()
        self._gone = False
        self._leaving = False
        """Nothing is taken any more."""
        self._unsent = 0
        """Messages that were taken and whose answers have not left."""
        self._room_at = 0.0
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def run(self) -> None:
        """Serve until the client leaves or the pod drains."""
        reader, writer, drained = (asyncio.create_task(end) for end in (self._read(), self._write(), self._drained()))
        try:
            await asyncio.wait((reader, writer, drained, self._over), return_when=asyncio.FIRST_COMPLETED)
            errors = [error for end in (reader, writer, drained) if end.done() and (error := end.exception())]
            gone = any(isinstance(error, WebSocketDisconnect) for error in errors)
            left = self._over.done() or gone or (reader.done() and not self._leaving)
        finally:
            # What was submitted is under way all the same, and keeps its places until it ends.
            self._gone = True
            for task in (reader, writer, drained):
                task.cancel()
            await asyncio.gather(reader, writer, drained, return_exceptions=True)
        failed = [error for error in errors if not isinstance(error, WebSocketDisconnect)]
        if failed:
            _log.error("a WebSocket failed", exc_info=failed[0])
            await self._close(INTERNAL_ERROR, "something went wrong here; it is in the log")
        elif not left and self._unsent == 0:
            await self._close(
                SERVICE_RESTART, "this pod is going away; what has no answer was not taken: send it again"
            )
        elif not left:
            await self._close(GOING_AWAY, "this pod is going away; what has no answer may have been signed")

    async def _close(self, code: int, reason: str) -> None:
        # A client that reads nothing would have us wait for it.
        with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            await asyncio.wait_for(self._socket.close(code, reason), LAST_ANSWERS_S)

    # --- three tasks -------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            if self._window.locked():
                await self._window.acquire()
                self._room_at = time.perf_counter()
            else:
                await self._window.acquire()
            event = await self._socket.receive()
            if event["type"] == "websocket.disconnect" or self._leaving:
                return
            self._unsent += 1
            self._quiet.clear()
            self._sockets.busy(self._connection)
            # From when it came, though others were before it; but the client's own window is no time of ours.
            came = max(self._connection.came_at, self._room_at)
            await services(self._socket).turns.mine(self._over.done)
            # Who was told goodbye meanwhile is gone too: nothing is signed after it, where nobody can take the answer.
            if self._over.done() or self._connection.close_sent:
                return
            await self._take(event.get("text"), came)

    async def _write(self) -> None:
        while True:
            answer = await self._answers.get()
            await self._socket.send_text(answer.decode())
            self._window.release()
            self._unsent -= 1
            if self._unsent == 0:
                self._quiet.set()
                self._sockets.idle(self._connection)

    async def _drained(self) -> None:
        """Return when the pod drains and every answer has left; what comes meanwhile is told so."""
        await self._gateway.standing.draining.wait()
        grace_s = services(self._socket).settings.shutdown_grace_ms / 1000
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s + LAST_ANSWERS_S):
                while self._unsent:
                    await self._quiet.wait()
        self._leaving = True  # nothing was read between the last answer and this

    # --- one message -------------------------------------------------------------------------------------------------

    async def _take(self, text: str | None, began: float) -> None:
        request_id = new_request_id()
        client_id: str | None = None
        try:
            value = _decode(text)
            client_id = _id_of(value)
            if "token" in value:
                self._introduce(client_id, value, began)
            else:
                await self._sign(client_id, value, request_id, began)
        except Problem as problem:
            self._refuse(client_id, problem, request_id, began)

    def _introduce(self, client_id: str, value: dict[str, Any], began: float) -> None:
        asked = parse_item(SocketToken, value)
        authorization = f"Bearer {asked.token}"
        caller = identify(self._socket, authorization)
        self._authorization = authorization
        self._sockets.known(self._connection)
        self._answer({"id": client_id, "principal": caller.principal}, 200, began)

    async def _sign(self, client_id: str, value: dict[str, Any], request_id: RequestId, began: float) -> None:
        socket = self._socket
        caller = identify(socket, self._authorization)
        self._sockets.known(self._connection)
        asked = parse_item(SocketRequest, value)
        try:
            message = message_of(asked.text, asked.data)
            key_id = choose_key(socket, asked.key_id)
            check_allowed(caller, key_id)
            crowded = services(socket).batches.window.crowds(self._gateway.pending())
            # Where WebSockets are what makes the queue, it ends for them where there is still room for others.
            left_ms = left_of(self._timeout_ms, time.perf_counter() - began)
            self._gateway.standing.admit(left_ms // 2 if crowded else left_ms)
            charge(socket, caller)
            left_ms = await self._place(left_ms)
        except BadInput as error:
            raise of_bad_input(error) from None
        except Unavailable as error:
            raise of_unavailable(error) from None
        window = services(socket).batches.window
        span = self._begin_span()
        trace = None if span is None else span.context
        try:
            future = self._gateway.submit(request_id, key_id, message, caller.principal, left_ms, trace=trace)
        except Unavailable as error:
            window.release()
            raise of_unavailable(error) from None
        future.add_done_callback(lambda _: window.release())

        def done(future: asyncio.Future[Result]) -> None:
            if span is not None:
                span.end(outcome_code(future.result()))
            if not self._gone:
                self._signed(client_id, key_id, message, future.result(), request_id, began)

        future.add_done_callback(done)

    async def _place(self, timeout_ms: int) -> int:
        """Wait for one of the places that WebSockets and batches share, and return what is left of the time.

        Without it a few hundred connections would hold all that a pod takes, and requests of others found none.
        """
        window = services(self._socket).batches.window
        if not window.locked():
            await window.acquire()
            return timeout_ms
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_ms / 1000
        try:
            async with asyncio.timeout_at(ends_at):
                await window.acquire()
        except TimeoutError:
            raise Problem("in-flight-limit", "there was no room for this message; it was not sent") from None
        return max(1, int((ends_at - loop.time()) * 1000))

    def _begin_span(self) -> Span | None:
        """A trace of its own for each message, linked to the connection's: a connection lives for hours."""
        spans = services(self._socket).spans
        if spans is None:
            return None
        connection = spans.current()
        return spans.begin(f"WS {ROUTE} message", Kind.SERVER, None, links=[connection] if connection else ())

    def _signed(
        self, client_id: str, key_id: KeyId, message: bytes, result: Result, request_id: RequestId, began: float
    ) -> None:
        try:
            signed = signature_or_problem(self._gateway, request_id, key_id, message, result)
        except Problem as problem:
            self._refuse(client_id, problem, request_id, began)
        else:
            self._answer({"id": client_id, **signed}, 200, began)

    def _refuse(self, client_id: str | None, problem: Problem, request_id: RequestId, began: float) -> None:
        error = problem.body(request_id)
        if problem.retry_after_s is not None:
            error["retry_after_s"] = problem.retry_after_s
        self._answer({"id": client_id, "error": error}, problem.spec.status, began)

    def _answer(self, body: dict[str, Any], status: int, began: float) -> None:
        metrics = services(self._socket).metrics
        metrics.http_requests.labels(route=ROUTE, method="WS", status=status).inc()
        metrics.http_request_duration.labels(route=ROUTE).observe(time.perf_counter() - began)
        self._answers.put_nowait(orjson.dumps(body))


def _decode(text: str | None) -> dict[str, Any]:
    if text is None:
        raise Problem("invalid-json", "send text frames: a binary one is no message here")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Problem("invalid-json", "the message is not JSON") from None
    if not isinstance(value, dict):
        raise invalid("message", "must be a JSON object")
    return value


def _id_of(value: dict[str, Any]) -> str:
    client_id = value.get("id")
    if not isinstance(client_id, str) or not 1 <= len(client_id) <= MAX_SOCKET_ID_CHARS:
        raise invalid("id", f"must be a string of 1 to {MAX_SOCKET_ID_CHARS} characters, of your choice")
    return client_id
