"""Real replicas in this process, on one event loop: for tests that have to look inside of several at once."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from common.kafka.client import KafkaClient
from common.kafka.port import Hooks
from common.observability.metrics import Metrics
from common.observability.spans import Spans
from signer_service.app import read_files
from signer_service.provision import Plan, provision
from signer_service.settings import Settings
from signer_service.shell.runner import Replica
from tests.brokers import Broker


def provisioned(folder: Path, signers: int, threshold: int) -> Path:
    """The files of a new system, as ``provision`` writes them."""
    provision(folder, Plan(signers, threshold), os.urandom)
    return folder


@contextlib.asynccontextmanager
async def running_replicas(
    broker: Broker, keys: Path, state: Path, spans: Mapping[int, Spans]
) -> AsyncIterator[dict[int, Metrics]]:
    """Run a replica for each seat of ``spans`` until the block ends. Yields their metrics by seat."""
    stop = asyncio.Event()
    metrics = {seat: Metrics() for seat in spans}
    tasks: list[asyncio.Task[None]] = []
    with contextlib.ExitStack() as opened:
        for seat, own in spans.items():
            settings = Settings(
                index=seat,
                kafka_bootstrap=broker.settings.bootstrap,
                kafka_embedded=broker.settings.embedded,
                topic_prefix=broker.prefix,
                secrets_dir=keys,
                state_dir=state / str(seat),
            )
            given = read_files(settings, metrics[seat], own)
            opened.callback(given.directory.close)
            tasks.append(asyncio.create_task(_run(Replica(given, KafkaClient(broker.settings, Hooks())), stop)))
        try:
            yield metrics
        finally:
            stop.set()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if ended is not None:
                    raise ended


async def _run(replica: Replica, stop: asyncio.Event) -> None:
    await replica.run(stop)
