"""Errors as RFC 9457 problem documents: the one table from codes to statuses, and nothing of our insides.

A body is ``{type, title, status, detail, request_id, retryable[, errors]}``. ``type`` is ``urn:signer-flow:problem:``
and the code, and is stable: programs compare it. ``retryable`` says that the same request may do better later, and that
nothing of it was done. ``errors`` (422) names each field.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.responses import Response

from common.wire.messages import RefusalCode, Refused

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:signer-flow:problem:"


@dataclass(frozen=True, slots=True)
class ProblemSpec:
    """One row of the table."""

    status: int
    title: str
    retryable: bool = False
    retry_after_s: int | None = None


TABLE: Final[Mapping[str, ProblemSpec]] = {
    # the request
    "invalid-json": ProblemSpec(400, "The body is not JSON"),
    "bad-request": ProblemSpec(400, "The request was refused as malformed"),
    "unauthorized": ProblemSpec(401, "A token is needed here"),
    "key-not-allowed": ProblemSpec(403, "This caller may not use that key"),
    "cross-site": ProblemSpec(403, "A page of another site may not ask for signatures"),
    "wrong-host": ProblemSpec(403, "The Host header names another host"),
    "not-found": ProblemSpec(404, "There is nothing at this address"),
    "unknown-key": ProblemSpec(404, "No such key"),
    "method-not-allowed": ProblemSpec(405, "This address does not take that method"),
    "body-timeout": ProblemSpec(408, "The body did not arrive in time", retryable=True),
    "ceremony-running": ProblemSpec(409, "A ceremony of this key is running"),
    "refresh-too-soon": ProblemSpec(409, "This key was refreshed a moment ago"),
    "body-too-large": ProblemSpec(413, "The body is too large"),
    "message-too-large": ProblemSpec(413, "The message is too large"),
    "unsupported-media-type": ProblemSpec(415, "The body's media type is not supported"),
    "invalid-request": ProblemSpec(422, "The request does not say what it must"),
    "reserved-prefix": ProblemSpec(422, "Messages that begin so are signed for ourselves only"),
    "batch-over-rate": ProblemSpec(422, "A batch of that many items can never fit this caller's rate"),
    "rate-limited": ProblemSpec(429, "This caller asks too often", retryable=True, retry_after_s=1),
    # us
    "internal": ProblemSpec(500, "An internal error"),
    "not-ready": ProblemSpec(503, "This pod is starting", retryable=True, retry_after_s=2),
    "broker-unavailable": ProblemSpec(503, "The message broker is away", retryable=True, retry_after_s=2),
    "no-key-yet": ProblemSpec(503, "The key is still being made", retryable=True, retry_after_s=2),
    "in-flight-limit": ProblemSpec(503, "Too many requests are under way", retryable=True, retry_after_s=1),
    "overloaded": ProblemSpec(503, "The signers are busy", retryable=True, retry_after_s=1),
    "quorum-lost": ProblemSpec(503, "Too few signers are up", retryable=True, retry_after_s=2),
    "shutting-down": ProblemSpec(503, "This pod is going away", retryable=True, retry_after_s=1),
    "refresh-unavailable": ProblemSpec(503, "The signers hold no ceremonies now"),
    "signers-refused": ProblemSpec(503, "The signers refused this pod's request"),
    # Taken, and maybe signed: a 503 would say that nothing was done.
    "deadline": ProblemSpec(504, "No answer in time"),
    "interrupted": ProblemSpec(504, "This pod went away before the answer came"),
}

OF_REFUSAL: Final[Mapping[RefusalCode, str]] = {
    RefusalCode.BAD_REQUEST: "bad-request",
    RefusalCode.UNKNOWN_KEY: "unknown-key",
    RefusalCode.RESERVED_PREFIX: "reserved-prefix",
    RefusalCode.TOO_LARGE: "message-too-large",
    RefusalCode.EXPIRED: "deadline",
    RefusalCode.QUORUM_LOST: "quorum-lost",
    RefusalCode.OVERLOADED: "overloaded",
    RefusalCode.SHUTTING_DOWN: "shutting-down",
    RefusalCode.NO_KEY_YET: "no-key-yet",
    RefusalCode.CEREMONY_RUNNING: "ceremony-running",
    RefusalCode.REFRESH_TOO_SOON: "refresh-too-soon",
    RefusalCode.REFRESH_UNAVAILABLE: "refresh-unavailable",
    # Our fault, or our clock's: the caller can do nothing about it, and need not know.
    RefusalCode.BAD_EDGE_SIGNATURE: "signers-refused",
    RefusalCode.DEADLINE_TOO_FAR: "signers-refused",
}

DEADLINE_DETAIL: Final = "the outcome is unknown: the message may still be signed, but nobody will be told"


class Problem(Exception):
    """An error on its way to the caller. ``code`` is a row of ``TABLE``; ``errors`` are (field, detail) pairs.

    ``retry_after_s`` goes before the table's; ``challenge`` is the WWW-Authenticate of a 401.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        errors: Sequence[tuple[str, str]] = (),
        *,
        retry_after_s: int | None = None,
        challenge: str | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_s = TABLE[code].retry_after_s if retry_after_s is None else retry_after_s
        self.challenge = challenge

    @property
    def spec(self) -> ProblemSpec:
        """The row of the table."""
        return TABLE[self.code]

    def headers(self) -> dict[str, str]:
        """Return the headers that belong to it, whatever form its text is shown in."""
        headers = {"Cache-Control": "no-store"}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.challenge is not None:
            headers["WWW-Authenticate"] = self.challenge
        if self.spec.status in {408, 413}:
            # What is left of the body would have to be read first.
            headers["Connection"] = "close"
        return headers

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the problem document."""
        spec = self.spec
        document: dict[str, Any] = {
            "type": TYPE_PREFIX + self.code,
            "title": spec.title,
            "status": spec.status,
            "detail": self.detail,
            "request_id": request_id,
            "retryable": spec.retryable,
        }
        if spec.status == 422:
            document["errors"] = [{"field": field, "detail": detail} for field, detail in self.errors]
        return document


def invalid(field: str, detail: str) -> Problem:
    """A 422 about one field."""
    return Problem("invalid-request", f"{field}: {detail}", [(field, detail)])


def deadline() -> Problem:
    """The 504."""
    return Problem("deadline", DEADLINE_DETAIL)


def of_refusal(refused: Refused) -> Problem:
    """What the caller is told when the signers refused. Their ``detail`` is not passed on: it was written for us."""
    code = OF_REFUSAL[refused.code]
    if code == "deadline":
        return deadline()
    if code == "reserved-prefix":
        return invalid_prefix()
    if code == "signers-refused":
        return Problem(code, "the operator of this service should look at its log")
    if TABLE[code].status < 500 and refused.retryable:
        # Too few seats said it to be believed: it is "nobody would sign", not "this request is wrong".
        return Problem("quorum-lost", "no signer that could be asked would sign; try again")
    return Problem(code, TABLE[code].title[0].lower() + TABLE[code].title[1:])


def invalid_prefix() -> Problem:
    """The 422 for a message that begins as our own records do."""
    detail = "the message begins with the prefix that is kept for this service's own records"
    return Problem("reserved-prefix", detail, [("message", detail)])


def respond(problem: Problem, request_id: str) -> Response:
    """Return the HTTP answer."""
    body = orjson.dumps(problem.body(request_id))
    return Response(body, status_code=problem.spec.status, media_type=MEDIA_TYPE, headers=problem.headers())


def of_status(status: int) -> Problem:
    """For errors that the framework finds: its words are not shown."""
    for code in ("not-found", "method-not-allowed", "unsupported-media-type", "body-too-large"):
        if TABLE[code].status == status:
            return Problem(code, TABLE[code].title[0].lower() + TABLE[code].title[1:])
    if 400 <= status < 500:
        return Problem("bad-request", "the request was not understood")
    return Problem("internal", "something went wrong here; it is in the log under this request id")
