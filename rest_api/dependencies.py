"""What every route needs of a request: its body within a cap, its deadline, and where it came from."""

import asyncio
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from common.errors import BadInput, Unavailable
from common.ids import KeyId, RequestId
from common.observability import tracing
from common.observability.metrics import Metrics
from common.observability.spans import Spans
from common.observability.tracing import TraceContext
from common.wire.messages import MAX_DEADLINE_MS
from rest_api.attendance import Sockets
from rest_api.callers import Caller, Callers, NeverFits, TooFast, UnknownCaller
from rest_api.gateway.core import Gateway
from rest_api.gateway.outbox import new_uuid
from rest_api.problems import Problem, invalid, invalid_prefix
from rest_api.settings import Settings
from rest_api.turns import WAITED_S, Turns

BODY_CAP: Final = 512 * 1024
BATCH_BODY_CAP: Final = 8 * 1024 * 1024
TIMEOUT_HEADER: Final = "Request-Timeout-Ms"
CHALLENGE: Final = 'Bearer realm="signer-flow"'

Body = TypeVar("Body", bound=BaseModel)


class Window(asyncio.Semaphore):
    """Places, given in the order in which they are asked for."""

    def __init__(self, places: int) -> None:
        super().__init__(places)
        self._places = places

    def crowds(self, pending: int) -> bool:
        """Whether most of what is ``pending`` has its place from here."""
        return 2 * (self._places - self._value) > pending


class Batches:
    """How much of the pod batches and WebSockets may take: half of its pending limit, all of them together, in the
    order they came. The other half is for requests that come one at a time."""

    MOST: Final = 8
    """Batches that run. Whoever was let in before there were so many waits, with his body, for one of them to end."""

    def __init__(self, pending_limit: int) -> None:
        self.window = Window(pending_limit // 2)
        self._places = asyncio.Semaphore(self.MOST)

    def full(self) -> bool:
        """Whether there are so many, or somebody waits, so that no further body should be read."""
        return self._places.locked()

    async def enter(self, ends_at: float) -> None:
        """Wait for a place, in the order of those who do, until this time of the loop; ``leave`` gives it back.

        Raises:
            Problem: 503 when there was none.
        """
        try:
            async with asyncio.timeout_at(ends_at):
                await self._places.acquire()
        except TimeoutError:
            raise Problem("in-flight-limit", "too many batches are under way") from None

    def leave(self) -> None:
        """A batch is over."""
        self._places.release()


class Bodies:
    """How much of bodies and messages that are still coming may be held, all of them together.

    The first ``FREE`` bytes of each count for nothing, so that whoever fills this with large bodies that never end
    keeps nobody else from signing a short message.
    """

    FREE: Final = 16 * 1024
    MOST: Final = 128 * 1024 * 1024

    def __init__(self) -> None:
        self._held = 0

    @contextmanager
    def one(self) -> Iterator[Callable[[int], bool]]:
        """One body; tell how many bytes of it there are now. False: that is too much."""
        held = 0

        def grow(size: int) -> bool:
            nonlocal held
            more = max(0, size - self.FREE) - held
            if self._held + more > self.MOST:
                return False
            held += more
            self._held += more
            return True

        try:
            yield grow
        finally:
            grow(0)


@dataclass(frozen=True, slots=True)
class Services:
    """What the composition root made; it lives in ``app.state.services``."""

    settings: Settings
    gateway: Gateway
    metrics: Metrics
    batches: Batches
    bodies: Bodies
    turns: Turns
    callers: Callers
    sockets: Sockets
    spans: Spans | None


def services(request: HTTPConnection) -> Services:
    """The services of the app that serves this request."""
    scope = request.scope
    found = scope.get("signer_flow.services")
    if found is None:
        found = scope["signer_flow.services"] = request.app.state.services
    return cast(Services, found)


def new_request_id() -> RequestId:
    """A new id for one item."""
    return RequestId(new_uuid())


def request_id(request: Request) -> RequestId:
    """The id that the middleware made for this request."""
    return cast(RequestId, request.scope["signer_flow.request_id"])


def trace_given(scope: MutableMapping[str, Any]) -> TraceContext | None:
    """The trace that the caller is in, if its header is well-formed; what is not is ignored (Trace Context 3.2.2.3)."""
    key = "signer_flow.trace"
    if key not in scope:
        given = Headers(scope=scope).get(tracing.HEADER)
        scope[key] = None if given is None else tracing.parse_traceparent(given)
    return cast("TraceContext | None", scope[key])


def deadline_ms(request: HTTPConnection) -> int:
    """How many milliseconds the caller gives us from now on: what he gave, less the wait for the request's turn.

    Raises:
        Problem: 422 when the header is not a whole number from 1 to 30,000, or 503 when the time is over.
    """
    given = request.headers.get(TIMEOUT_HEADER)
    if given is None:
        whole_ms = services(request).settings.deadline_ms
    elif given.isascii() and given.isdigit() and len(given) <= 6 and 1 <= int(given) <= MAX_DEADLINE_MS:
        whole_ms = int(given)
    else:
        raise invalid(TIMEOUT_HEADER, f"a whole number of milliseconds from 1 to {MAX_DEADLINE_MS}")
    return left_of(whole_ms, request.scope.get(WAITED_S, 0.0))


def left_of(whole_ms: int, waited_s: float) -> int:
    """How many milliseconds are left.

    Raises:
        Problem: 503 when there are none.
    """
    left_ms = whole_ms - int(waited_s * 1000)
    if left_ms < 1:
        raise Problem("in-flight-limit", "the time was over before this was its turn; nothing of it was done")
    return left_ms


def identify(connection: HTTPConnection, authorization: str | None = None) -> Caller:
    """Who makes this request (or opened this connection: ask again for each message, a token may be withdrawn).

    Args:
        connection: Whose Authorization header is looked at.
        authorization: What goes before that header: a browser cannot send one with a WebSocket.

    Raises:
        Problem: 401; 429 for an address that tries too often.
    """
    callers = services(connection).callers
    address = _address(connection)
    try:
        caller = callers.identify(authorization or connection.headers.get("authorization"), address)
    except UnknownCaller as unknown:
        charge(connection, callers.anonymous(address))
        if unknown.presented:
            raise Problem(
                "unauthorized",
                "the Authorization header holds no token that is known here",
                challenge=f'{CHALLENGE}, error="invalid_token"',
            ) from None
        raise Problem(
            "unauthorized",
            "send a token: `Authorization: Bearer <token>`; a browser's form has none",
            challenge=CHALLENGE,
        ) from None
    connection.scope["signer_flow.principal"] = caller.principal
    return caller


def visitor(connection: HTTPConnection) -> Caller:
    """The caller of a route that asks for no token: his address is all that is known, and counted."""
    return services(connection).callers.anonymous(_address(connection))


def charge(connection: HTTPConnection, caller: Caller, items: int = 1, whole: int = 0) -> None:
    """Count ``items`` (of ``whole`` in this request) against the caller's rate, before they are signed.

    Raises:
        Problem: 429 with the time after which there is room, or 422 for more than ever fit.
    """
    try:
        services(connection).callers.charge(caller, items, whole)
    except TooFast as limit:
        detail = f"the rate of this caller is {limit.rate}"
        raise Problem("rate-limited", detail, retry_after_s=limit.retry_after_s) from None
    except NeverFits as limit:
        detail = f"the rate of this caller is {limit.rate}: send at most {limit.rate.amount} items at once"
        raise Problem("batch-over-rate", detail, [("items", detail)]) from None


def check_allowed(caller: Caller, key_id: KeyId) -> None:
    """Refuse a key that the caller's token is not for.

    Raises:
        Problem: 403.
    """
    if not caller.may_use(key_id):
        raise Problem("key-not-allowed", f"this token is not for the key {key_id!r}")


def _address(connection: HTTPConnection) -> str:
    peer = connection.client.host if connection.client is not None else None
    return services(connection).callers.address_of(peer, connection.headers.getlist("x-forwarded-for"))


def media_type(request: Request) -> str:
    """The media type of the body, lower case, without parameters; empty if none is named."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def admit(request: HTTPConnection, timeout_ms: int) -> None:
    """Refuse what could not be sent anyway, before its body is read.

    Raises:
        Problem: 503.
    """
    try:
        services(request).gateway.standing.admit(timeout_ms)
    except Unavailable as error:
        raise of_unavailable(error) from None


def want_json(request: Request) -> None:
    """Refuse a body that does not say it is JSON.

    Raises:
        Problem: 415. It also keeps other sites' plain forms out, which cannot send this type without asking first.
    """
    if media_type(request) != "application/json":
        raise Problem("unsupported-media-type", "send application/json")


async def read_body(request: Request, cap: int, timeout_s: float) -> bytes:
    """Return the body. More than ``cap`` bytes are never held, whatever Content-Length says.

    Args:
        request: Whose.
        cap: The most bytes.
        timeout_s: The caller's deadline, 30 s at most; ``heads`` ends the connection a second after that.

    Raises:
        Problem: 413, 408 when it does not come in time, or 503 when too much of other bodies is held.
    """
    with services(request).bodies.one() as grow:
        return await read_counted(request, cap, timeout_s, grow)


async def read_counted(request: Request, cap: int, timeout_s: float, grow: Callable[[int], bool]) -> bytes:
    """The same, for a body that still counts when it is there: ``grow`` is of ``Bodies.one``."""
    length = request.headers.get("content-length")
    if length is not None and length.isdigit() and int(length[:19]) > cap:
        raise _too_large(cap)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > cap:
                    raise _too_large(cap)
                if not grow(size):
                    raise Problem("in-flight-limit", "too many large bodies are on their way to this pod")
                chunks.append(chunk)
    except TimeoutError:
        raise Problem("body-timeout", f"the body did not arrive within {timeout_s:g} s") from None
    request.scope["signer_flow.read_at"] = time.perf_counter()
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(cap: int) -> Problem:
    return Problem("body-too-large", f"at most {cap} bytes are taken here")


def parse(model: type[Body], body: bytes) -> Body:
    """Return the body as ``model``.

    Raises:
        Problem: 400 if it is not JSON, else 422 with the fields.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _of_validation(model, error) from None


def parse_item(model: type[Body], value: object) -> Body:
    """Return one already decoded value as ``model``. Raises as ``parse``, never 400."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _of_validation(model, error) from None


def _of_validation(model: type[BaseModel], error: ValidationError) -> Problem:
    found = error.errors(include_url=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        # What the parser missed, and where; nothing of the body.
        return Problem("invalid-json", f"the body is not JSON: {found[0]['ctx']['error']}")
    errors = [(".".join(map(str, each["loc"])) or "body", _plain(model, each)) for each in found[:10]]
    return Problem("invalid-request", "; ".join(f"{field}: {detail}" for field, detail in errors[:3]), errors)


def _plain(model: type[BaseModel], error: ErrorDetails) -> str:
    match error["type"]:
        case "extra_forbidden":
            return f"unknown field; there are {', '.join(model.model_fields)}"
        case "missing":
            return "is missing"
        case "string_type":
            return "must be a string"
        case "model_type":
            return "must be a JSON object"
        case "too_short":
            return f"at least {error['ctx']['min_length']}, not {error['ctx']['actual_length']}"
        case "too_long":
            return f"at most {error['ctx']['max_length']}, not {error['ctx']['actual_length']}"
        case _:
            return error["msg"]


def of_bad_input(error: BadInput) -> Problem:
    """A ``BadInput`` of our own checks as the caller sees it."""
    match error.code:
        case "message-too-large":
            return Problem("message-too-large", error.detail)
        case "reserved-prefix":
            return invalid_prefix()
        case "unknown-key":
            return Problem("unknown-key", error.detail)
        case _:
            return invalid(error.field or "body", error.detail)


def of_unavailable(error: Unavailable) -> Problem:
    """An ``Unavailable`` of the gateway as the caller sees it; its codes are rows of the table."""
    return Problem(error.code, error.detail)


def choose_key(request: HTTPConnection, key_id: str | None) -> KeyId:
    """The key that is meant.

    Raises:
        Problem: 404, or 503 while the key is still being made.
    """
    try:
        return services(request).gateway.keys.choose(key_id)
    except BadInput as error:
        raise of_bad_input(error) from None
    except Unavailable as error:
        raise of_unavailable(error) from None


def same_site(request: HTTPConnection) -> None:
    """Refuse a form that a page of another site sent: the browser says so, and a program says nothing.

    Raises:
        Problem: 403.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site not in {"same-origin", "none"}:
            raise Problem("cross-site", "this form was sent by another site")
        return
    origin = request.headers.get("origin")
    if origin is not None and _netloc(origin) != request.headers.get("host", "").lower():
        raise Problem("cross-site", "this form was sent by another site")


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # half a bracket, or something else than an address between two
        return None
