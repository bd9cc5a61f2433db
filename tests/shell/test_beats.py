"""When a replica beats, and which copies of key records it proves: what a refresh costs beside its arithmetic."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from common import ed25519
from common.clock_skew import SkewMeter
from common.errors import BadInput
from common.ids import BootId, Index, KeyId
from common.kafka.hearing import Hearing
from common.kafka.port import Record
from common.observability.metrics import Metrics
from common.wire import codec, topics
from common.wire.envelope import Signer
from common.wire.messages import KeyRecord, ReplicaState, Role
from signer_service.protocol.ceremony_state import KeyCopySeen
from signer_service.shell import sources
from signer_service.shell.beats import Beats
from signer_service.shell.key_copies import KeyCopies
from tests import playbook
from tests.brokers import until
from tests.shell.memory_producer import MemoryProducer
from tests.world import World

NEVER_S = 3_600.0
TOPIC = topics.presence("").name


@asynccontextmanager
async def beating(producer: MemoryProducer) -> AsyncIterator[Beats]:
    """Beats that come only when they are asked for, after the first."""
    loop = asyncio.get_running_loop()
    private, _ = ed25519.generate_keypair(bytes(32))
    bugs: list[BaseException] = []
    beats = Beats(
        loop,
        producer,
        Signer(Role.SIGNER, Index(1), BootId("5f2f8f6e-5b35-4b7e-9b3e-000000000000"), private),
        TOPIC,
        sources.system(),
        Metrics(),
        int(NEVER_S * 1000),
        lambda: ReplicaState.READY,
        lambda: ((), 0, 0, 0),
        lambda: (),
        SkewMeter(),
        bugs.append,
        Hearing(loop.time, lambda: None),
    )
    beats.start()
    try:
        yield beats
    finally:
        beats.stop()
    assert not bugs


@pytest.mark.anyio
async def test_phases_that_pass_quickly_are_told_by_one_beat() -> None:
    producer = MemoryProducer()
    async with beating(producer) as beats:
        for _ in range(5):
            beats.within(0.01)
        await until(lambda: len(producer.sent) == 2, "the beat that tells of them")
        beats.within(NEVER_S)
        beats.now()
        await until(lambda: len(producer.sent) == 3, "a beat that did not wait")
        # That one told of the phase, too: none is owed any more, and the next phase waits its own time.
        beats.within(0.01)
        await until(lambda: len(producer.sent) == 4, "the next phase's beat")


@pytest.mark.anyio
async def test_nothing_is_to_beat_after_the_end() -> None:
    producer = MemoryProducer()
    async with beating(producer) as beats:
        beats.within(NEVER_S)
        assert owed(beats)
    assert not owed(beats)
    beats.within(0.0)
    beats.now()
    assert not owed(beats)
    assert len(producer.sent) == 1


def owed(beats: Beats) -> bool:
    return beats._later is not None or beats._soon is not None


def a_record() -> KeyRecord:
    world = World(2, 3)
    world.start()
    world.run(lambda: world.holds(1))
    commit = world.key().current
    assert commit is not None
    return commit.record


def test_a_copy_of_what_the_log_has_shown_is_not_proven_again_and_any_other_is() -> None:
    known, checked, seen, garbage = a_record(), list[bytes](), list[KeyCopySeen](), list[str]()

    def check(raw: bytes) -> KeyRecord:
        checked.append(raw)
        raise BadInput("group-signature", "as the test wants")

    believed: dict[KeyId, KeyRecord] = {}
    copies = KeyCopies(check, believed.get, seen.append, lambda _, code: garbage.append(code))
    copies.show()
    raw = codec.encode(known)
    changed = raw[:-1] + bytes([raw[-1] ^ 1])

    def read(value: bytes) -> None:
        copies.deliver([Record("signer.v1.keys", 0, copies.next, None, playbook.KEY.encode(), value)])

    read(raw)
    assert (checked, seen[-1].record) == ([raw], None)
    believed[playbook.KEY] = known
    read(raw)
    assert (checked, seen[-1].record) == ([raw], known)
    read(changed)
    assert (checked, seen[-1].record) == ([raw, changed], None)
    assert garbage == ["group-signature"] * 2
