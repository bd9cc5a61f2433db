"""GET /v1/cluster: the system as this pod hears it."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from common.ids import Index, KeyId
from common.wire.messages import KeyPresence
from rest_api.dependencies import services
from rest_api.gateway.core import Gateway
from rest_api.models import ClusterResponse
from rest_api.routes.answers import as_json

router = APIRouter(tags=["cluster"])


@router.get("/v1/cluster", summary="Replicas, pods, quorum", responses={200: {"model": ClusterResponse}})
async def cluster(request: Request) -> Response:
    """Return replicas with what they say of themselves, quorum margins, ceremonies, and API pods."""
    gateway = services(request).gateway
    return as_json(
        {
            "keys": [_key(gateway, key_id) for key_id in gateway.keys.names()],
            "replicas": [_replica(gateway, seat) for seat in sorted(gateway.keys.seats())],
            "apis": gateway.pods.listed(),
        }
    )


def _heard(gateway: Gateway, key_id: KeyId) -> dict[Index, KeyPresence]:
    """What live seats say of a key."""
    routing = gateway.routing
    return {
        seat: key
        for seat, view in routing.seats.items()
        if routing.fresh(seat)
        for key in view.beat.keys
        if key.key_id == key_id
    }


def _key(gateway: Gateway, key_id: KeyId) -> dict[str, Any]:
    record = gateway.keys.believed(key_id)
    epoch = 0 if record is None else record.epoch
    heard = _heard(gateway, key_id)
    holders = sum(key.holds_share and key.epoch >= epoch for key in heard.values())
    running = [key for key in heard.values() if key.phase not in {"", "idle"}]
    ceremony: dict[str, Any] | None = None
    if running:
        # Seats may be a record apart: the one that is furthest says where it is.
        newest = max(running, key=lambda key: (key.fold_offset, key.attempt))
        ceremony = {
            "kind": "generate" if record is None else "reshare",
            "phase": newest.phase,
            "attempt": newest.attempt,
            "awaited": list(newest.awaited),
        }
    return {
        "key_id": key_id,
        "epoch": epoch,
        "quorum_margin": holders - gateway.keys.threshold(key_id),
        "ceremony": ceremony,
    }


def _replica(gateway: Gateway, seat: Index) -> dict[str, Any]:
    view = gateway.routing.seats.get(seat)
    if view is None:
        return {
            "index": seat,
            "state": "unknown",
            "epochs": {},
            "boot_id": None,
            "last_seen_ms": None,
            "in_flight": 0,
            "queue_wait_ms": 0,
            "skew_ms": None,
            "partitions": [],
        }
    return {
        "index": seat,
        "state": view.beat.state.value if gateway.routing.fresh(seat) else "silent",
        "epochs": {key.key_id: key.epoch for key in view.beat.keys},
        "boot_id": view.boot_id,
        "last_seen_ms": gateway.routing.silence_ms(seat),
        "in_flight": view.beat.in_flight,
        "queue_wait_ms": view.beat.queue_wait_ms,
        "skew_ms": view.beat.clock_skew_ms,
        "partitions": list(view.beat.partitions),
    }
