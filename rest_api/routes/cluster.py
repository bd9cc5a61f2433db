"""GET /v1/cluster: the system as this pod hears it."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from common.ids import Index, KeyId
from rest_api.dependencies import services
from rest_api.gateway.core import Gateway
from rest_api.models import ClusterResponse
from rest_api.routes import committee
from rest_api.routes.answers import as_json

router = APIRouter(tags=["cluster"])


@router.get("/v1/cluster", summary="Replicas, pods, quorum, ceremonies", responses={200: {"model": ClusterResponse}})
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


def _key(gateway: Gateway, key_id: KeyId) -> dict[str, Any]:
    epoch = committee.epoch_of(gateway, key_id)
    said = committee.heard(gateway, key_id).values()
    threshold = gateway.keys.threshold(key_id)
    return {
        "key_id": key_id,
        "epoch": epoch,
        "quorum_margin": sum(key.holds_share and key.epoch >= epoch for key in said) - threshold,
        "threshold": threshold,
        **committee.times(gateway, key_id),
        "ceremony": committee.ceremony(gateway, key_id),
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
