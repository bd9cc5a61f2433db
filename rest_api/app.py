"""The composition root of the HTTP edge: ``create_app(settings)``. It reads the files; the lifespan does the rest."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.responses import Response

from common.ids import PodIndex
from common.kafka.client import KafkaClient
from common.kafka.port import Hooks
from common.observability.admin import AdminServer
from common.observability.kafka_statistics import KafkaStatistics
from common.observability.logging import get_logger
from common.observability.metrics import Metrics
from common.observability.spans import Spans
from rest_api import problems
from rest_api.attendance import Sockets
from rest_api.callers import Callers
from rest_api.capacity import Batches, Bodies
from rest_api.dependencies import Services
from rest_api.direct import DirectRoutes
from rest_api.gateway.config import GatewayConfig
from rest_api.gateway.core import Gateway
from rest_api.health import liveness, readiness
from rest_api.middleware import EveryRequest
from rest_api.models import REQUESTS
from rest_api.problems import Problem
from rest_api.routes import cluster, health, keys, page, sign, sign_ws
from rest_api.settings import Settings
from rest_api.trust_files import TrustFiles, read_trust_files
from rest_api.turns import InTurn, Turns
from rest_api.turnstile import STATE, Turnstile

VERSION = "0.1.0"
DESCRIPTION = "Plain Ed25519 signatures (RFC 8032) from a key that no machine holds."
ADMIN_BASE_PORT = 9100
NEED_TOKEN = ("/v1/sign", "/v1/sign/batch", "/v1/keys/{key_id}/refresh")
PROBES = frozenset({"/healthz", "/readyz"})
"""Nobody looks for a trace of these."""
_log = get_logger(__name__)


def end_process(detail: str) -> None:
    """Ask this process to end in order; the reason was logged."""
    os.kill(os.getpid(), signal.SIGTERM)


def create_app(
    settings: Settings, *, on_fatal: Callable[[str], None] = end_process, spans: Spans | None = None
) -> FastAPI:
    """Return the application; it connects when its lifespan begins.

    Args:
        settings: What this pod was told.
        on_fatal: Told once when the process cannot go on.
        spans: Where spans go; None: nowhere, and none are made. Whoever gives it closes it.

    Raises:
        BadInput: a key file, the token file or the roster is missing, open to others, or wrong: one line, with what
            to do.
    """
    trust = read_trust_files(settings)
    callers = Callers(settings.tokens_file, settings.rate_of_addresses, settings.trusted_proxies)
    metrics = Metrics()
    turns = Turns()
    app = FastAPI(
        title="signer-flow",
        version=VERSION,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(settings, trust, callers, metrics, turns, on_fatal, spans),
        telemetry=_telemetry(spans),
    )
    app.add_middleware(InTurn, turns=turns)
    if spans is None:
        # With spans the router is asked always: the framework names a request's span by the route that it found.
        app.add_middleware(DirectRoutes, posts=sign.DIRECT)
    app.add_middleware(EveryRequest, metrics=metrics, hosts=settings.hosts, spans=spans)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation)
    for routes in (sign, sign_ws, keys, cluster, health, page):
        app.include_router(routes.router)
    _document(app)
    return app


def _lifespan(
    settings: Settings,
    trust: TrustFiles,
    callers: Callers,
    metrics: Metrics,
    turns: Turns,
    on_fatal: Callable[[str], None],
    spans: Spans | None,
) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        index = PodIndex(settings.pod_index)

        def fatal(detail: str) -> None:
            _log.error("this process cannot go on", detail=detail)
            on_fatal(detail)

        kafka = KafkaClient(settings.kafka(), Hooks(on_fatal=fatal, on_statistics=KafkaStatistics(metrics).take))
        config = GatewayConfig(
            index=index,
            pending_limit=settings.pending_limit_items,
            suspect_after_s=settings.suspect_after_ms / 1000,
            beat_interval_s=settings.beat_interval_ms / 1000,
        )
        gateway = Gateway(kafka, trust.directory(settings), config, trust.edge_key, metrics, fatal, spans)

        def rendered() -> bytes:
            gateway.standing.observe()
            return metrics.render()

        port = settings.admin_port if settings.admin_port is not None else ADMIN_BASE_PORT + index
        admin = AdminServer(
            settings.admin_host, port, lambda: liveness(gateway.standing), lambda: readiness(gateway.standing), rendered
        )
        await admin.start()
        app.state.services = Services(
            settings,
            gateway,
            metrics,
            Batches(settings.pending_limit_items),
            Bodies(),
            turns,
            callers,
            Sockets(),
            spans,
        )
        app.state.admin_port = admin.port
        gateway.start()

        def look_at_keys() -> None:
            if strangers := callers.strangers(gateway.keys.names()):
                _log.warning("tokens name keys that the roster does not have", tokens=strangers)

        def tell_of_tokens(wrong: str) -> None:
            _tell_of_tokens(wrong)
            if not wrong:
                look_at_keys()

        look_at_keys()
        watching = asyncio.create_task(callers.watch(tell_of_tokens))
        try:
            # With spans a refusal has one, too: the framework makes it.
            yield {} if spans is not None else {STATE: Turnstile(gateway.standing.full, config.full_detail, metrics)}
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await gateway.close()
            await admin.close()

    return lifespan


def _telemetry(spans: Spans | None) -> TelemetryConfig:
    """The framework makes the spans of requests, for us; whatever else it would tell a collector it does not.

    Its logs would carry exceptions' texts past our redaction, its operation spans hold bodies, and an environment
    variable of its own would turn all of that on.
    """
    return {
        "tracer_provider": None if spans is None else spans.provider,
        "tracing": spans is not None,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
        "exclude": lambda scope: scope["path"] in PROBES,
    }


def _tell_of_tokens(wrong: str) -> None:
    if wrong:
        _log.error("the new token file is refused, and the tokens of before go on", detail=wrong)
    else:
        _log.info("the token file was read again")


def _id(request: Request) -> str:
    return str(request.scope["signer_flow.request_id"])


async def _problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):
        raise error
    request.scope["signer_flow.problem"] = error.code
    return problems.respond(error, _id(request))


async def _http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    response = problems.respond(problems.of_status(error.status_code), _id(request))
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def _validation(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    found = [(".".join(map(str, each["loc"])), str(each["msg"])) for each in error.errors()[:10]]
    return problems.respond(Problem("invalid-request", "the request does not fit", found), _id(request))


def _document(app: FastAPI) -> None:
    """Add the bodies that the routes read themselves, and which need a token, to the OpenAPI document."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            _, extra = models_json_schema(
                [(model, "validation") for model in REQUESTS], ref_template="#/components/schemas/{model}"
            )
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(extra["$defs"])
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path in NEED_TOKEN:
                # Either none or a token: which of them, this pod's settings say.
                document["paths"][path]["post"]["security"] = [{}, {"token": []}]
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
