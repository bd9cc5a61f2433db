"""Connections are taken as they come: a crowd at once, none lost at the close, and on again after a shortage."""

import asyncio
import errno
import os
import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from rest_api import accepting
from rest_api.accepting import Listener
from tests.brokers import until

pytestmark = pytest.mark.anyio

CROWD = 200


class Greeter(asyncio.Protocol):
    """Says hello; each is remembered."""

    made: list["Greeter"] = []  # noqa: RUF012 - emptied by the fixture

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport
        transport.write(b"hello")
        Greeter.made.append(self)


@pytest.fixture(autouse=True)
def _nobody_yet() -> Iterator[None]:
    yield
    Greeter.made.clear()


def listening() -> socket.socket:
    made = socket.create_server(("127.0.0.1", 0), backlog=2 * CROWD)
    made.setblocking(False)
    return made


def connected(stack: ExitStack, to: socket.socket) -> socket.socket:
    """By the kernel: the event loop has not turned meanwhile."""
    made = stack.enter_context(socket.create_connection(to.getsockname(), timeout=20))
    made.settimeout(20)
    return made


async def heard(connection: socket.socket) -> bytes:
    return await asyncio.to_thread(connection.recv, 100)


async def test_a_crowd_is_taken_in_one_turn_and_a_larger_one_leaves_turns_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accepting, "AT_ONCE", CROWD // 2)
    taken: list[int] = []

    def serve() -> Greeter:
        taken.append(1)
        return Greeter()

    with ExitStack() as stack, listening() as door:
        listener = Listener(door, serve)
        crowd = [connected(stack, door) for _ in range(CROWD)]
        assert not taken
        counts: list[int] = []
        while len(taken) < CROWD and len(counts) < CROWD:
            await asyncio.sleep(0)
            counts.append(len(taken))
        assert set(counts) <= {0, CROWD // 2, CROWD}
        assert [await heard(each) for each in crowd] == [b"hello"] * CROWD
        await listener.close()


async def test_who_waits_when_it_closes_is_served_and_who_comes_later_is_refused() -> None:
    with ExitStack() as stack, listening() as door:
        listener = Listener(door, Greeter)
        address = door.getsockname()
        crowd = [connected(stack, door) for _ in range(CROWD)]
        await listener.close()
        await listener.close()
        assert not listener.is_serving()
        assert len(Greeter.made) == CROWD
        assert [await heard(each) for each in crowd] == [b"hello"] * CROWD
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=20)


async def test_a_crowd_that_goes_on_coming_does_not_keep_it_from_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "AT_ONCE", CROWD // 10)
    monkeypatch.setattr(accepting, "BACKLOG", CROWD)
    with ExitStack() as stack, listening() as door:

        def serve() -> Greeter:
            if door.fileno() >= 0:
                connected(stack, door)  # for each who is taken, another comes
            return Greeter()

        listener = Listener(door, serve)
        for _ in range(CROWD // 2):
            connected(stack, door)
        async with asyncio.timeout(60):
            await listener.close()
        assert len(Greeter.made) == CROWD


async def test_no_more_are_taken_than_have_their_descriptors_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "AT_ONCE", CROWD // 10)
    most = 0
    with ExitStack() as stack, listening() as door:
        listener = Listener(door, Greeter)
        crowd = [connected(stack, door) for _ in range(CROWD)]
        while len(Greeter.made) < CROWD:
            async with asyncio.timeout(20):
                await asyncio.sleep(0)
            most = max(most, len(listener._making))
        assert most == CROWD // 10
        assert [await heard(each) for each in crowd] == [b"hello"] * CROWD
        await listener.close()


async def test_who_went_before_he_was_taken_disturbs_nobody() -> None:
    with ExitStack() as stack, listening() as door:
        listener = Listener(door, Greeter)
        gone = connected(stack, door)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        gone.close()
        assert await heard(connected(stack, door)) == b"hello"
        await listener.close()


class Failing(socket.socket):
    """A listening socket of which a connection is taken with an error each, while there are some."""

    errors: list[int] = []  # noqa: RUF012 - a socket has no other attributes; emptied as they are met

    def accept(self) -> tuple[socket.socket, Any]:
        made = super().accept()
        if self.errors:
            made[0].close()
            raise OSError(self.errors.pop(), "as the test wants")
        return made


@pytest.fixture
def failing() -> Iterator[Failing]:
    with Failing(fileno=listening().detach()) as door:
        yield door
    Failing.errors.clear()


async def test_an_error_of_one_connection_at_the_close_loses_no_other(failing: Failing) -> None:
    with ExitStack() as stack:
        listener = Listener(failing, Greeter)
        crowd = [connected(stack, failing) for _ in range(20)]
        Failing.errors += [errno.EPROTO, errno.EPERM, errno.EHOSTUNREACH]
        await listener.close()
        assert [await heard(each) for each in crowd] == [b""] * 3 + [b"hello"] * 17


async def test_without_descriptors_at_the_close_it_ends_and_says_so(
    failing: Failing, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as stack:
        listener = Listener(failing, Greeter)
        for _ in range(5):
            connected(stack, failing)
        Failing.errors += [errno.EMFILE]
        async with asyncio.timeout(20):
            await listener.close()
        assert not Greeter.made
        assert caplog.text.count("connections that waited are lost") == 1


async def test_an_error_of_one_connection_keeps_it_from_no_other(failing: Failing) -> None:
    with ExitStack() as stack:
        listener = Listener(failing, Greeter)
        Failing.errors += [errno.EPROTO, errno.EPERM]
        crowd = [connected(stack, failing) for _ in range(3)]
        assert [await heard(each) for each in crowd] == [b"", b"", b"hello"]
        await listener.close()


async def test_without_descriptors_it_waits_says_so_now_and_then_and_goes_on_when_there_are_some(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    tries: set[int] = set()

    def tried(listener: Listener, times: int) -> bool:
        tries.add(int(listener._again.when() * 1e6) if listener._again else 0)
        return len(tries) > times

    with ExitStack() as stack, listening() as door:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        listener = Listener(door, Greeter)
        client = connected(stack, door)
        with open(os.devnull, "rb") as highest:  # noqa: PTH123, ASYNC230 - its number is what is wanted
            lowest_free = highest.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        await until(lambda: tried(listener, 4), "it is tried again and again")
        assert caplog.text.count("no connection can be taken") == 1
        monkeypatch.setattr(accepting, "SAY_AGAIN_S", 0.0)
        listener._say_at = 0.0
        await until(lambda: caplog.text.count("no connection can be taken") >= 3, "it lasts, and is said")
        assert not Greeter.made
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert await heard(client) == b"hello"
        await listener.close()
