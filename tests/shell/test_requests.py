"""Requests come in with room for them, wait as bytes without it, and no bytes whatever stop the next one."""

import asyncio
import os
import time
import uuid
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import BadInput
from common.ids import BootId, EdgeKeyId, Index, Instant, KeyId, RecordId, RequestId
from common.kafka.port import Record
from common.observability.metrics import Metrics
from common.secret import Secret
from common.wire import codec
from common.wire.envelope import Signer
from common.wire.messages import DeadLetter, Envelope, Mode, MsgSigned, MsgToSign, RefusalCode, Refused, Role, SignItem
from signer_service.app import make_wire
from signer_service.protocol import coordinator, participant
from signer_service.protocol.view import SigningView, ViewChanged
from signer_service.shell import sources
from signer_service.shell.names import names
from signer_service.shell.outbox import Outbox
from signer_service.shell.poison import DeadLetters, error_answer
from signer_service.shell.records import RecordBook
from signer_service.shell.requests import Limits, Requests
from signer_service.shell.signing import Signing
from tests.brokers import until
from tests.protocol import signing_world as edge
from tests.shell.memory_producer import MemoryProducer, Sent

BOOT = BootId(str(uuid.UUID(int=1)))


class Consumer:
    """What the group's member was told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.stored: dict[int, int] = {}

    async def start(self) -> None:
        pass

    def store(self, partition: int, next_offset: int) -> None:
        self.stored[partition] = next_offset

    def pause(self, partitions: Iterable[int] | None = None) -> None:
        self.calls.append("pause")

    def resume(self, partitions: Iterable[int] | None = None) -> None:
        self.calls.append("resume")

    def kept_out(self) -> bool:
        return False

    def assigned(self) -> frozenset[int]:
        return frozenset()

    async def close(self) -> None:
        pass


class World:
    """The real machines, which know no key and so refuse at once; the test plays the broker."""

    def __init__(self, high: int = 64, in_flight: int = 64) -> None:
        loop = asyncio.get_running_loop()
        self.producer, self.consumer, self.metrics = MemoryProducer(), Consumer(), Metrics()
        self.bugs: list[BaseException] = []
        self.changes = 0
        seat = Index(1)
        book = RecordBook(self.consumer.store)
        signer = Signer(Role.SIGNER, 1, BOOT, Secret(b"i" * 32))
        self.outbox = Outbox(
            loop, self.producer, signer, names(""), book, self.metrics, lambda _: None,
            self._on_poison, self.bugs.append,
        )  # fmt: skip
        wire = make_wire("")
        self.signing = signing = Signing(
            loop, sources.system(), participant.start(seat, BOOT, wire), coordinator.start(seat, BOOT, wire),
            self.outbox, lambda _: None, self.bugs.append,
        )  # fmt: skip
        self.requests = Requests(
            loop, sources.system(), signing, self.outbox,
            DeadLetters(loop, self.producer, "", "signer-1", self.metrics), book, "",
            Limits(high, in_flight, 0.5), self.metrics, self._changed, self.bugs.append,
        )  # fmt: skip
        self.requests.attach(self.consumer)

    def _on_poison(self, found: Record, reason: str, detail: str) -> None:
        self.requests.keep(found, reason, detail)

    def _changed(self) -> None:
        self.changes += 1

    def knows(self, pod: edge.Pod) -> None:
        """There is a key, and nobody to sign with: what ``pod`` asks is waited with, and refused after 500 ms."""
        keys = edge.deal(edge.Dice(1), 3, 2).keys[Index(1)]
        edge_keys = {pod.edge_key_id: pod.public}
        self.signing.feed(
            ViewChanged(SigningView(Index(1), edge_keys, key_ids=(keys.key_id,), current={keys.key_id: keys}))
        )

    def deliver_all(self) -> None:
        """The broker confirms everything that was sent so far."""
        sent, self.producer.sent = self.producer.sent, []
        self.confirmed = sent
        for each in sent:
            each.deliver()


def raw_request(items: int = 1, edge_key: str = "0" * 16, created_ms: int | None = None) -> bytes:
    now = int(time.time() * 1000) if created_ms is None else created_ms
    each = tuple(
        SignItem(
            RequestId(str(uuid.uuid4())),
            KeyId("default"),
            Mode.SIGN,
            b"m",
            "anonymous",
            Instant(now),
            Instant(now + 5000),
        )
        for _ in range(items)
    )
    return codec.encode(MsgToSign(RecordId(str(uuid.uuid4())), each, "signer.v1.resp0", BOOT, EdgeKeyId(edge_key)))


def record(raw: bytes, offset: int, partition: int = 0) -> Record:
    return Record("signer.v1", partition, offset, None, None, raw)


def answers(sent: list[Sent]) -> list[MsgSigned]:
    return [
        codec.decode(codec.decode(each.value, Envelope).payload, MsgSigned)
        for each in sent
        if each.topic == "signer.v1.resp0"
    ]


def letters(sent: list[Sent]) -> list[DeadLetter]:
    return [codec.decode(each.value, DeadLetter) for each in sent if each.topic == "signer.v1.dlq"]


@pytest.mark.anyio
async def test_garbage_and_a_forgery_are_kept_answered_where_possible_and_the_offset_moves_on() -> None:
    world = World()
    world.requests.on_assigned(frozenset({0}))
    cut = raw_request()[:-1]
    too_long = raw_request(edge_key="0" * 16).replace(b"default", b"DEFAULT")
    world.requests.deliver([record(b"garbage", 0), record(cut, 1), record(too_long, 2), record(raw_request(), 3)])
    await until(lambda: len(letters(world.producer.sent)) == 4, "a letter for each")
    kept = {int(letter.offset): letter for letter in letters(world.producer.sent)}
    assert {offset: letter.reason for offset, letter in kept.items()} == {
        0: "not-single-object",
        1: "truncated",
        2: "out-of-bounds",
        3: "bad-edge-signature",
    }
    assert kept[0].value == b"garbage"
    assert kept[0].found_by == "signer-1"
    await until(lambda: len(answers(world.producer.sent)) == 2, "an answer where one can be addressed")
    codes = [
        a.outcomes[0].result.code for a in answers(world.producer.sent) if isinstance(a.outcomes[0].result, Refused)
    ]
    assert sorted(code.value for code in codes) == ["bad-edge-signature", "bad-request"]
    assert world.consumer.stored == {}
    world.deliver_all()
    assert world.consumer.stored == {0: 4}
    assert world.bugs == []


@pytest.mark.anyio
async def test_a_letter_that_no_broker_took_is_written_again_and_holds_the_offset() -> None:
    world = World()
    world.requests.on_assigned(frozenset({0}))
    world.requests.deliver([record(b"garbage", 0)])
    await until(lambda: world.producer.sent, "the letter")
    world.producer.sent.pop().deliver("_MSG_TIMED_OUT")
    assert world.consumer.stored == {}
    await until(lambda: world.producer.sent, "the letter again", 5)
    world.deliver_all()
    assert world.consumer.stored == {0: 1}


@pytest.mark.anyio
async def test_too_much_work_pauses_the_topic_and_finished_work_resumes_it_once() -> None:
    world = World(high=64, in_flight=16)  # one turn's worth: after it nothing is begun before something has ended
    world.requests.on_assigned(frozenset({0}))
    world.requests.deliver([record(raw_request(), offset) for offset in range(100)])
    assert world.consumer.calls == ["pause"]
    await until(lambda: world.consumer.calls == ["pause", "resume"], "the queue is worked off")
    # Refused at once, since nothing is known of any edge key: each has its answer, its audit and its letter.
    await until(lambda: len(answers(world.producer.sent)) == 100, "all answers")
    world.deliver_all()
    assert world.consumer.stored == {0: 100}


@pytest.mark.anyio
async def test_records_of_a_partition_that_went_away_are_not_begun() -> None:
    world = World()
    world.requests.on_assigned(frozenset({0, 1}))
    world.requests.deliver([record(raw_request(), 0, partition) for partition in (0, 1)])
    began = asyncio.get_running_loop().time()
    await world.requests.on_revoked(frozenset({0}))
    assert asyncio.get_running_loop().time() - began < 0.4
    await until(lambda: answers(world.producer.sent), "the one that is still ours")
    assert world.requests.partitions == (1,)
    world.deliver_all()
    assert world.consumer.stored == {1: 1}
    assert len(answers(world.confirmed)) == 1
    assert world.changes == 2


@pytest.mark.anyio
async def test_work_on_its_way_is_finished_before_a_revoked_partition_is_given_away() -> None:
    world = World()
    world.requests.on_assigned(frozenset({0}))
    world.requests.deliver([record(raw_request(), 0)])
    await until(lambda: len(answers(world.producer.sent)) == 1, "the answer is on its way")
    revoking = asyncio.create_task(world.requests.on_revoked(frozenset({0})))
    await asyncio.sleep(0.05)
    assert not revoking.done()
    world.deliver_all()
    await revoking
    assert world.consumer.stored == {0: 1}


@pytest.mark.anyio
async def test_a_topic_that_was_made_again_is_read_from_its_first_record_although_no_rebalance_tells_of_it() -> None:
    world = World()
    world.requests.on_assigned(frozenset({0, 1}))
    before = [record(raw_request(), offset) for offset in range(3)]
    world.requests.deliver([*before, record(raw_request(), 7, 1)])
    await until(lambda: len(answers(world.producer.sent)) == 4, "all answers")
    world.requests.deliver(before[2:])
    world.deliver_all()
    assert world.consumer.stored == {0: 3, 1: 8}
    world.requests.deliver([record(raw_request(), 0)])
    await until(lambda: len(answers(world.producer.sent)) == 1, "its answer; a record that came twice has none")
    world.deliver_all()
    assert world.consumer.stored == {0: 1, 1: 8}


@pytest.mark.anyio
async def test_a_topic_that_was_paused_when_its_partitions_were_lost_is_read_again_when_they_come_back() -> None:
    world, pod = World(), edge.Pod(edge.Dice(2))
    world.knows(pod)
    world.requests.on_assigned(frozenset({0}))
    _, raw = pod.record([pod.item(b"m", int(time.time() * 1000)) for _ in range(64)])
    world.requests.deliver([record(raw, 0)])
    await until(lambda: world.requests.in_flight == 64, "the coordinator has as much as we take")
    world.requests.deliver([record(raw, 1)])
    assert world.consumer.calls == ["pause"]
    world.requests.on_lost(frozenset({0}))
    # Nobody is answered, nothing is finished and, paused, nothing comes any more: it has to be told that it has room.
    await until(lambda: world.consumer.calls == ["pause", "resume"], "it reads on", 5)
    assert world.requests.in_flight == 0
    assert not world.bugs


@pytest.mark.anyio
async def test_nothing_of_a_lost_partition_is_stored() -> None:
    world = World()
    world.requests.on_assigned(frozenset({0}))
    world.requests.deliver([record(raw_request(), 0)])
    await until(lambda: len(answers(world.producer.sent)) == 1, "the answer is on its way")
    world.requests.on_lost(frozenset({0}))
    world.deliver_all()
    assert world.consumer.stored == {}
    assert world.requests.partitions == ()


@settings(max_examples=25)
@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_make_the_shell_raise(raw: bytes, prefixed: bool) -> None:
    async def scenario() -> None:
        world = World()
        world.requests.on_assigned(frozenset({0}))
        head = raw_request()[:10] if prefixed else b""
        world.requests.deliver([record(head + raw, 0)])
        await until(lambda: letters(world.producer.sent), "the letter", 5)
        world.deliver_all()
        assert world.consumer.stored == {0: 1}
        assert world.bugs == []

    asyncio.run(scenario())


def test_an_error_answer_goes_to_reply_topics_only() -> None:
    raw = raw_request()
    assert error_answer("", raw, BadInput("x", "y")) is not None
    assert error_answer("other.", raw, BadInput("x", "y")) is None
    elsewhere = raw.replace(b"signer.v1.resp0", b"signer.v1.peer1")
    assert error_answer("", elsewhere, BadInput("x", "y")) is None
    assert error_answer("", os.urandom(64), BadInput("x", "y")) is None


def test_what_cannot_be_read_is_refused_for_good() -> None:
    answer = error_answer("", raw_request(), BadInput("truncated", "cut"))
    assert answer is not None
    result = answer[1].outcomes[0].result
    assert isinstance(result, Refused)
    assert result.code is RefusalCode.BAD_REQUEST
    assert not result.retryable
