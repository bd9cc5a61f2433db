"""GET /healthz and /readyz on the front port; the admin port has the same, where callers cannot crowd a probe out."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from common.observability.admin import Health
from rest_api.dependencies import services
from rest_api.health import liveness, readiness
from rest_api.models import HealthResponse
from rest_api.routes.answers import as_json

router = APIRouter(tags=["health"])

_DOCS: dict[int | str, dict[str, Any]] = {200: {"model": HealthResponse}, 503: {"model": HealthResponse}}


def _answer(health: Health) -> Response:
    body = {"status": "ok" if health.ok else "unavailable", "checks": dict(health.checks)}
    return as_json(body, 200 if health.ok else 503)


@router.get("/healthz", summary="Are we alive?", responses=_DOCS)
async def healthz(request: Request) -> Response:
    """Heartbeat of our own loops; never a question to the broker."""
    return _answer(liveness(services(request).gateway.standing))


@router.get("/readyz", summary="Can we serve?", responses=_DOCS)
async def readyz(request: Request) -> Response:
    """Positioned, broker up, a key known, room for requests, and our index our own."""
    return _answer(readiness(services(request).gateway.standing))
