"""Child processes of the demo: started, watched, restarted, and never left behind."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

RESTART_AFTER_S: Final = 2.0
EXIT_CONFIG: Final = 2
"""A child that ends with this says that its configuration or its files are wrong: starting it again cannot help."""

# Run in the child before anything else: if the demo itself is killed with SIGKILL, the kernel ends the child too
# (PR_SET_PDEATHSIG is 1 and survives exec). The parent may have died before the call, hence the look at getppid.
_TETHER: Final = (
    "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9,0,0,0);"
    "os.getppid()==int(sys.argv[1]) or os._exit(1);os.execv(sys.argv[2],sys.argv[2:])"
)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run: ``name`` stands before each of its lines; ``env`` is added to a cleaned environment."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]


class Child:
    """One supervised process. ``say`` gets the demo's own lines, ``echo`` the child's output, line by line."""

    def __init__(self, spec: ChildSpec, say: Callable[[str], None], echo: Callable[[str, str], None]) -> None:
        self.spec = spec
        self.last_line = ""
        self._say = say
        self._echo = echo
        self._process: asyncio.subprocess.Process | None = None
        self._stop = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return None if self._process is None else self._process.pid

    async def supervise(self, on_hopeless: Callable[[str], None]) -> None:
        """Run it until ``stop``; a process that dies is said in one line and started again after 2 s.

        ``on_hopeless`` gets the child's last line when it ended because its configuration is wrong.
        """
        while not self._stop.is_set():
            code = await self._run_once()
            if self._stop.is_set():
                return
            if code == EXIT_CONFIG:
                on_hopeless(f"{self.spec.name} cannot start: {self.last_line}")
                return
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            self._say(f"{self.spec.name} {how}; starting it again in {RESTART_AFTER_S:.0f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), RESTART_AFTER_S)

    async def _run_once(self) -> int:
        argv = list(self.spec.argv)
        if sys.platform == "linux":
            argv = [sys.executable, "-I", "-S", "-c", _TETHER, str(os.getpid()), *argv]
        self._process = await asyncio.create_subprocess_exec(
            *argv,
            env=_environment(self.spec.env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Ctrl-C in a terminal reaches the whole foreground group; the demo alone decides how its children end.
            start_new_session=True,
            limit=1024 * 1024,
        )
        if self._stop.is_set():  # the word to stop came while it was being started
            self.kill()
        assert self._process.stdout is not None  # noqa: S101 (PIPE was asked for)
        async for raw in _lines(self._process.stdout):
            self.last_line = raw.decode("utf-8", "replace").rstrip()
            if self.last_line:
                self._echo(self.spec.name, self.last_line)
        return await self._process.wait()

    def terminate(self) -> None:
        """Ask it to end (SIGTERM); it will not be started again."""
        self._stop.set()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now."""
        self._stop.set()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        try:
            line = await stream.readline()
        except ValueError:
            continue  # a line over the limit: the reader has dropped it
        if not line:
            return
        yield line


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Ours, without settings of a signer-flow that the user may have in the shell for another system."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SIGNER_REST_API_", "SIGNER_SERVICE_"))}
    return {**kept, "PYTHONUNBUFFERED": "1", **extra}
