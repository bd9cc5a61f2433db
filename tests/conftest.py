"""What every test may rely on."""

import gc
import logging
import sys
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests import hung, stages

# No deadline per example: two workers share two cores, and a slow example is no failure. `timeout` bounds the test.
settings.register_profile("default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")

LONGEST_FIRST: Final = (
    "system/test_demo.py",
    "system/test_demo_on_apache.py",
    "chaos/test_chaos.py",
    "chaos/test_broker_trouble.py",
    "cli/test_batch.py",
    "integration/test_compose.py",
    "integration/test_three_brokers.py",
    "browser/test_sign_page.py",
    "shell/test_road.py",
    "shell/test_new_log.py",
    "kafka/test_apache.py",
    "kafka/test_both_brokers.py",
    "kafka/test_locked_broker.py",
    "integration/test_system.py",
    "integration/test_system_in_containers.py",
    "integration/test_port_contract.py",
    "browser/test_connection.py",
    "browser/test_accessibility.py",
    "shell/test_ends.py",
    "shell/test_lost_topics.py",
    "system/test_nothing_secret_is_printed.py",
    "rest_api/test_answers_in_time.py",
    "system/test_outage.py",
    "cli/test_commands.py",
    "wire/test_codec.py",
    "protocol/test_signing_world.py",
    "protocol/test_overload.py",
    "kafka/test_launcher.py",
    "kafka/test_faults.py",
    "rest_api/test_websocket.py",
    "system/test_stopping.py",
    "deploy/test_chart.py",
    "deploy/test_chart_suites.py",
    "deploy/test_refusals.py",
)
"""Files of more than about ten seconds."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and tests stay until the end: the collector need not look through them again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stage by stage, in each the longest files first: a file stays in one worker, and the last to begin decides when
    all have ended."""
    here = Path(__file__).parent
    place = {here / name: number for number, name in enumerate(LONGEST_FIRST)}
    stage = stages.assign(items)
    items.sort(key=lambda item: (stage[item.path], place.get(item.path, len(place))))


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--stages``: see ``tests/stages.py``."""
    parser.addoption("--stages", action="store_true", help="run nothing of a later stage once one has failed")


def pytest_configure(config: pytest.Config) -> None:
    """Put in what watches over every test, and what the command line asked for."""
    config.pluginmanager.register(hung.Hung(), "signer-flow-hung")
    stages.configure(config)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio: the services use nothing else."""
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
def _logging_is_as_before() -> Iterator[None]:
    """A file that configured the process's logging would decide what the next file's ``caplog`` sees."""
    root = logging.getLogger()
    level, hooks, ours = root.level, (sys.excepthook, threading.excepthook), structlog.get_config()
    yield
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    structlog.configure(**ours)
    for handler in list(root.handlers):
        if isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(handler)
