"""``signer-flow`` as a process of its own, without importing everything anew for each command.

One process has imported what the commands need, and each command is a fork of it: with its own arguments, environment
and descriptors, its own exit code, and open to signals as any other. That the program works when it is started in the
usual way, and what it loads then, is tested where that is the question.

Run as a program this is that process. It is asked on a socket (argument: its descriptor), with standard input, output
and error of the command and a socket that will be told the process id, and later the exit code.
"""

import asyncio
import atexit
import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final

_MOST_BYTES: Final = 65_536
_MODULES: Final = ("signing", "batch", "cluster", "token")
"""Of ``rest_api.commands``."""


class Forked:
    """A command that runs: the part of ``asyncio``'s ``Process`` that tests use."""

    def __init__(self, pid: int, control: socket.socket, ends: tuple[int, int, int]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._control = control
        self._stdin, self._stdout, self._stderr = ends

    async def communicate(self, given: bytes) -> tuple[bytes, bytes]:
        """Write standard input, read output (empty where it goes elsewhere) and error to their ends, and wait."""
        out, err, *_ = await asyncio.gather(_read(self._stdout), _read(self._stderr), _write(self._stdin, given))
        loop = asyncio.get_running_loop()
        self.returncode = int(await loop.sock_recv(self._control, 16) or b"-9")
        self._control.close()
        return out, err

    def send_signal(self, number: int) -> None:
        """To the command, which may have ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it now."""
        self.send_signal(signal.SIGKILL)


async def run(arguments: Sequence[str], environment: Mapping[str, str], stdout: int | None = None) -> Forked:
    """Start ``signer-flow`` with these arguments; ``stdout`` is a descriptor, None a pipe."""
    stdin_theirs, stdin = os.pipe()
    out, out_theirs = os.pipe() if stdout is None else (-1, os.dup(stdout))
    err, err_theirs = os.pipe()
    control, control_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.setblocking(False)
    asked = json.dumps([list(arguments), dict(environment)]).encode()
    theirs = (stdin_theirs, out_theirs, err_theirs, control_theirs.detach())
    try:
        assert len(asked) < _MOST_BYTES
        socket.send_fds(_parent(), [asked], theirs)
    finally:
        for each in theirs:
            os.close(each)
    pid = int(await asyncio.get_running_loop().sock_recv(control, 16))
    return Forked(pid, control, (stdin, out, err))


async def _read(descriptor: int) -> bytes:
    if descriptor < 0:
        return b""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    pipe = os.fdopen(descriptor, "rb", 0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        return await reader.read()
    finally:
        transport.close()


async def _write(descriptor: int, given: bytes) -> None:
    loop = asyncio.get_running_loop()
    pipe = os.fdopen(descriptor, "wb", 0)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, pipe)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    with contextlib.suppress(ConnectionError):
        writer.write(given)
        await writer.drain()
    writer.close()


_started: list[socket.socket] = []


def _parent() -> socket.socket:
    """The socket of the process that is forked, which is started by the first who wants it."""
    if not _started:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.cli.forks", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        _started.append(ours)

        def end() -> None:
            ours.close()
            process.wait(10)

        atexit.register(end)
    return _started[0]


# --- the process that is forked ---------------------------------------------------------------------------------------


def serve(asked: socket.socket) -> bool:
    """Fork for whoever asks. Returns True in the child, which then is the command; False when nobody will ask again."""
    running: dict[int, socket.socket] = {}
    wake, woken = socket.socketpair()
    for each in (wake, woken):
        each.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno())
    with selectors.DefaultSelector() as ready:
        ready.register(asked, selectors.EVENT_READ)
        ready.register(wake, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is wake:
                    wake.recv(4096)
                    _reap(running)
                    continue
                message, descriptors, _, _ = socket.recv_fds(asked, _MOST_BYTES, 4)
                if not message:
                    return False
                control = socket.socket(fileno=descriptors[3])
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for other in (asked, wake, woken, control, *running.values()):
                        other.close()
                    _become(descriptors[:3], *json.loads(message))
                    return True
                for descriptor in descriptors[:3]:
                    os.close(descriptor)
                running[pid] = control
                control.send(b"%d" % pid)


def _reap(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with running.pop(pid) as control, contextlib.suppress(OSError):
            control.send(b"%d" % os.waitstatus_to_exitcode(status))


def _become(descriptors: Sequence[int], arguments: list[str], environment: dict[str, str]) -> None:
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    # Buffered as the interpreter does it for what stands behind the descriptors.
    sys.stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stderr = open(2, "w", 1, closefd=False, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115


if __name__ == "__main__":
    from rest_api import cli

    for module in _MODULES:
        importlib.import_module(f"rest_api.commands.{module}")
    # Some libraries import more when they are first used: a command that is refused has used them.
    with contextlib.suppress(Exception):
        cli.program(("sign",))(["sign", "-", "--url", "nonsense"], standalone_mode=False)
    gc.collect()
    gc.freeze()
    if serve(socket.socket(fileno=int(sys.argv[1]))):
        # At the top level, so that the command ends as it would: exit code, output flushed, an interrupt.
        cli.main()
