"""Traces beside the machines: handed on where nothing is exported, and none kept for longer than its record."""

import uuid

from common.ids import BootId, EdgeKeyId, Epoch, Index, Instant, KeyId, Offset, RecordId, RequestId
from common.kafka.port import Record
from common.observability.tracing import TraceContext, item_headers, read_set_headers
from common.wire.messages import (
    Mode,
    MsgToSign,
    NonceScope,
    Outcome,
    RefusalCode,
    Refused,
    SignGroup,
    SignItem,
    SignPackage,
    SignSession,
)
from signer_service.shell.traces import Traces
from tests.observability.traces import trace

BOOT = BootId(str(uuid.UUID(int=1)))
A, B = trace(1), trace(2)


def request(items: int) -> MsgToSign:
    each = tuple(
        SignItem(RequestId(str(uuid.uuid4())), KeyId("default"), Mode.SIGN, b"m", "anonymous", Instant(1), Instant(2))
        for _ in range(items)
    )
    return MsgToSign(RecordId(str(uuid.uuid4())), each, "signer.v1.resp0", BOOT, EdgeKeyId("0" * 16))


def record(raw: bytes, contexts: list[TraceContext | None], offset: int = 0) -> Record:
    return Record("signer.v1", 3, offset, None, None, raw, tuple(item_headers(contexts)))


def group(raw: bytes, *items: int) -> SignGroup:
    sessions = tuple(SignSession(number, item, (1, 2), (bytes(64), bytes(64))) for number, item in enumerate(items))
    scope = NonceScope(KeyId("default"), Offset(5))
    return SignGroup(scope, Epoch(1), raw, (Index(1), Index(2)), (BOOT, BOOT), sessions)


def refusal(asked: MsgToSign, item: int) -> Outcome:
    return Outcome(asked.items[item].request_id, Refused(RefusalCode.QUORUM_LOST, "", retryable=True))


def test_a_package_names_the_traces_of_the_items_in_it_and_no_others() -> None:
    traces, asked = Traces(), request(3)
    traces.arrived(record(b"raw", [A, None, B]), asked, 0)
    assert read_set_headers(traces.package(SignPackage((group(b"raw", 0),)))) == [A]
    assert read_set_headers(traces.package(SignPackage((group(b"raw", 0, 1, 2),)))) == [A, B]
    assert traces.package(SignPackage((group(b"raw", 1),))) == ()
    assert traces.package(SignPackage((group(b"another", 0), group(b"", 0)))) == ()


def test_an_answer_names_the_traces_of_its_items() -> None:
    traces, asked = Traces(), request(2)
    traces.arrived(record(b"raw", [A, B]), asked, 0)
    headers, done = traces.answering((3, 0), "signer.v1.resp0", [refusal(asked, 1)])
    done(None)
    assert read_set_headers(headers) == [B]
    assert traces.trace_of((3, 0), asked.items[0].request_id) == A.trace_id


def test_nothing_is_kept_of_a_record_that_is_finished_lost_or_in_no_trace() -> None:
    traces = Traces()
    traces.arrived(record(b"none", [None, None], 9), request(2), 0)
    assert traces.open_records == 0
    for offset, raw in enumerate((b"one", b"two")):
        traces.arrived(record(raw, [A], offset), request(1), 0)
    traces.finished((3, 0))
    assert traces.open_records == 1
    traces.lost([3])
    assert traces.open_records == 0
    assert traces.package(SignPackage((group(b"one", 0), group(b"two", 0)))) == ()


def test_an_item_that_the_header_does_not_know_is_in_no_trace() -> None:
    traces, asked = Traces(), request(2)
    lying = Record("signer.v1", 3, 0, None, None, b"raw", (("traceparents", b"rubbish,,,"), ("traceparent", b"00-ab")))
    traces.arrived(lying, asked, 0)
    assert traces.open_records == 0
    assert traces.answering((3, 0), "signer.v1.resp0", [refusal(asked, 0)])[0] == ()
