"""What every test may rely on."""

import gc
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

# No deadline per example: two workers share two cores, and a slow example is no failure. `timeout` bounds the test.
settings.register_profile("default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")

LONGEST_FIRST: Final = (
    "system/test_demo.py",
    "system/test_demo_on_apache.py",
    "chaos/test_chaos.py",
    "cli/test_batch.py",
    "browser/test_sign_page.py",
    "shell/test_road.py",
    "kafka/test_apache.py",
    "kafka/test_both_brokers.py",
    "browser/test_connection.py",
    "browser/test_accessibility.py",
    "shell/test_ends.py",
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
    """Begin with the longest files: a file stays in one worker, and the last to begin decides when all have ended."""
    here = Path(__file__).parent
    place = {here / name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio: the services use nothing else."""
    return "asyncio"
