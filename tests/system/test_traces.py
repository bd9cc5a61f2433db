"""One trace per request, with spans of every process that had a part in it; none for who is not sampled."""

import asyncio
import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from common.kafka.embedded import EmbeddedBroker
from common.observability.spans import Spans
from common.observability.tracing import parse_traceparent
from common.wire import topics
from rest_api.settings import Settings
from tests.brokers import Broker, until, until_async
from tests.rest_api.world import Pod, running_pod
from tests.system.replicas import provisioned, running_replicas

pytestmark = [pytest.mark.slow, pytest.mark.anyio]


class Exported:
    """What each process exported."""

    def __init__(self) -> None:
        self.exporters: dict[str, InMemorySpanExporter] = {}

    def spans(self, service: str, index: int) -> Spans:
        exporter = self.exporters[f"{service} {index}"] = InMemorySpanExporter()
        return Spans(service, index, SimpleSpanProcessor(exporter))

    def of(self, trace_id: str) -> list["Seen"]:
        return [
            Seen(process, span)
            for process, exporter in self.exporters.items()
            for span in exporter.get_finished_spans()
            if f"{span.context.trace_id:032x}" == trace_id
        ]


@dataclass(frozen=True)
class Seen:
    process: str
    span: ReadableSpan

    @property
    def id(self) -> str:
        return f"{self.span.context.span_id:016x}"

    @property
    def parent(self) -> str | None:
        return None if self.span.parent is None else f"{self.span.parent.span_id:016x}"


def context(*, sampled: bool = True) -> tuple[str, str]:
    """A caller's header, and its trace."""
    trace = uuid.uuid4().hex
    return f"00-{trace}-{uuid.uuid4().hex[:16]}-0{int(sampled)}", trace


def one(found: list[Seen], name: str, parent: str | None = None) -> Seen:
    (seen,) = (each for each in found if each.span.name == name and parent in (None, each.parent))
    return seen


async def sign(pod: Pod, text: str, header: str) -> httpx.Response:
    return await pod.http.post("/v1/sign", json={"text": text}, headers={"traceparent": header})


async def test_each_request_is_one_trace_with_spans_of_all_processes(tmp_path: Path) -> None:
    prefix = "t-traces."
    with EmbeddedBroker() as cluster:
        broker = Broker(cluster.settings("test", prefix), cluster)
        broker.create(topics.all_topics(prefix, 1, 3))
        keys = provisioned(tmp_path / "keys", 3, 2)
        exported = Exported()
        seats = {seat: exported.spans("signer", seat) for seat in (1, 2, 3)}
        settings = Settings(
            index=0,
            port=0,
            admin_port=0,
            kafka_bootstrap=cluster.bootstrap,
            kafka_embedded=True,
            topic_prefix=prefix,
            secrets_dir=keys,
        )
        async with (
            running_replicas(broker, keys, tmp_path / "state", seats),
            running_pod(settings, spans=exported.spans("rest-api", 0), wait=False) as pod,
        ):
            await until(lambda: not pod.gateway.standing.readiness(), "the key is made and the pod is ready", 60)
            await _until_all_serve(pod)
            await _a_single_request(pod, exported, prefix)
            await _many_at_once(pod, exported)
            await _a_batch(pod, exported)
            await _not_sampled(pod, exported)
            await _a_refusal(pod, exported)


async def _until_all_serve(pod: Pod) -> None:
    async def claimed() -> int:
        replicas = (await pod.http.get("/v1/cluster")).json()["replicas"]
        return len({partition for replica in replicas for partition in replica["partitions"]})

    await until_async(claimed, topics.REQUEST_PARTITIONS)


async def _complete(exported: Exported, trace: str, count: int = 7) -> list[Seen]:
    def there() -> bool:
        found = exported.of(trace)
        return len(found) >= count and "process signer.v1.resp0" in {
            each.span.name.replace("t-traces.", "") for each in found
        }

    await until(there, "the trace is complete", 10)
    return exported.of(trace)


async def _a_single_request(pod: Pod, exported: Exported, prefix: str) -> None:
    header, trace = context()
    answer = await sign(pod, "one", header)
    assert answer.status_code == 200
    found = await _complete(exported, trace)

    server = one(found, "POST /v1/sign")
    assert (server.process, server.span.kind) == ("rest-api 0", SpanKind.SERVER)
    assert server.parent == header.split("-")[2], "the caller's span is the parent"
    back = parse_traceparent(answer.headers["traceparent"])
    assert back is not None
    assert (back.trace_id, back.span_id) == (trace, server.id)

    send = one(found, f"send {prefix}signer.v1", server.id)
    assert (send.process, send.span.kind) == ("rest-api 0", SpanKind.PRODUCER)
    coordinator = one(found, f"process {prefix}signer.v1", send.id)
    assert coordinator.span.kind is SpanKind.CONSUMER
    round_ = one(found, "round", coordinator.id)
    assert round_.process == coordinator.process
    participants = [each for each in found if each.parent == round_.id]
    signers = answer.json()["signers"]
    assert {each.process for each in participants} | {coordinator.process} == {f"signer {seat}" for seat in signers}
    assert round_.span.attributes is not None
    assert round_.span.attributes["signer_flow.signers"] == ",".join(map(str, signers))
    (participant,) = participants
    assert participant.span.kind is SpanKind.CONSUMER
    reply = one(found, f"send {prefix}signer.v1.resp0", coordinator.id)
    assert reply.process == coordinator.process
    received = one(found, f"process {prefix}signer.v1.resp0", reply.id)
    assert received.process == "rest-api 0"
    assert len(found) == 7

    # Each lies within its parent's time, and nothing of the message, the share or the signature is in any.
    by_id = {each.id: each for each in found}
    for each in found:
        above = by_id.get(each.parent or "")
        if above is not None:
            assert _times(above)[0] <= _times(each)[0] <= _times(each)[1]
        shown = each.span.to_json()
        assert base64.b64decode(answer.json()["signature"]).hex() not in shown
        assert answer.json()["signature"] not in shown
        assert each.span.status.status_code is not StatusCode.ERROR


def _times(seen: Seen) -> tuple[int, int]:
    assert seen.span.start_time is not None
    assert seen.span.end_time is not None
    return seen.span.start_time, seen.span.end_time


async def _many_at_once(pod: Pod, exported: Exported) -> None:
    """Requests that share records and packages stay apart: each trace has its own spans, with its own parents."""
    headers = [context() for _ in range(40)]
    answers = await asyncio.gather(*(sign(pod, f"text {n}", header) for n, (header, _) in enumerate(headers)))
    assert [answer.status_code for answer in answers] == [200] * 40
    for (header, trace), answer in zip(headers, answers, strict=True):
        found = await _complete(exported, trace)
        ids = {each.id for each in found} | {header.split("-")[2]}
        assert all(each.parent in ids for each in found)
        assert {f"signer {seat}" for seat in answer.json()["signers"]} | {"rest-api 0"} <= {e.process for e in found}
        sends = [
            _items(each.span.attributes)
            for each in found
            if each.span.name.endswith(" t-traces.signer.v1") and each.span.kind is SpanKind.PRODUCER
        ]
        # More than one where the first seat refused and another was asked.
        assert set(sends) == {1}, "one item of each trace"
    shared = [
        int(str(each.span.attributes["signer_flow.sessions"]))
        for _, trace in headers
        for each in exported.of(trace)
        if each.span.attributes is not None and each.span.kind is SpanKind.CONSUMER
        if "signer_flow.sessions" in each.span.attributes
    ]
    assert max(shared) > 1, "some package carried sessions of several traces"


async def _a_batch(pod: Pod, exported: Exported) -> None:
    header, trace = context()
    items = [{"text": str(n)} for n in range(100)]
    answer = await pod.http.post("/v1/sign/batch", json={"items": items}, headers={"traceparent": header})
    assert all("signature" in result for result in answer.json()["results"])
    found = await _complete(exported, trace)
    server = one(found, "POST /v1/sign/batch")
    sends = [each for each in found if each.parent == server.id and each.span.kind is SpanKind.PRODUCER]
    assert sum(_items(each.span.attributes) for each in sends) >= 100, "one span for a record, not for an item"
    assert len(sends) < 40


def _items(attributes: Mapping[str, object] | None) -> int:
    assert attributes is not None
    return int(str(attributes["signer_flow.items"]))


async def _not_sampled(pod: Pod, exported: Exported) -> None:
    header, trace = context(sampled=False)
    answer = await sign(pod, "quiet", header)
    assert answer.status_code == 200
    back = parse_traceparent(answer.headers["traceparent"])
    assert back is not None
    assert (back.trace_id, back.sampled) == (trace, False)
    follower, other = context()
    await sign(pod, "loud", follower)
    await _complete(exported, other)
    assert exported.of(trace) == []


async def _a_refusal(pod: Pod, exported: Exported) -> None:
    header, trace = context()
    answer = await pod.http.post("/v1/sign", json={"text": "a", "key_id": "no-such"}, headers={"traceparent": header})
    assert answer.status_code == 404
    await until(lambda: exported.of(trace), "the server's span", 10)
    (server,) = exported.of(trace)
    assert server.span.attributes is not None
    assert server.span.attributes["http.response.status_code"] == 404
