"""What a caller may send to /v1/sign, and what he gets: one row of the contract after another, on the real wire."""

import asyncio
import base64
import hashlib
import json
import socket
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from common import ed25519
from common.wire.messages import RESERVED_PREFIX
from rest_api import problems
from tests.rest_api.world import Asked, Pod, World

pytestmark = pytest.mark.anyio

KIB64 = 64 * 1024


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def a_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is that problem, in every respect that the contract names."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"urn:signer-flow:problem:{code}"
    assert body["status"] == status
    assert body["retryable"] is problems.TABLE[code].retryable
    assert uuid.UUID(body["request_id"]).version == 4
    assert body["title"]
    assert body["detail"]
    assert ("errors" in body) == (status == 422)
    return body


def signed(answer: httpx.Response, message: bytes) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert ed25519.verify(base64.b64decode(body["public_key"]), message, base64.b64decode(body["signature"]))
    assert body["message_sha256"] == hashlib.sha256(message).hexdigest()
    return body


async def test_a_message_comes_back_signed_and_the_signature_verifies(pod: Pod, shared_world: World) -> None:
    answer = await pod.http.post("/v1/sign", json={"text": "grüße", "key_id": "default"})
    body = signed(answer, "grüße".encode())
    assert body["public_key"] == b64(shared_world.trust.group_pub)
    assert (body["key_id"], body["epoch"], body["algorithm"], body["signers"]) == ("default", 1, "Ed25519", [1, 2])
    assert uuid.UUID(body["request_id"]).version == 4
    assert answer.headers["x-request-id"] == body["request_id"]


@pytest.mark.parametrize("message", [b"", b"\x00\xff", bytes(KIB64)], ids=["empty", "binary", "64 KiB"])
async def test_empty_and_64_kib_messages_sign(pod: Pod, message: bytes) -> None:
    signed(await pod.http.post("/v1/sign", json={"data": b64(message)}), message)


async def test_a_text_of_64_kib_signs_even_when_json_makes_it_six_times_as_long(pod: Pod) -> None:
    body = '{"text": "' + "\\u0001" * KIB64 + '"}'
    answer = await pod.http.post("/v1/sign", content=body, headers={"Content-Type": "application/json"})
    signed(answer, b"\x01" * KIB64)


async def test_64_kib_and_one_byte_is_too_large(pod: Pod) -> None:
    a_problem(await pod.http.post("/v1/sign", json={"data": b64(bytes(KIB64 + 1))}), 413, "message-too-large")
    a_problem(await pod.http.post("/v1/sign", json={"text": "é" * (KIB64 // 2) + "x"}), 413, "message-too-large")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"text": "a", "data": "YQ=="}, "data"),
        ({}, "text"),
        ({"text": None}, "text"),
        ({"text": 5}, "text"),
        ({"data": "YQ"}, "data"),
        ({"data": "YQ=="[:-1] + "\n="}, "data"),
        ({"data": "YR=="}, "data"),
        ({"data": "Y_=="}, "data"),
        ({"data": " YQ=="}, "data"),
        ({"data": "é"}, "data"),
        ({"text": "a", "colour": "red"}, "colour"),
        ({"text": "a", "key_id": 7}, "key_id"),
        ([], "body"),
        ("text", "body"),
    ],
)
async def test_what_has_no_meaning_is_refused_and_the_field_is_named(pod: Pod, body: Any, field: str) -> None:
    problem = a_problem(await pod.http.post("/v1/sign", json=body), 422, "invalid-request")
    assert [error["field"] for error in problem["errors"]] == [field]


@pytest.mark.parametrize(
    ("path", "content", "detail"),
    [
        ("sign", b'{"text": "a"', "the body is not JSON: EOF while parsing an object at line 1 column 12"),
        ("sign", b'{"text": "secret\xff"}', "the body is not JSON: invalid unicode code point at line 1 column 17"),
        ("sign", b'["a"]', "body: must be a JSON object"),
        ("sign", b'{"message": "a"}', "message: unknown field; there are text, data, key_id"),
        ("sign/batch", b'{"items": []}', "items: at least 1, not 0"),
        ("sign/batch", b'{"items": [%s0]}' % (b"0," * 1000), "items: at most 1000, not 1001"),
        (
            "sign",
            b'{"text": "a", "key_id": "b"}',
            "there is no key of that name; GET /v1/keys lists those that are there",
        ),
    ],
)
async def test_a_refusal_says_what_is_missing_and_where(pod: Pod, path: str, content: bytes, detail: str) -> None:
    answer = await pod.http.post(f"/v1/{path}", content=content, headers={"Content-Type": "application/json"})
    assert answer.json()["detail"] == detail


async def test_half_a_surrogate_pair_is_no_text(pod: Pod) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await pod.http.post("/v1/sign", content=b'{"text": "\\ud800"}', headers=headers)
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("body", [b"", b"{", b"text=a", b'{"text": "a"} x', b'{"text": "\xff"}', b"\x00"])
async def test_a_body_that_is_not_json_is_said_to_be_none(pod: Pod, body: bytes) -> None:
    answer = await pod.http.post("/v1/sign", content=body, headers={"Content-Type": "application/json"})
    a_problem(answer, 400, "invalid-json")


async def test_deeply_nested_json_costs_nothing(pod: Pod) -> None:
    answer = await pod.http.post(
        "/v1/sign", content=b'{"text": ' + b"[" * 200_000, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in {400, 422}


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", None])
async def test_another_media_type_is_not_guessed_at(pod: Pod, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    a_problem(await pod.http.post("/v1/sign", content=b'{"text": "a"}', headers=headers), 415, "unsupported-media-type")


async def test_a_charset_beside_the_media_type_does_no_harm(pod: Pod) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    signed(await pod.http.post("/v1/sign", content=b'{"text": "a"}', headers=headers), b"a")


async def test_an_unknown_key_is_not_found_and_one_that_is_being_made_is_not_yet_there(pod: Pod) -> None:
    a_problem(await pod.http.post("/v1/sign", json={"text": "a", "key_id": "other"}), 404, "unknown-key")
    a_problem(await pod.http.post("/v1/sign", json={"text": "a", "key_id": "../.."}), 404, "unknown-key")
    late = await pod.http.post("/v1/sign", json={"text": "a", "key_id": "late"})
    a_problem(late, 503, "no-key-yet")
    assert int(late.headers["retry-after"]) >= 1


async def test_our_own_prefix_is_refused_before_it_reaches_a_signer(pod: Pod, shared_world: World) -> None:
    answer = await pod.http.post("/v1/sign", json={"data": b64(RESERVED_PREFIX + b"anything")})
    assert [error["field"] for error in a_problem(answer, 422, "reserved-prefix")["errors"]] == ["message"]
    assert shared_world.committee.asked_items() == []
    # The words without their final zero byte are anybody's.
    signed(await pod.http.post("/v1/sign", json={"data": b64(RESERVED_PREFIX[:-1])}), RESERVED_PREFIX[:-1])


async def test_a_body_over_the_cap_is_refused_by_its_length_before_it_is_read(pod: Pod) -> None:
    # A length and no body: an answer shows that nobody waited for the rest.
    raw = await raw_request(pod, b"Content-Length: 600000\r\n", b"")
    assert raw.startswith(b"HTTP/1.1 413")
    assert b"urn:signer-flow:problem:body-too-large" in raw


async def test_a_streamed_body_over_the_cap_is_cut_off(pod: Pod) -> None:
    chunk = b"%x\r\n" % 65536 + b" " * 65536 + b"\r\n"
    raw = await raw_request(pod, b"Transfer-Encoding: chunked\r\n", chunk * 9)
    assert raw.startswith(b"HTTP/1.1 413")
    assert b"urn:signer-flow:problem:body-too-large" in raw


async def test_a_body_that_never_comes_ends_at_the_deadline(pod: Pod) -> None:
    raw = await raw_request(pod, b"Content-Length: 10\r\nRequest-Timeout-Ms: 300\r\n", b'{"te')
    assert raw.startswith(b"HTTP/1.1 408")


async def raw_request(pod: Pod, headers: bytes, body: bytes) -> bytes:
    """Send these bytes and return what comes before the other side closes, or falls silent for half a second."""
    host, port = pod.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(b"POST /v1/sign HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n" + headers)
        writer.write(b"\r\n" + body)
        answer = b""
        try:
            async with asyncio.timeout(5):
                while b"\r\n\r\n" not in answer or not answer.rstrip().endswith(b"}"):
                    part = await reader.read(65536)
                    if not part:
                        break
                    answer += part
        except TimeoutError:
            pytest.fail(f"no whole answer in 5 s: {answer[:200]!r}")
        return answer
    finally:
        writer.close()


async def test_the_callers_id_is_echoed_if_it_is_sane(pod: Pod) -> None:
    answer = await pod.http.post("/v1/sign", json={"text": "a"}, headers={"X-Request-Id": "order-17/a"})
    assert answer.headers["x-request-id"] == "order-17/a"
    assert answer.json()["request_id"] != "order-17/a"
    for bad in ("a" * 129, "a b", "<script>"):
        answer = await pod.http.post("/v1/sign", json={"text": "a"}, headers={"X-Request-Id": bad})
        assert answer.headers["x-request-id"] == answer.json()["request_id"]


@pytest.mark.parametrize("given", ["0", "30001", "-1", "1.5", "abc", "", "1000000000000", "٣"])
async def test_a_deadline_out_of_bounds_is_refused(pod: Pod, given: str) -> None:
    answer = await pod.http.post("/v1/sign", json={"text": "a"}, headers=[(b"Request-Timeout-Ms", given.encode())])
    problem = a_problem(answer, 422, "invalid-request")
    assert problem["errors"][0]["field"] == "Request-Timeout-Ms"


async def test_the_deadline_that_a_caller_sets_is_the_one_that_the_signers_get(pod: Pod, shared_world: World) -> None:
    signed(await pod.http.post("/v1/sign", json={"text": "a"}, headers={"Request-Timeout-Ms": "30000"}), b"a")
    [(_, item)] = shared_world.committee.asked_items()
    assert item.deadline_ms - item.created_ms == 30_000
    assert item.principal == "anonymous"


async def test_the_frameworks_own_errors_are_problems_too(pod: Pod) -> None:
    a_problem(await pod.http.get("/nothing/here"), 404, "not-found")
    wrong_method = await pod.http.get("/v1/sign")
    a_problem(wrong_method, 405, "method-not-allowed")
    assert wrong_method.headers["allow"] == "POST"
    a_problem(await pod.http.get("/v1/sign/"), 404, "not-found")


async def test_a_page_of_a_stranger_that_points_its_name_at_us_gets_nothing(pod: Pod) -> None:
    a_problem(await pod.http.get("/v1/keys", headers={"Host": "evil.example:8000"}), 403, "wrong-host")
    assert (await pod.http.get("/v1/keys", headers={"Host": "localhost"})).status_code == 200


async def test_an_error_of_ours_shows_nothing_of_our_insides(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("/secret/path and b'bytes'")

    monkeypatch.setattr(type(pod.gateway.keys), "choose", broken)
    answer = await pod.http.post("/v1/sign", json={"text": "a"})
    shown = a_problem(answer, 500, "internal")
    [line] = [line for line in log_lines() if line["event"] == "a request failed"]
    assert line["request_id"] == shown["request_id"]
    assert "RuntimeError" in line["exception"]
    assert "secret" not in answer.text
    assert "RuntimeError" not in answer.text


async def test_a_trace_goes_along_to_the_signers(pod: Pod, shared_world: World) -> None:
    seen: list[bytes | None] = []
    committee = shared_world.committee

    def look(asked: Asked) -> None:
        seen.append(asked.record.header("traceparent"))
        asked.seat.sign(asked)

    committee.all_do(look)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await pod.http.post("/v1/sign", json={"text": "a"}, headers={"traceparent": parent})
    await pod.http.post("/v1/sign", json={"text": "a"}, headers={"traceparent": "rubbish"})
    assert seen == [parent.encode(), None]


async def test_requests_of_one_turn_travel_in_one_record_with_one_edge_signature(pod: Pod, shared_world: World) -> None:
    def ask(n: int) -> Any:
        return pod.http.post("/v1/sign", json={"text": str(n)})

    answers = await asyncio.gather(*(ask(n) for n in range(40)))
    for n, answer in enumerate(answers):
        signed(answer, str(n).encode())
    records = [request for seat in shared_world.committee.seats.values() for request in seat.asked]
    assert sum(len(record.items) for record in records) == 40
    assert len({item.request_id for record in records for item in record.items}) == 40
    for record in records:
        assert record.instance_id == pod.gateway.instance_id
        assert record.reply_to == f"{shared_world.trust.prefix}signer.v1.resp0"


async def test_the_answers_that_a_client_waits_for_one_connection_at_a_time_keep_it_open(pod: Pod) -> None:
    host, port = pod.url.removeprefix("http://").split(":")
    body = json.dumps({"text": "a"}).encode()
    head = b"POST /v1/sign HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    reader, writer = await asyncio.open_connection(host, int(port), family=socket.AF_INET)
    try:
        for _ in range(3):
            writer.write(head % len(body) + body)
            answer = await asyncio.wait_for(reader.readuntil(b"}"), 5)
            assert answer.startswith(b"HTTP/1.1 200")
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"text": "other"}, False),
        ({"signature": b64(bytes(63))}, False),
        ({"signature": b64(bytes(64))}, False),
        ({"public_key": b64(bytes(31)), "key_id": None}, False),
        ({"public_key": b64(bytes(32)), "key_id": None}, False),
    ],
)
async def test_verify_says_valid_or_not_and_a_wrong_length_is_just_not(
    pod: Pod, change: dict[str, Any], valid: bool
) -> None:
    made = signed(await pod.http.post("/v1/sign", json={"text": "v"}), b"v")
    asked = {"text": "v", "signature": made["signature"], "key_id": "default"} | change
    answer = await pod.http.post("/v1/verify", json={k: v for k, v in asked.items() if v is not None})
    assert answer.status_code == 200
    assert answer.json() == {"valid": valid}


async def test_verify_refuses_what_is_no_base64_and_what_names_two_keys(pod: Pod) -> None:
    answer = await pod.http.post("/v1/verify", json={"text": "v", "signature": "abc"})
    assert a_problem(answer, 422, "invalid-request")["errors"][0]["field"] == "signature"
    both = {"text": "v", "signature": "", "key_id": "default", "public_key": ""}
    a_problem(await pod.http.post("/v1/verify", json=both), 422, "invalid-request")
    a_problem(await pod.http.post("/v1/verify", json={"text": "v", "signature": "", "key_id": "x"}), 404, "unknown-key")
