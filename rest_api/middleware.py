"""What happens to every request, whatever its route: an id, a look at the host name, headers, a count.

Plain ASGI: the framework's own middleware class would add a task and two queues to each request.
"""

import re
import time
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.observability.lines import Lines
from common.observability.logging import get_logger, says_debug
from common.observability.metrics import Metrics
from common.observability.spans import Spans
from common.observability.tracing import HEADER as TRACE_HEADER
from common.observability.tracing import TraceContext, format_traceparent
from rest_api import problems
from rest_api.dependencies import new_request_id, trace_given
from rest_api.gateway.core import FAILURES_SAID
from rest_api.problems import Problem
from rest_api.token_file import ANONYMOUS

ID_HEADER: Final = "X-Request-Id"
_ID: Final = b"x-request-id"
_TRACE: Final = TRACE_HEADER.encode()
_ALWAYS: Final = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin"))
REPEATED: Final = frozenset({_ID, _TRACE})
"""Headers of a request that its answer repeats."""
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_REFUSED: Final = frozenset({401, 403, 429})
LEAST_FAILURE: Final = 500
_PROBES: Final = frozenset({"/healthz", "/readyz"})
"""Told "not yet", a probe has its answer. It asks every few seconds, and whoever reads the log is not served by it."""
_log = get_logger(__name__)


class EveryRequest:
    """The outermost layer of our own.

    Args:
        app: What comes next.
        metrics: Where requests are counted.
        hosts: Names that the Host header may have, lower case; None: any.
        spans: Where the framework's spans go; None: it makes none.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, hosts: frozenset[str] | None, spans: Spans | None = None
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._hosts = hosts
        self._spans = spans
        self._lines = Lines(_log, time.monotonic)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._socket(scope, receive, send)
            return
        began = time.perf_counter()
        headers = Headers(scope=scope)
        own_id = scope["signer_flow.request_id"] = new_request_id()
        given = headers.get(ID_HEADER)
        shown = given if given is not None and _SANE_ID.fullmatch(given) else own_id
        status = 0

        async def reply(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Nobody further in sets one of these.
                out = message["headers"] = [*message["headers"], *own_headers(shown)]
                trace = trace_given(scope) if self._spans is None else self._spans.current()
                if trace is not None:
                    out.append((_TRACE, format_traceparent(trace).encode()))
                self._count(scope, status, began)
                self._tell(scope, status, trace)
            await send(message)

        try:
            if self._hosts is not None and not self._is_ours(headers.get("host", "")):
                await wrong_host(own_id)(scope, receive, reply)
                return
            await self._app(scope, receive, reply)
        except ClientDisconnect:
            # Whoever went away in the middle of his body gets no answer, and must not fill the log with our frames.
            return
        except Exception as error:
            _log.error(
                "a request failed",
                request_id=own_id,
                shown_id=shown,
                trace_id=_id_of(trace_given(scope) if self._spans is None else self._spans.current()),
                principal=_principal(scope),
                path=scope["path"],
                exc_info=error,
            )
            if status != 0:
                raise
            await problems.respond(problems.of_status(500), own_id)(scope, receive, reply)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket's upgrade (or the lifespan): the same look at the host name; its messages count themselves."""
        if scope["type"] == "websocket":
            own_id = scope["signer_flow.request_id"] = new_request_id()
            if self._hosts is not None and not self._is_ours(Headers(scope=scope).get("host", "")):
                await wrong_host(own_id)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        assert self._hosts is not None  # noqa: S101 - the caller looked
        name = host.lower()
        if name in self._hosts:
            return True
        bare, colon, port = name.rpartition(":")
        return bool(colon) and port.isdigit() and bare in self._hosts

    def _tell(self, scope: Scope, status: int, trace: TraceContext | None) -> None:
        if status < LEAST_FAILURE and status not in _REFUSED and not says_debug(__name__):
            return
        known = {
            "request_id": scope["signer_flow.request_id"],
            "trace_id": _id_of(trace),
            "principal": _principal(scope),
            "route": _route(scope),
            "status": status,
        }
        if status in _REFUSED:
            self._lines.warn("a caller was refused", **known)
        elif status >= LEAST_FAILURE and scope.get("route") is not None and not _told_not_yet(known["route"], status):
            self._lines.warn("a request got no answer", FAILURES_SAID, code=scope.get("signer_flow.problem"), **known)
        else:
            _log.debug("answered", **known)

    def _count(self, scope: Scope, status: int, began: float) -> None:
        route = _route(scope)
        self._metrics.http_requests.labels(route=route, method=scope["method"], status=status).inc()
        since = scope.get("signer_flow.read_at", began)
        self._metrics.http_request_duration.labels(route=route).observe(time.perf_counter() - since)


def _told_not_yet(route: object, status: int) -> bool:
    return route in _PROBES and status == 503


def _id_of(trace: TraceContext | None) -> str | None:
    return None if trace is None else trace.trace_id


def own_headers(request_id: str) -> list[tuple[bytes, bytes]]:
    """The headers that every answer has."""
    return [(_ID, request_id.encode("latin-1")), *_ALWAYS]


def wrong_host(own_id: str) -> Response:
    """The answer to a request that was meant for somebody else, or says so."""
    return problems.respond(Problem("wrong-host", "this service does not go by that host name"), own_id)


def _route(scope: Scope) -> str:
    # The template, never the path: a stranger's invented paths must not become labels.
    return str(getattr(scope.get("route"), "path", "none"))


def _principal(scope: Scope) -> str:
    return str(scope.get("signer_flow.principal", ANONYMOUS))
