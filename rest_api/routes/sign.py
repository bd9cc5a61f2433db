"""POST /v1/sign, /v1/sign/batch and /v1/verify.

The handlers read their bodies themselves: a request is refused before its body is read when the pod is full, no more
than the cap is ever held, and nothing but the strict parser and one dictionary stands between a body and its answer.
"""

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from common import ed25519
from common.errors import BadInput, Unavailable
from common.ids import KeyId
from rest_api.body import BATCH_BODY_CAP, BODY_CAP, parse, parse_item, read_body, read_counted, want_json
from rest_api.dependencies import (
    admit,
    charge,
    check_allowed,
    choose_key,
    deadline_ms,
    identify,
    new_request_id,
    of_bad_input,
    of_unavailable,
    request_id,
    services,
    visitor,
)
from rest_api.gateway.core import Result
from rest_api.models import (
    BatchItem,
    BatchRequest,
    BatchResponse,
    SignRequest,
    SignResponse,
    VerifyRequest,
    VerifyResponse,
    message_of,
    unbase64,
)
from rest_api.problems import Problem, invalid
from rest_api.routes.answers import as_json, body_of, problem_docs, signature_or_problem, trace_of

router = APIRouter(tags=["signing"])

_ERRORS: Final = (400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503, 504)


@router.post(
    "/v1/sign",
    summary="Sign one message",
    openapi_extra=body_of("SignRequest"),
    responses={200: {"model": SignResponse}, **problem_docs(*_ERRORS)},
)
async def sign(request: Request) -> Response:
    """Return a plain Ed25519 signature (RFC 8032) over the message, made by the key's committee."""
    gateway = services(request).gateway
    caller = identify(request)
    timeout_ms = deadline_ms(request)
    admit(request, timeout_ms)
    want_json(request)
    charge(request, caller)
    asked = parse(SignRequest, await read_body(request, BODY_CAP, timeout_ms / 1000))
    try:
        message = message_of(asked.text, asked.data)
    except BadInput as error:
        raise of_bad_input(error) from None
    key_id = choose_key(request, asked.key_id)
    check_allowed(caller, key_id)
    own_id = request_id(request)
    try:
        pending = gateway.submit(own_id, key_id, message, caller.principal, timeout_ms, trace=trace_of(request))
    except Unavailable as error:
        raise of_unavailable(error) from None
    return as_json(signature_or_problem(gateway, own_id, key_id, message, await pending))


@router.post(
    "/v1/sign/batch",
    summary="Sign up to 1000 messages",
    openapi_extra=body_of("BatchRequest"),
    responses={200: {"model": BatchResponse}, **problem_docs(*_ERRORS)},
)
async def sign_batch(request: Request) -> Response:
    """Return one result per item, in order: a signature, or a reference and its error. A bad item fails alone."""
    caller = identify(request)
    timeout_ms = deadline_ms(request)
    ends_at = asyncio.get_running_loop().time() + timeout_ms / 1000
    admit(request, timeout_ms)
    want_json(request)
    batches = services(request).batches
    if batches.full():
        raise Problem("in-flight-limit", "too many batches are under way")
    charge(request, caller)  # the first item, so that nobody sends large bodies for nothing
    with services(request).bodies.one() as grow:
        body = await read_counted(request, BATCH_BODY_CAP, timeout_ms / 1000, grow)
        await batches.enter(ends_at)  # only now: whoever sends his body slowly holds no place
    try:
        asked = parse(BatchRequest, body)
        del body  # up to 8 MiB, for as long as the signatures take
        limit = services(request).settings.batch_limit_items
        if len(asked.items) > limit:
            raise invalid("items", f"at most {limit} items")
        charge(request, caller, len(asked.items) - 1, whole=len(asked.items))
        key_id = choose_key(request, asked.key_id)
        check_allowed(caller, key_id)
        rows = [_Row(request, key_id, value) for value in asked.items]
        await _submit_all(request, rows, key_id, caller.principal, ends_at)
        waiting = [row.pending for row in rows if row.pending is not None]
        if waiting:
            await asyncio.wait(waiting)
        return as_json({"results": [row.result() for row in rows]})
    finally:
        batches.leave()


class _Row:
    """One item on its way."""

    __slots__ = ("gateway", "key_id", "message", "pending", "problem", "reference", "request_id")

    def __init__(self, request: Request, key_id: KeyId, value: Any) -> None:
        self.gateway = services(request).gateway
        self.key_id = key_id
        self.request_id = new_request_id()
        self.problem: Problem | None = None
        self.pending: asyncio.Future[Result] | None = None
        self.message = b""
        given = value.get("reference") if isinstance(value, dict) else None
        self.reference = given if isinstance(given, str) else None
        try:
            item = parse_item(BatchItem, value)
            self.message = message_of(item.text, item.data)
        except Problem as problem:
            self.problem = problem
            self.reference = None if self.reference is None else self.reference[:256]
        except BadInput as error:
            self.problem = of_bad_input(error)

    def result(self) -> dict[str, Any]:
        """The item's object in the answer."""
        problem = self.problem
        if problem is None and self.pending is not None:
            try:
                done = signature_or_problem(
                    self.gateway, self.request_id, self.key_id, self.message, self.pending.result()
                )
            except Problem as failed:
                problem = failed
            else:
                return {"reference": self.reference, **done}
        if problem is None:
            problem = Problem("in-flight-limit", "there was no room for this item before the deadline; it was not sent")
        return {"reference": self.reference, "error": problem.body(self.request_id)}


async def _submit_all(request: Request, rows: list[_Row], key_id: KeyId, principal: str, ends_at: float) -> None:
    """Send the good ones, as the window that all batches share lets them: half the pending limit is for the others."""
    gateway, window = services(request).gateway, services(request).batches.window
    trace = trace_of(request)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout_at(ends_at):
            for row in rows:
                if row.problem is not None:
                    continue
                await window.acquire()
                # Never 0: what has no time left was caught by the timeout around us.
                left_ms = max(1, int((ends_at - loop.time()) * 1000))
                try:
                    row.pending = gateway.submit(row.request_id, key_id, row.message, principal, left_ms, trace=trace)
                except Unavailable as error:
                    window.release()
                    row.problem = of_unavailable(error)
                else:
                    row.pending.add_done_callback(lambda _: window.release())
    except TimeoutError:
        return


@router.post(
    "/v1/verify",
    summary="Verify a signature",
    openapi_extra=body_of("VerifyRequest"),
    responses={200: {"model": VerifyResponse}, **problem_docs(400, 404, 408, 413, 415, 422, 429, 500, 503)},
)
async def verify(request: Request) -> Response:
    """Say whether a signature is valid (strict RFC 8032) under a key of this service, or under any public key."""
    timeout_ms = deadline_ms(request)
    want_json(request)
    charge(request, visitor(request))
    asked = parse(VerifyRequest, await read_body(request, BODY_CAP, timeout_ms / 1000))
    if asked.key_id is not None and asked.public_key is not None:
        raise invalid("public_key", "give key_id or public_key, not both")
    try:
        message = message_of(asked.text, asked.data, for_signing=False)
        signature = unbase64(asked.signature, "signature")
        if asked.public_key is not None:
            public_key = unbase64(asked.public_key, "public_key")
        else:
            record = services(request).gateway.keys.believed(choose_key(request, asked.key_id))
            public_key = record.public_key if record is not None else b""
    except BadInput as error:
        raise of_bad_input(error) from None
    return as_json({"valid": ed25519.verify(public_key, message, signature)})


DIRECT: Final = {"/v1/sign": sign, "/v1/sign/batch": sign_batch}
"""What ``DirectRoutes`` answers."""
