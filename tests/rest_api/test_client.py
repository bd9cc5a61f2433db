"""The typed client, synchronous and asynchronous alike: what it tries again, how long it waits, what it believes."""

import asyncio
import base64
import hashlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from common import ed25519
from rest_api.client import AsyncClient, Client, Limited, PublicKey, Refused, ServiceUnavailable, Signature, WrongAnswer

SECRET, PUBLIC = ed25519.generate_keypair(bytes(range(32)))
LOST = "the connection ends without an answer"


@dataclass(frozen=True)
class Reply:
    """What the service answers: a status with a body, and perhaps Retry-After."""

    status: int
    body: Any
    retry_after: str | None = None


def problem(status: int, retry_after: str | None = None, *, retryable: bool = False) -> Reply:
    return Reply(status, {"type": "urn:x", "detail": "not now", "status": status, "retryable": retryable}, retry_after)


def signed(message: bytes = b"we agree", **changed: Any) -> Reply:
    answer = {
        "request_id": "r",
        "key_id": "default",
        "epoch": 1,
        "algorithm": "Ed25519",
        "signature": base64.b64encode(ed25519.sign(SECRET, message)).decode(),
        "public_key": base64.b64encode(PUBLIC).decode(),
        "message_sha256": hashlib.sha256(message).hexdigest(),
        "signers": [1, 2],
    }
    return Reply(200, answer | changed)


KEY = Reply(
    200,
    {"key_id": "default", "public_key": base64.b64encode(PUBLIC).decode(), "epoch": 1, "threshold": 2, "signers": 3},
)


@dataclass
class Service:
    """Answers with what stands in ``script``, in turn, and keeps what it was asked."""

    port: int = 0
    script: list[Reply | str] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            made.asked.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
            reply = made.script.pop(0)
            if isinstance(reply, str):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            body = json.dumps(reply.body).encode()
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if reply.retry_after is not None:
                self.send_header("Retry-After", reply.retry_after)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join(10)


Kind = Callable[..., Any]


def through_client(url: str, method: str, *arguments: Any, **settings: Any) -> Any:
    with Client(url, **settings) as client:
        return getattr(client, method)(*arguments)


def through_async_client(url: str, method: str, *arguments: Any, **settings: Any) -> Any:
    async def ask() -> Any:
        async with AsyncClient(url, **settings) as client:
            return await getattr(client, method)(*arguments)

    return asyncio.run(ask())


@pytest.fixture(params=[through_client, through_async_client], ids=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "before",
    [
        problem(429),
        problem(429, "0"),
        problem(503, retryable=True),
        problem(503, "0", retryable=True),
    ],
    ids=["429", "429 at once", "503", "503 at once"],
)
def test_what_was_not_taken_is_tried_again(service: Service, call: Kind, before: Reply) -> None:
    service.script = [before, signed()]
    found = call(service.url, "sign", b"we agree")
    assert isinstance(found, Signature)
    assert len(service.asked) == 2


@pytest.mark.parametrize(
    ("before", "error"),
    [
        (problem(503), ServiceUnavailable),
        (problem(504, retryable=True), ServiceUnavailable),
        (problem(500, retryable=True), ServiceUnavailable),
        (problem(502), ServiceUnavailable),
        (problem(400, retryable=True), Refused),
        (problem(401), Refused),
        (problem(404), Refused),
        (problem(409, "0", retryable=True), Refused),
        (LOST, ServiceUnavailable),
    ],
)
def test_a_request_that_may_have_been_signed_or_is_wrong_is_never_sent_again(
    service: Service, call: Kind, before: Reply | str, error: type[Exception]
) -> None:
    service.script = [before, signed()]
    with pytest.raises(error) as caught:
        call(service.url, "sign", b"we agree")
    assert len(service.asked) == 1
    if before == LOST:
        assert "outcome is unknown" in str(caught.value)


def test_a_question_that_changes_nothing_is_asked_again_however_it_was_lost(service: Service, call: Kind) -> None:
    service.script = [LOST, problem(504), problem(500), KEY]
    found = call(service.url, "key", "default")
    assert isinstance(found, PublicKey)
    assert [path for _, path, _ in service.asked] == ["/v1/keys/default"] * 4


def test_a_refresh_that_was_lost_is_not_asked_for_twice(service: Service, call: Kind) -> None:
    service.script = [LOST, Reply(202, {})]
    with pytest.raises(ServiceUnavailable):
        call(service.url, "refresh", "default")
    assert len(service.asked) == 1


def test_retry_after_is_waited_for(service: Service, call: Kind) -> None:
    service.script = [problem(429, "1"), signed()]
    began = time.monotonic()
    call(service.url, "sign", b"we agree")
    assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize("status", [429, 503])
def test_whoever_is_told_to_come_back_too_late_is_told_at_once(service: Service, call: Kind, status: int) -> None:
    service.script = [problem(status, "3600", retryable=True), signed()]
    with pytest.raises((Limited, ServiceUnavailable)) as caught:
        call(service.url, "sign", b"we agree", retry_for_s=5.0)
    assert caught.value.retry_after_s == 3600
    assert len(service.asked) == 1


def test_retries_go_on_for_as_long_as_was_said_and_no_longer(service: Service, call: Kind) -> None:
    service.script = [problem(503, "0", retryable=True) for _ in range(200)]
    began = time.monotonic()
    with pytest.raises(ServiceUnavailable):
        call(service.url, "sign", b"we agree", retry_for_s=1.0)
    assert time.monotonic() - began >= 0.9
    assert 2 <= len(service.asked) < 200


def test_one_attempt_is_one_attempt(service: Service, call: Kind) -> None:
    service.script = [problem(429), signed()]
    with pytest.raises(Limited):
        call(service.url, "sign", b"we agree", retry_for_s=0.0)
    assert len(service.asked) == 1


def test_nobody_there_is_tried_again_and_then_said(call: Kind) -> None:
    with socket.socket() as probe:  # bound and not listening: nobody else gets the port meanwhile
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(ServiceUnavailable, match="is the service running there") as caught:
            call(url, "sign", b"we agree", retry_for_s=0.3)
    assert caught.value.retryable


@pytest.mark.parametrize(
    "answer",
    [
        signed(b"another message"),
        signed(signature=base64.b64encode(bytes(64)).decode()),
        signed(public_key=base64.b64encode(ed25519.generate_keypair(bytes(32))[1]).decode()),
        signed(signature="not base64"),
        signed(signers=None),
        Reply(200, []),
        Reply(200, {"results": []}),
    ],
)
def test_an_answer_that_does_not_hold_is_an_error_and_never_a_signature(
    service: Service, call: Kind, answer: Reply
) -> None:
    service.script = [answer, signed()]
    with pytest.raises(WrongAnswer):
        call(service.url, "sign", b"we agree")
    assert len(service.asked) == 1


def test_a_signature_of_another_key_than_the_pinned_one_is_an_error(service: Service, call: Kind) -> None:
    service.script = [signed(), signed()]
    assert call(service.url, "sign", b"we agree", public_key=PUBLIC).public_key == PUBLIC
    with pytest.raises(WrongAnswer, match="another key"):
        call(service.url, "sign", b"we agree", public_key=bytes(32))


def test_the_token_and_the_deadline_go_with_each_request(service: Service, call: Kind) -> None:
    service.script = [signed()]
    call(service.url, "sign", b"we agree", token="sft_1", timeout_ms=1_234)
    (_, path, headers) = service.asked[0]
    assert path == "/v1/sign"
    assert (headers["authorization"], headers["request-timeout-ms"]) == ("Bearer sft_1", "1234")
