"""Public keys in the forms that other tools read, and the request to refresh one."""

import base64
import hashlib
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from common.errors import Unavailable
from common.ids import KeyId
from common.wire.messages import Accepted, KeyRecord, Mode
from rest_api.dependencies import (
    admit,
    charge,
    check_allowed,
    choose_key,
    deadline_ms,
    identify,
    of_unavailable,
    request_id,
    same_site,
    services,
)
from rest_api.gateway.core import Gateway, Result
from rest_api.gateway.key_directory import NO_SUCH_KEY
from rest_api.models import JwkSet, KeyInfo, KeysResponse, RefreshResponse
from rest_api.problems import Problem
from rest_api.routes import committee
from rest_api.routes.answers import TAKES_TIMEOUT, as_json, problem_docs, problem_of, trace_of

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
    return {
        "key_id": record.key_id,
        "algorithm": "Ed25519",
        "public_key": base64.b64encode(record.public_key).decode(),
        "public_key_pem": pem(record.public_key),
        "jwk": jwk(record.key_id, record.public_key),
        "fingerprint": fingerprint(record.public_key),
        "epoch": record.epoch,
        "threshold": record.threshold,
        # Of the epoch, like the threshold: while a committee changes, the roster names the next one already.
        "signers": len(gateway.keys.committee(record.key_id)[1]),
        **committee.times(gateway, record.key_id),
        "ceremony": committee.ceremony(gateway, record.key_id),
    }


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
        raise Problem("unknown-key", NO_SUCH_KEY)
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
    openapi_extra=TAKES_TIMEOUT,
    responses={
        202: {
            "model": RefreshResponse,
            "description": "It was asked for; the key tells of its phases, and of the new epoch when it is over.",
            "headers": {"Location": {"description": "Where to look.", "schema": {"type": "string"}}},
        },
        **problem_docs(401, 403, 404, 409, 422, 429, 500, 503, 504),
    },
)
async def refresh(request: Request, key_id: KeyName) -> Response:
    """Ask the committee to replace the key's shares. The public key stays, and signing goes on."""
    # There is no body whose media type would keep a page of another site out.
    same_site(request)
    gateway = services(request).gateway
    caller = identify(request)
    timeout_ms = deadline_ms(request)
    charge(request, caller)
    chosen = choose_key(request, key_id)
    check_allowed(caller, chosen)
    admit(request, timeout_ms)
    missing = committee.shortage(gateway, chosen)
    if missing:
        raise Problem("quorum-lost", missing)
    own_id = request_id(request)
    try:
        pending = gateway.submit(
            own_id, chosen, b"", caller.principal, timeout_ms, trace=trace_of(request), mode=Mode.REFRESH
        )
    except Unavailable as error:
        raise of_unavailable(error) from None
    result = await pending
    if not isinstance(result, Accepted):
        raise _not_accepted(gateway, chosen, result)
    location = f"/v1/keys/{chosen}"
    body = {"request_id": own_id, "key_id": chosen, "epoch": result.epoch, "location": location}
    answer = as_json(body, 202)
    answer.headers["Location"] = location
    return answer


def _not_accepted(gateway: Gateway, key_id: KeyId, result: Result) -> Problem:
    """Why there is no refresh. What seats say of it in words was written for us, and is not passed on."""
    problem = problem_of(result)
    match problem.code:
        case "ceremony-running":
            return Problem(problem.code, committee.in_words(key_id, committee.ceremony(gateway, key_id)))
        case "quorum-lost":
            missing = committee.shortage(gateway, key_id)
            return Problem(problem.code, missing or "the replicas do not agree that a refresh may begin now; try again")
        case "refresh-too-soon":
            return Problem(problem.code, f"the last ceremony of {key_id} was a moment ago: ask again later")
        case "refresh-unavailable":
            return Problem(problem.code, "the ceremony log is in doubt; the operator of this service has to look at it")
        case "deadline" | "interrupted":
            return Problem(problem.code, f"no replica answered in time; GET /v1/keys/{key_id} shows what came of it")
        case _:
            return problem
