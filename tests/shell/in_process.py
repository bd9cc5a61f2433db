"""Real replicas in this process, that a test can look into and stop one by one."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from common.kafka.client import KafkaClient
from common.kafka.port import Hooks
from common.observability.metrics import Metrics
from signer_service.app import read_files
from signer_service.settings import Settings
from signer_service.shell.runner import Replica
from tests.brokers import Broker


@asynccontextmanager
async def replicas(
    broker: Broker, keys: Path, state: Path, seats: Iterable[int], **extra: int
) -> AsyncIterator[dict[int, Replica]]:
    """Run a replica for each of these seats until the block ends; with short times, and ``extra`` settings."""
    stop = asyncio.Event()
    running: dict[int, Replica] = {}
    tasks: list[asyncio.Task[None]] = []
    directories = []
    for seat in seats:
        settings = Settings(
            index=seat,
            kafka_bootstrap=broker.settings.bootstrap,
            kafka_embedded=broker.settings.embedded,
            topic_prefix=broker.prefix,
            secrets_dir=keys,
            state_dir=state / str(seat),
            **{"epoch_drain_ms": 300, "min_interval_ms": 100, **extra},  # type: ignore[arg-type]
        )
        given = read_files(settings, Metrics())
        directories.append(given.directory)
        running[seat] = Replica(given, KafkaClient(broker.settings, Hooks()))
        tasks.append(asyncio.create_task(running[seat].run(stop)))
    try:
        yield running
    finally:
        stop.set()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for directory in directories:
            directory.close()
        assert not [each for each in ended if each is not None]
