"""The short way to the routes that sign: whoever asks cannot tell it from the framework's own."""

from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import SpanProcessor

from common.observability.spans import Spans
from tests.rest_api.world import Pod, World, running_pod

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}
ASKED: dict[str, dict[str, Any]] = {
    "signed": {"method": "POST", "url": "/v1/sign", "json": {"text": "a"}},
    "batch": {"method": "POST", "url": "/v1/sign/batch", "json": {"items": [{"text": "a"}, {"text": 1}, 7]}},
    "with a query": {"method": "POST", "url": "/v1/sign?x=1", "json": {"text": "a"}},
    "no body": {"method": "POST", "url": "/v1/sign", "headers": JSON},
    "no json": {"method": "POST", "url": "/v1/sign", "content": b"{", "headers": JSON},
    "wrong field": {"method": "POST", "url": "/v1/sign", "json": {"test": "a"}},
    "wrong type": {"method": "POST", "url": "/v1/sign", "content": b"a"},
    "wrong deadline": {
        "method": "POST",
        "url": "/v1/sign",
        "json": {"text": "a"},
        "headers": {"request-timeout-ms": "x"},
    },
    "too large": {"method": "POST", "url": "/v1/sign", "content": b" " * 600_000, "headers": JSON},
    "no such key": {"method": "POST", "url": "/v1/sign", "json": {"text": "a", "key_id": "nobody"}},
    "wrong host": {"method": "POST", "url": "/v1/sign", "json": {"text": "a"}, "headers": {"host": "elsewhere"}},
    "get": {"method": "GET", "url": "/v1/sign"},
    "options": {"method": "OPTIONS", "url": "/v1/sign/batch"},
    "a slash more": {"method": "POST", "url": "/v1/sign/", "json": {"text": "a"}},
    "encoded": {"method": "POST", "url": "/v1/%73ign", "json": {"text": "a"}},
}
CHANGING = {"request_id", "x-request-id", "date", "content-length", "traceparent", "signature", "signers"}


def shown(value: Any) -> Any:
    """What does not differ from one request to the next."""
    if isinstance(value, dict):
        return {name: shown(inner) for name, inner in value.items() if name not in CHANGING}
    return [shown(each) for each in value] if isinstance(value, list) else value


def seen(answer: httpx.Response) -> tuple[int, dict[str, str], Any]:
    return answer.status_code, shown(dict(answer.headers)), shown(answer.json())


async def test_the_framework_would_answer_the_same(pod: Pod, shared_world: World) -> None:
    # With spans every request goes through the framework's router.
    spans = Spans("rest-api", 1, SpanProcessor())
    async with running_pod(shared_world.settings(1), spans=spans) as routed:
        for name, asked in ASKED.items():
            direct = await pod.http.request(**asked)
            assert seen(direct) == seen(await routed.http.request(**asked)), name
    spans.close()


async def test_requests_are_counted_by_their_route_on_either_way(pod: Pod) -> None:
    counted = {"route": "/v1/sign", "method": "POST", "status": "200"}
    before = pod.count("http_requests_total", **counted)
    assert (await pod.http.request(**ASKED["signed"])).status_code == 200
    assert pod.count("http_requests_total", **counted) == before + 1
