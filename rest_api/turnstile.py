"""Says no to requests to sign for which this pod has no room, for half of what it costs through the framework.

Asked for three times what it can do, a pod refuses most of what comes, and the time that takes is time in which nobody
signs. Nothing of such a request is looked at but its path, and whether it wants something back that a refusal would
have to repeat: no token, no host name. The answer is the route's own (``routes.sign``), which whoever asks in another
way still gets from there.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from common.observability.lines import Lines
from common.observability.logging import get_logger
from common.observability.metrics import Metrics
from rest_api import middleware, problems
from rest_api.dependencies import new_request_id
from rest_api.gateway.core import FAILURES_SAID
from rest_api.problems import Problem
from rest_api.token_file import ANONYMOUS

ROUTE: Final = "/v1/sign"
STATE: Final = "signer_flow.turnstile"
"""Of the lifespan's state, where ``heads`` finds it."""
_SOME_ID: Final = "00000000-0000-0000-0000-000000000000"
_log = get_logger(__name__)


class Turnstile:
    """Of one pod.

    Args:
        full: Whether no request could be taken now.
        detail: What is said then.
        metrics: Where requests are counted.
    """

    def __init__(self, full: Callable[[], bool], detail: str, metrics: Metrics) -> None:
        self._full = full
        self._problem = Problem("in-flight-limit", detail)
        response = problems.respond(self._problem, _SOME_ID)
        headers = [*response.raw_headers, *middleware.own_headers(_SOME_ID)]
        self._answer = b"".join(b"%b: %b\r\n" % each for each in headers) + b"\r\n" + bytes(response.body)
        self._count = metrics.http_requests.labels(route=ROUTE, method="POST", status=response.status_code)
        self._duration = metrics.http_request_duration.labels(route=ROUTE)
        self._lines = Lines(_log, time.monotonic)

    def refusal(self, scope: Mapping[str, Any], server_headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
        """Return the whole answer to a request, or None if it may go on.

        Args:
            scope: What is known of it (ASGI).
            server_headers: What the server sends with each answer.
        """
        if scope["path"] != ROUTE or scope["method"] != "POST" or not self._full():
            return None
        if any(name in middleware.REPEATED for name, _ in scope["headers"]):
            return None
        began = time.perf_counter()
        own_id = new_request_id()
        self._lines.warn(
            "a request got no answer",
            FAILURES_SAID,
            code=self._problem.code,
            request_id=own_id,
            trace_id=None,
            principal=ANONYMOUS,
            route=ROUTE,
            status=self._problem.spec.status,
        )
        head = b"".join(b"%b: %b\r\n" % each for each in server_headers)
        answer = (
            b"HTTP/1.1 503 Service Unavailable\r\n" + head + self._answer.replace(_SOME_ID.encode(), own_id.encode())
        )
        self._count.inc()
        self._duration.observe(time.perf_counter() - began)
        return answer
