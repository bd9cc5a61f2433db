"""GET and POST /sign: a form that needs no JavaScript and is better with it; /docs; and the files of both."""

import base64
from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import Response

from common.errors import BadInput, Unavailable
from common.observability.logging import get_logger
from common.wire.messages import MAX_MESSAGE_BYTES
from rest_api import web
from rest_api.body import BODY_CAP, media_type, read_body
from rest_api.callers import Caller
from rest_api.dependencies import (
    admit,
    charge,
    check_allowed,
    choose_key,
    deadline_ms,
    identify,
    of_bad_input,
    of_unavailable,
    request_id,
    same_site,
    services,
)
from rest_api.models import check_message
from rest_api.problems import TABLE, Problem, invalid
from rest_api.routes.answers import signature_or_problem, trace_of
from rest_api.routes.keys import fingerprint

router = APIRouter(include_in_schema=False)

FIELD: Final = "text"
_URLENCODED: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"
_log = get_logger(__name__)


@router.get("/")
async def begin() -> Response:
    """Whoever typed no more than the address."""
    return Response(status_code=307, headers={"Location": "/sign"})


@router.get("/sign")
async def show(request: Request) -> Response:
    """The empty form."""
    return _page(request, 200, {})


@router.post("/sign")
async def submit(request: Request) -> Response:
    """Sign the form's text; the answer is the page, or for ``Accept: text/plain`` the one line."""
    text = ""
    try:
        same_site(request)
        caller = identify(request)
        timeout_ms = deadline_ms(request)
        admit(request, timeout_ms)
        charge(request, caller)
        text = await _read_text(request, timeout_ms / 1000)
        answer = await _sign(request, caller, text, timeout_ms)
    except Problem as refused:
        answer = {"problem": refused}
    problem: Problem | None = answer.get("problem")
    status = 200 if problem is None else problem.spec.status
    if _wants_plain(request):
        return _plain(answer, status)
    return _page(request, status, {**answer, "text": text})


async def _sign(request: Request, caller: Caller, text: str, timeout_ms: int) -> dict[str, Any]:
    try:
        message = text.encode()
        check_message(message)
        gateway = services(request).gateway
        key_id = choose_key(request, None)
        check_allowed(caller, key_id)
        own_id = request_id(request)
        pending = gateway.submit(own_id, key_id, message, caller.principal, timeout_ms, trace=trace_of(request))
    except BadInput as error:
        raise of_bad_input(error) from None
    except Unavailable as error:
        raise of_unavailable(error) from None
    signed = signature_or_problem(gateway, own_id, key_id, message, await pending)
    return {"signed": signed, "size": len(message)}


async def _read_text(request: Request, timeout_s: float) -> str:
    """The field ``text`` of the form, in either encoding of HTML forms."""
    kind = media_type(request)
    if kind not in {_URLENCODED, _MULTIPART}:
        raise Problem("unsupported-media-type", f"send the form as {_URLENCODED} or {_MULTIPART}")
    body = await read_body(request, BODY_CAP, timeout_s)
    try:
        if kind == _URLENCODED:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=16)
        else:
            pairs = await _read_multipart(request, body)
    except (ValueError, MultiPartException, KeyError):
        # UnicodeDecodeError is a ValueError; KeyError: a multipart body without a boundary.
        raise Problem("bad-request", "the form cannot be read: it must be UTF-8, with at most 16 fields") from None
    found = [value for name, value in pairs if name == FIELD]
    if len(found) != 1:
        raise invalid(FIELD, "is missing" if not found else "stands more than once")
    try:
        found[0].encode()
    except UnicodeEncodeError:
        # A multipart body may name a charset that gives such; on the page that shows the text again it could not stand.
        raise invalid(FIELD, "half of a surrogate pair is no character") from None
    return found[0]


async def _read_multipart(request: Request, body: bytes) -> list[tuple[str, str]]:
    async def chunks() -> Any:
        yield body
        yield b""

    parser = MultiPartParser(request.headers, chunks(), max_files=0, max_fields=16, max_part_size=BODY_CAP)
    form: FormData = await parser.parse()
    return [(name, value) for name, value in form.multi_items() if isinstance(value, str)]


def _wants_plain(request: Request) -> bool:
    accept = request.headers.get("accept", "").lower()
    return "text/plain" in accept and "text/html" not in accept


def _line(answer: dict[str, Any]) -> str:
    problem: Problem | None = answer.get("problem")
    return f"ok: {answer['signed']['signature']}" if problem is None else f"err: {problem.detail}"


def _headers(answer: dict[str, Any]) -> dict[str, str]:
    problem: Problem | None = answer.get("problem")
    return {"Cache-Control": "no-store"} if problem is None else problem.headers()


def _plain(answer: dict[str, Any], status: int) -> Response:
    return Response(_line(answer) + "\n", status_code=status, media_type="text/plain", headers=_headers(answer))


def _page(request: Request, status: int, answer: dict[str, Any]) -> Response:
    keys = services(request).gateway.keys
    seats = sorted(keys.seats())
    shown = [
        {
            "key_id": record.key_id,
            "public_key": base64.b64encode(record.public_key).decode(),
            "fingerprint": fingerprint(record.public_key),
            "epoch": record.epoch,
            "threshold": record.threshold,
        }
        for record in keys.all()
    ]
    # Where a browser, or a proxy before us, keeps the script from working, the plain form is one address away.
    scripted = "plain" not in request.query_params
    html = web.render(
        "sign.html",
        keys=shown,
        seats=seats,
        line=_line(answer) if answer else None,
        scripted=scripted,
        tokens_needed=services(request).callers.tokens_needed,
        cap=MAX_MESSAGE_BYTES,
        **({"text": ""} | answer),
    )
    policy = web.CSP_SCRIPTED if scripted else web.CSP
    return Response(
        html,
        status_code=status,
        media_type="text/html",
        headers={"Content-Security-Policy": policy, **_headers(answer)},
    )


@router.get("/static/{name}")
async def static(request: Request, name: str) -> Response:
    """The style sheet and the scripts; only names that the package ships are known."""
    found = web.STATIC.get(name)
    if found is None:
        raise Problem("not-found", "there is nothing at this address")
    # Asked for anew each time, for a few bytes: after an upgrade no page may mix old scripts with new ones.
    headers = {"Cache-Control": "no-cache", "ETag": found.etag}
    if found.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.kind, headers=headers)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Every route with an example to copy, out of the OpenAPI document."""
    host = request.headers.get("host", "127.0.0.1")
    html = web.render(
        "docs.html",
        api=request.app.openapi(),
        problems=TABLE,
        base=f"{request.url.scheme}://{host}",
        key_id=next(iter(services(request).gateway.keys.names()), "default"),
        tokens_needed=services(request).callers.tokens_needed,
    )
    return Response(html, media_type="text/html", headers={"Content-Security-Policy": web.CSP})
