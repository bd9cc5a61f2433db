"""What stands on the keys topic is looked at before a replica writes there: it may be newer than what that knows."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from common.ids import BootId, Index
from common.kafka.port import Record
from common.observability.metrics import Metrics
from common.secret import Secret
from common.wire import codec
from common.wire.envelope import Signer
from common.wire.messages import KeyRecord, Role
from signer_service.protocol.ceremony_disk import restore
from signer_service.shell import sources
from signer_service.shell.ceremonies import Ceremonies
from signer_service.shell.ears import Ears
from signer_service.shell.journal import StateDir
from signer_service.shell.keystore import Sealer
from signer_service.shell.names import names
from signer_service.shell.outbox import Outbox
from signer_service.shell.records import RecordBook
from tests import playbook
from tests.brokers import until
from tests.protocol.crash_world import again, beginning
from tests.protocol.test_lying_broker import current
from tests.shell.memory_producer import MemoryProducer

NAMES = names(playbook.TOPIC.removesuffix("signer.v1.ceremony"))


def two_epochs() -> tuple[KeyRecord, KeyRecord]:
    world, _ = again(beginning(2, 3))
    old = current(world, 1).record
    for index in world.seats:
        world.ask_refresh(index)
    world.run(lambda: world.agrees(2))
    return old, current(world, 1).record


class Started:
    """Seat 1, whose journal ends with epoch 1, on a broker that has lost the log; ``found`` is on the keys topic."""

    def __init__(self, path: Path, *found: bytes) -> None:
        world, _ = again(beginning(2, 3))
        loop, metrics = asyncio.get_running_loop(), Metrics()
        self.producer, self.garbage = MemoryProducer(), list[str]()
        self.now = 0.0
        self.ears = Ears(lambda: self.now, 1.5)
        signer = Signer(Role.SIGNER, 1, BootId(str(uuid.UUID(int=1))), Secret(b"i" * 32))
        self.directory = StateDir.open(path, Sealer(Secret(b"k" * 32), b"o" * 32, Index(1), os.urandom))
        disk = beginning(2, 3).disks[1]
        self.ceremonies = Ceremonies(
            loop,
            sources.system(),
            restore(disk, Index(1), world.trust, world.timing),
            self.directory,
            self.directory.load(),
            self.producer,
            Outbox(
                loop,
                self.producer,
                signer,
                NAMES,
                RecordBook(lambda *_: None),
                metrics,
                lambda _: None,
                lambda *_: None,
                self.failed,
            ),
            lambda _, code: self.garbage.append(code),
            signer,
            NAMES,
            metrics,
            lambda _: None,
            lambda _: None,
            self.ears,
        )
        for offset, value in enumerate(found):
            record = Record(NAMES.keys, 0, offset, None, playbook.KEY.encode(), value)
            self.ceremonies.copies.deliver([record])

    def failed(self, error: BaseException) -> None:
        raise error

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.ceremonies.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self.directory.close()

    async def until_caught_up(self) -> list[KeyRecord]:
        """Run until it has read what there is; returns what it wrote to the keys topic."""
        async with self.running():
            after = self.ceremonies.state.log.offset + 1
            self.ceremonies.lost()
            self.ceremonies.positioned(after, after)
            await until(self.ceremonies.caught_up.is_set, "all was read")
            await until(self.ceremonies._queue.empty, "nothing is left to do")
        return [codec.decode(sent.value, KeyRecord) for sent in self.producer.on(NAMES.keys)]


@pytest.mark.anyio
async def test_a_replica_that_is_behind_on_a_lost_log_does_not_write_its_copy_over_a_newer_one(tmp_path: Path) -> None:
    _, new = two_epochs()
    assert await Started(tmp_path, codec.encode(new)).until_caught_up() == []


@pytest.mark.anyio
@pytest.mark.parametrize("found", [(), (b"rubbish",)])
async def test_where_no_copy_can_be_believed_it_is_written_at_once(tmp_path: Path, found: tuple[bytes, ...]) -> None:
    old, _ = two_epochs()
    started = Started(tmp_path, *found)
    assert await started.until_caught_up() == [old]
    assert len(started.garbage) == len(found)


@pytest.mark.anyio
async def test_a_copy_that_is_right_is_not_written_again(tmp_path: Path) -> None:
    old, _ = two_epochs()
    assert await Started(tmp_path, codec.encode(old)).until_caught_up() == []
