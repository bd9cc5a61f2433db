"""Outcomes of the gateway as JSON, without a model in between: these run once per signature."""

import base64
import hashlib
from typing import Any, Final

import orjson
from fastapi import Request
from starlette.responses import Response

from common.ids import KeyId, RequestId
from common.observability.tracing import TraceContext
from common.wire.messages import MAX_DEADLINE_MS, Refused, Signed
from rest_api import problems
from rest_api.correlation import End
from rest_api.dependencies import TIMEOUT_HEADER, services, trace_given
from rest_api.gateway.core import Gateway, Result
from rest_api.gateway.key_directory import NO_SUCH_KEY
from rest_api.models import ProblemBody
from rest_api.problems import DEADLINE_DETAIL, Problem

JSON_BODY = "application/json"
_RETRY_AFTER: Final = {
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}, "required": False}
}


def as_json(body: object, status: int = 200) -> Response:
    """Return a JSON answer."""
    return Response(orjson.dumps(body), status_code=status, media_type=JSON_BODY, headers={"Cache-Control": "no-store"})


def signature_or_problem(
    gateway: Gateway, request_id: RequestId, key_id: KeyId, message: bytes, result: Result
) -> dict[str, Any]:
    """Return the JSON object of a signature.

    Raises:
        Problem: there is none, and this says why.
    """
    if not isinstance(result, Signed):
        raise problem_of(result)
    record = gateway.keys.believed(key_id)
    if record is None:  # the key left the roster while it was signing
        raise Problem("unknown-key", NO_SUCH_KEY)
    return {
        "request_id": request_id,
        "key_id": key_id,
        "epoch": result.epoch,
        "algorithm": "Ed25519",
        "signature": base64.b64encode(result.signature).decode(),
        "public_key": base64.b64encode(record.public_key).decode(),
        "message_sha256": hashlib.sha256(message).hexdigest(),
        "signers": result.signers,
    }


def problem_of(result: Result) -> Problem:
    """The problem that an outcome without a signature is."""
    match result:
        case Refused():
            return problems.of_refusal(result)
        case End.DEADLINE:
            return problems.deadline()
        case End.ABANDONED:
            return Problem("interrupted", DEADLINE_DETAIL)
        case End.UNSENT:
            return Problem("broker-unavailable", "the request could not be handed to the message broker")
        case _:
            return Problem("internal", "the signers answered something else than was asked")


def outcome_code(result: Result) -> str | None:
    """The problem's code of an outcome, for a span; None for a signature."""
    return None if isinstance(result, Signed) else problem_of(result).code


def trace_of(request: Request) -> TraceContext | None:
    """Our own span of this request; where none is made, what the caller's header names."""
    spans = services(request).spans
    return trace_given(request.scope) if spans is None else spans.current()


TAKES_TIMEOUT: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": TIMEOUT_HEADER,
            "in": "header",
            "description": "How long the caller waits, in milliseconds; by default as this pod's settings say.",
            "schema": {"type": "integer", "minimum": 1, "maximum": MAX_DEADLINE_MS},
        }
    ]
}
"""OpenAPI's parameters of a route with a deadline."""


def body_of(model: str, media_type: str = JSON_BODY) -> dict[str, Any]:
    """OpenAPI's requestBody and headers for a route that reads them itself."""
    schema = {"$ref": f"#/components/schemas/{model}"}
    return {
        "requestBody": {"required": True, "content": {media_type: {"schema": schema}}},
        **TAKES_TIMEOUT,
    }


def problem_docs(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's responses for errors."""
    titles = {row.status: row.title for row in reversed(list(problems.TABLE.values()))}
    return {
        status: {
            "description": titles[status],
            "model": ProblemBody,
            "content": {problems.MEDIA_TYPE: {}},
            **({"headers": _RETRY_AFTER} if status in {429, 503} else {}),
        }
        for status in statuses
    }
