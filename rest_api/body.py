"""A request's body: read within a cap and a time, then parsed strictly, with a problem that says what to correct."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rest_api.dependencies import services
from rest_api.problems import Problem

BODY_CAP: Final = 512 * 1024
BATCH_BODY_CAP: Final = 8 * 1024 * 1024

Body = TypeVar("Body", bound=BaseModel)


def media_type(request: Request) -> str:
    """The media type of the body, lower case, without parameters; empty if none is named."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def want_json(request: Request) -> None:
    """Refuse a body that does not say it is JSON.

    Raises:
        Problem: 415. It also keeps other sites' plain forms out, which cannot send this type without asking first.
    """
    if media_type(request) != "application/json":
        raise Problem("unsupported-media-type", "send application/json")


async def read_body(request: Request, cap: int, timeout_s: float) -> bytes:
    """Return the body. More than ``cap`` bytes are never held, whatever Content-Length says.

    Args:
        request: Whose.
        cap: The most bytes.
        timeout_s: The caller's deadline, 30 s at most; ``heads`` ends the connection a second after that.

    Raises:
        Problem: 413, 408 when it does not come in time, or 503 when too much of other bodies is held.
    """
    with services(request).bodies.one() as grow:
        return await read_counted(request, cap, timeout_s, grow)


async def read_counted(request: Request, cap: int, timeout_s: float, grow: Callable[[int], bool]) -> bytes:
    """The same, for a body that still counts when it is there: ``grow`` is of ``Bodies.one``."""
    length = request.headers.get("content-length")
    if length is not None and length.isdigit() and int(length[:19]) > cap:
        raise _too_large(cap)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > cap:
                    raise _too_large(cap)
                if not grow(size):
                    raise Problem("in-flight-limit", "too many large bodies are on their way to this pod")
                chunks.append(chunk)
    except TimeoutError:
        raise Problem("body-timeout", f"the body did not arrive within {timeout_s:g} s") from None
    request.scope["signer_flow.read_at"] = time.perf_counter()
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(cap: int) -> Problem:
    return Problem("body-too-large", f"at most {cap} bytes are taken here")


def parse(model: type[Body], body: bytes) -> Body:
    """Return the body as ``model``.

    Raises:
        Problem: 400 if it is not JSON, else 422 with the fields.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _of_validation(model, error) from None


def parse_item(model: type[Body], value: object) -> Body:
    """Return one already decoded value as ``model``. Raises as ``parse``, never 400."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _of_validation(model, error) from None


def _of_validation(model: type[BaseModel], error: ValidationError) -> Problem:
    found = error.errors(include_url=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        # What the parser missed, and where; nothing of the body.
        return Problem("invalid-json", f"the body is not JSON: {found[0]['ctx']['error']}")
    errors = [(".".join(map(str, each["loc"])) or "body", _plain(model, each)) for each in found[:10]]
    return Problem("invalid-request", "; ".join(f"{field}: {detail}" for field, detail in errors[:3]), errors)


def _plain(model: type[BaseModel], error: ErrorDetails) -> str:
    match error["type"]:
        case "extra_forbidden":
            return f"unknown field; there are {', '.join(model.model_fields)}"
        case "missing":
            return "is missing"
        case "string_type":
            return "must be a string"
        case "model_type":
            return "must be a JSON object"
        case "too_short":
            return f"at least {error['ctx']['min_length']}, not {error['ctx']['actual_length']}"
        case "too_long":
            return f"at most {error['ctx']['max_length']}, not {error['ctx']['actual_length']}"
        case _:
            return error["msg"]
