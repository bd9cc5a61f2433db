"""What every route needs of a request besides its body: whose it is, its deadline, its key, and the app's services."""

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import urlsplit

from fastapi import Request
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
from rest_api.capacity import Batches, Bodies
from rest_api.gateway.core import Gateway
from rest_api.gateway.outbox import new_uuid
from rest_api.problems import Problem, invalid, invalid_prefix
from rest_api.settings import Settings
from rest_api.turns import WAITED_S, Turns

TIMEOUT_HEADER: Final = "Request-Timeout-Ms"
CHALLENGE: Final = 'Bearer realm="signer-flow"'


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


def admit(request: HTTPConnection, timeout_ms: int) -> None:
    """Refuse what could not be sent anyway, before its body is read.

    Raises:
        Problem: 503.
    """
    try:
        services(request).gateway.standing.admit(timeout_ms)
    except Unavailable as error:
        raise of_unavailable(error) from None


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
