"""A module's tests share a demo; it is on an embedded broker, unless the module says otherwise."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.brokers import apache
from tests.system.running_demo import RunningDemo, running_demo

__all__ = ["apache", "demo", "on_broker", "started"]


@pytest.fixture(scope="module")
def on_broker() -> tuple[str, ...]:
    """The demo's arguments that choose its broker."""
    return ()


@pytest.fixture(scope="module")
def started(on_broker: tuple[str, ...]) -> Iterator[Callable[[], RunningDemo]]:
    """Gives the module's demo, which is started anew if a test has ended it."""
    with contextlib.ExitStack() as stack:
        running: list[RunningDemo] = []

        def get() -> RunningDemo:
            if not running or running[-1].process.poll() is not None:
                running.append(stack.enter_context(running_demo(*on_broker)))
                running[-1].wait_ready()
            return running[-1]

        yield get


@pytest.fixture
def demo(started: Callable[[], RunningDemo]) -> RunningDemo:
    return started()
