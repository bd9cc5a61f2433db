"""A caller's trace comes back to him and into the lines about his request, also where no spans are exported."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from common.observability.tracing import TraceContext, parse_traceparent, read_item_headers
from tests.rest_api.world import Asked, Pod, World, running_pod

pytestmark = pytest.mark.anyio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
OTHER = f"00-{'5' * 32}-{'6' * 16}-00"
LogLines = Callable[[], list[dict[str, Any]]]


async def test_the_answer_names_the_trace_that_the_caller_named(pod: Pod) -> None:
    answer = await pod.http.post("/v1/sign", json={"text": "a"}, headers={"traceparent": PARENT})
    assert answer.headers["traceparent"] == PARENT
    wrong = await pod.http.post("/v1/sign", json={"text": 1}, headers={"traceparent": OTHER})
    assert wrong.status_code == 422
    assert wrong.headers["traceparent"] == OTHER


@pytest.mark.parametrize("given", [{}, {"traceparent": "rubbish"}, {"traceparent": PARENT.upper()}])
async def test_without_a_good_header_there_is_no_trace(pod: Pod, given: dict[str, str]) -> None:
    answer = await pod.http.post("/v1/sign", json={"text": "a"}, headers=given)
    assert answer.status_code == 200
    assert "traceparent" not in answer.headers


async def test_requests_that_share_a_record_keep_their_own_traces(pod: Pod, shared_world: World) -> None:
    seen: dict[bytes, TraceContext | None] = {}

    def note(asked: Asked) -> None:
        items = asked.request.items
        contexts = read_item_headers(asked.record.headers, len(items))
        seen.update(zip((item.message for item in items), contexts, strict=True))
        asked.seat.sign(asked)

    shared_world.committee.all_do(note)
    headers = {str(n): [PARENT, OTHER, ""][n % 3] for n in range(30)}
    await asyncio.gather(
        *(
            pod.http.post("/v1/sign", json={"text": text}, headers={"traceparent": header} if header else {})
            for text, header in headers.items()
        )
    )
    assert seen == {text.encode(): parse_traceparent(header) for text, header in headers.items()}


async def test_a_failure_has_a_line_with_request_and_trace_and_a_success_has_none(
    pod: Pod, shared_world: World, log_lines: LogLines
) -> None:
    signed = await pod.http.post("/v1/sign", json={"text": "a"}, headers={"traceparent": PARENT})
    assert signed.status_code == 200
    assert [line for line in log_lines() if line["logger"].startswith("rest_api")] == []

    shared_world.committee.all_do(lambda asked: None)
    late = await pod.http.post(
        "/v1/sign", json={"text": "a"}, headers={"traceparent": PARENT, "Request-Timeout-Ms": "100"}
    )
    assert late.status_code == 504
    found = {line["event"]: line for line in log_lines()}
    for event in ("an item got no signature", "a request got no answer"):
        assert found[event]["request_id"] == late.json()["request_id"]
        assert found[event]["trace_id"] == TRACE
        assert found[event]["code"] == "deadline"


async def test_an_outage_does_not_fill_the_log(pod: Pod, shared_world: World, log_lines: LogLines) -> None:
    shared_world.committee.all_do(lambda asked: None)
    items = [{"text": str(n)} for n in range(300)]
    answer = await pod.http.post("/v1/sign/batch", json={"items": items}, headers={"Request-Timeout-Ms": "200"})
    assert all(result["error"]["status"] == 504 for result in answer.json()["results"])
    lines = [line for line in log_lines() if line["event"] == "an item got no signature"]
    assert 0 < len(lines) <= 20


async def test_a_probe_that_is_told_not_yet_leaves_no_line(own_world: World, log_lines: LogLines) -> None:
    async with running_pod(own_world.settings()) as pod:
        pod.gateway.drain(1.0)
        assert (await pod.http.get("/readyz")).status_code == 503
        assert (await pod.http.post("/v1/sign", json={"text": "a"})).status_code == 503
    routes = [line["route"] for line in log_lines() if line["event"] == "a request got no answer"]
    assert routes == ["/v1/sign"]
