"""One broker for all, one running pod for each module that only asks, a world of its own for whoever breaks things."""

import io
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.kafka.embedded import EmbeddedBroker
from common.observability.logging import LogFormat, configure
from tests.rest_api.world import Pod, World, running_pod, world


@pytest.fixture(scope="session")
def cluster() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(scope="module")
async def shared_world(cluster: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with world(cluster, tmp_path_factory.mktemp("trust")) as made:
        yield made


@pytest.fixture(scope="module")
async def shared_pod(shared_world: World) -> AsyncIterator[Pod]:
    async with running_pod(shared_world.settings()) as pod:
        yield pod


@pytest.fixture
async def pod(shared_pod: Pod, shared_world: World) -> AsyncIterator[Pod]:
    """The module's pod; its committee is honest again after the test."""
    yield shared_pod
    shared_world.committee.reset()


@pytest.fixture
async def own_world(cluster: EmbeddedBroker, tmp_path: Path) -> AsyncIterator[World]:
    async with world(cluster, tmp_path / "trust") as made:
        yield made


@pytest.fixture(autouse=True)
def log_lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What was logged so far, line by line; the process's logging is as before when the test is over."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level, sys.excepthook, threading.excepthook)
    out = io.StringIO()
    configure(LogFormat.JSON, "info", "rest_api", 0, out)
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    root.handlers[:], level, sys.excepthook, threading.excepthook = before
    root.setLevel(level)
