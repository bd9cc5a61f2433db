"""Public keys in the forms that other tools read, and the request to refresh one."""

import base64
import hashlib
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from common.ids import KeyId
from common.wire.messages import KeyPresence, KeyRecord
from rest_api.dependencies import charge, check_allowed, choose_key, identify, services
from rest_api.gateway.core import Gateway
from rest_api.models import JwkSet, KeyInfo, KeysResponse
from rest_api.problems import Problem
from rest_api.routes.answers import as_json, problem_docs

router = APIRouter(tags=["keys"])
KeyName = Annotated[str, Path(description="Which key.", examples=["default"])]

_SPKI: Final = bytes.fromhex("302a300506032b6570032100")
"""RFC 8410, 4: SubjectPublicKeyInfo of Ed25519, up to the 32 bytes of the key."""


def pem(public_key: bytes) -> str:
    """The key as a PEM file that OpenSSL reads."""
    body = base64.b64encode(_SPKI + public_key).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"


def jwk(key_id: KeyId, public_key: bytes) -> dict[str, str]:
    """The key as a JWK: RFC 8037, 2, with the fully specified algorithm of RFC 9864."""
    x = base64.urlsafe_b64encode(public_key).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "alg": "Ed25519", "use": "sig", "kid": key_id, "x": x}


def fingerprint(public_key: bytes) -> str:
    """``SHA256:`` and the unpadded base64 of the SHA-256 of the 32 bytes."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public_key).digest()).rstrip(b"=").decode()


def describe(gateway: Gateway, record: KeyRecord) -> dict[str, Any]:
    """One key as ``GET /v1/keys`` shows it."""
    routing = gateway.routing
    said = [
        key
        for seat, view in routing.seats.items()
        if routing.fresh(seat)
        for key in view.beat.keys
        if key.key_id == record.key_id and key.epoch == record.epoch
    ]
    return {
        "key_id": record.key_id,
        "algorithm": "Ed25519",
        "public_key": base64.b64encode(record.public_key).decode(),
        "public_key_pem": pem(record.public_key),
        "jwk": jwk(record.key_id, record.public_key),
        "fingerprint": fingerprint(record.public_key),
        "epoch": record.epoch,
        "threshold": record.threshold,
        "signers": len(gateway.keys.seats()),
        "last_refresh": _moment(said, "last_refresh_ms"),
        "next_refresh": _moment(said, "next_due_ms"),
    }


def _moment(said: list[KeyPresence], name: str) -> str | None:
    """What most live seats say (one that lies is outvoted), as RFC 3339."""
    votes = Counter(value for key in said if (value := getattr(key, name)) > 0)
    if not votes:
        return None
    try:
        moment = datetime.fromtimestamp(votes.most_common(1)[0][0] / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@router.get("/v1/keys", summary="All public keys", responses={200: {"model": KeysResponse}})
async def all_keys(request: Request) -> Response:
    """Return every key that this pod believes, the default first."""
    gateway = services(request).gateway
    return as_json({"keys": [describe(gateway, record) for record in gateway.keys.all()]})


@router.get(
    "/v1/keys/{key_id}",
    summary="One public key",
    responses={200: {"model": KeyInfo}, **problem_docs(404, 503)},
)
async def one_key(request: Request, key_id: KeyName) -> Response:
    """Return one key."""
    gateway = services(request).gateway
    record = gateway.keys.believed(choose_key(request, key_id))
    if record is None:
        raise Problem("unknown-key", "there is no key of that name")
    return as_json(describe(gateway, record))


@router.get("/.well-known/jwks.json", summary="All public keys as a JWK set", responses={200: {"model": JwkSet}})
async def jwks(request: Request) -> Response:
    """Return the keys as RFC 7517 has it."""
    keys = services(request).gateway.keys.all()
    return as_json({"keys": [jwk(record.key_id, record.public_key) for record in keys]})


@router.post(
    "/v1/keys/{key_id}/refresh",
    summary="Ask for a refresh now",
    status_code=202,
    responses=problem_docs(401, 403, 404, 429, 501, 503),
)
async def refresh(request: Request, key_id: KeyName) -> Response:
    """Ask the committee to replace the key's shares. The public key stays."""
    caller = identify(request)
    charge(request, caller)
    check_allowed(caller, choose_key(request, key_id))
    raise Problem("refresh-unavailable", "this version replaces no shares on request")
