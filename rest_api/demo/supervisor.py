"""The order of a demo: keys, broker, topics, children, one real signature, and a clean end.

Everything it makes is in one temporary folder (mode 0700) that goes when it ends, unless ``--state-dir`` keeps the
keys; on a real broker its topics have a prefix of their own and are deleted at the end, unless they belong to a kept
state.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import httpx
import typer
from stamina.instrumentation import set_on_retry_hooks

from common.errors import SignerFlowError, Unavailable
from common.kafka.client import KafkaClient
from common.kafka.embedded import EmbeddedBroker
from common.kafka.settings import KafkaSettings
from common.wire import topics
from rest_api.client import AsyncClient, ClientError
from rest_api.demo import plan as plans
from rest_api.demo.children import Child
from rest_api.demo.plan import HOST, Place, Plan

READY_WITHIN_S: Final = 90.0
STOP_WITHIN_S: Final = 3.5
"""Then SIGKILL: the whole end takes less than 5 s."""


class DemoError(Exception):
    """The demo cannot go on; the text is one line with the remedy."""


def run(plan: Plan) -> int:
    """Run a demo until SIGINT or SIGTERM.

    Returns:
        Exit code: 0 when it was told to end, 4 when it could not start.
    """
    # stamina would tell of each retry on standard output; what the demo prints is its own.
    set_on_retry_hooks(())
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_run(plan))
    except (DemoError, SignerFlowError) as error:
        typer.echo(f"signer-flow demo: {getattr(error, 'detail', error)}", err=True)
        return 4
    return 0


def _say(line: str) -> None:
    typer.echo(line)


def _echo(name: str, line: str) -> None:
    typer.echo(f"{name} | {line}", err=True)


async def _run(plan: Plan) -> None:
    stop = asyncio.Event()
    failure: list[str] = []

    def hopeless(line: str) -> None:
        failure.append(line)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    _check_ports(plan)
    async with _place(plan) as place:
        children = [Child(plans.signer(plan, place, m), _say, _echo) for m in range(1, plan.signers + 1)]
        children += [Child(plans.api(plan, place, n), _say, _echo) for n in range(plan.apis)]
        tasks = [asyncio.create_task(child.supervise(hopeless)) for child in children]
        try:
            await _first_of(stop, asyncio.create_task(_wait_until_signing(plan)))
            if not stop.is_set():
                _say(f"ready: {plan.url}/sign")
                await stop.wait()
        finally:
            await _stop(children, tasks)
    if failure:
        raise DemoError(failure[0])


async def _first_of(stop: asyncio.Event, work: "asyncio.Task[None]") -> None:
    """Wait for ``work`` (and raise what it raised), or until it is time to stop."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({stopped, work}, return_when=asyncio.FIRST_COMPLETED)
    for task in (stopped, work):
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    if not stop.is_set():
        work.result()


async def _wait_until_signing(plan: Plan) -> None:
    """Return when the first API pod has really signed something, verified here."""
    nonce = b"signer-flow demo " + secrets.token_hex(8).encode()
    deadline = asyncio.get_running_loop().time() + READY_WITHIN_S
    wrong = ""
    async with (
        AsyncClient(plan.url, retry_for_s=0.0) as client,
        httpx.AsyncClient(**client.http) as probe,
    ):
        while asyncio.get_running_loop().time() < deadline:
            try:
                # Asked for first: a request that comes too early is refused, and the pod warns of each that is.
                answer = await probe.get("/readyz")
                if answer.is_success:
                    await client.sign(nonce)
                    return
                wrong = answer.text
            except (ClientError, httpx.HTTPError) as error:
                wrong = str(error) or type(error).__name__
            await asyncio.sleep(0.1)
    raise DemoError(f"not ready after {READY_WITHIN_S:.0f} s: {wrong}; try --log-level info")


async def _stop(children: list[Child], tasks: "list[asyncio.Task[None]]") -> None:
    # Pods first: they answer what is pending while the signers are still there.
    for child in reversed(children):
        child.terminate()
    _, late = await asyncio.wait(tasks, timeout=STOP_WITHIN_S)
    for child in children:
        child.kill()
    if late:
        await asyncio.wait(late, timeout=1.0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _check_ports(plan: Plan) -> None:
    for port, option in plan.ports().items():
        with socket.socket() as probe:
            # As a server would: a port in TIME_WAIT is free for it.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except (OSError, OverflowError):
                value = plan.port if option == "--port" else plan.admin_port
                raise DemoError(
                    f"port {port} is taken: stop what listens there, or try another, such as {option} {value + 1000}"
                ) from None


@contextlib.asynccontextmanager
async def _place(plan: Plan) -> AsyncIterator[Place]:
    """Folders, keys, broker and topics; undone in the reverse order."""
    async with contextlib.AsyncExitStack() as stack:
        if plan.state_dir is None:
            root = Path(stack.enter_context(_temporary_folder()))
            prefix = "" if plan.kafka is None else f"demo-{secrets.token_hex(4)}."
        else:
            root = plan.state_dir
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            prefix = ""
        keys, state = root / "keys", root / "state"
        await asyncio.to_thread(_provision, plan, keys)
        specs = topics.all_topics(prefix, plan.apis, plan.signers, 1)
        if plan.kafka is None:
            broker = stack.enter_context(EmbeddedBroker())
            broker.create_topics(specs)
            _say("embedded broker: for trying out only; it keeps nothing, and its speed means nothing (see --kafka)")
            yield Place(keys, state, broker.bootstrap, prefix, embedded=True)
        else:
            kafka = KafkaClient(KafkaSettings(plan.kafka, "signer-flow-demo", topic_prefix=prefix))
            admin = kafka.admin()
            stack.push_async_callback(admin.close)
            try:
                await admin.ensure(specs)
            except Unavailable as error:
                raise DemoError(f"--kafka: {error.detail}; `make kafka` starts one") from None
            if prefix:
                stack.push_async_callback(admin.delete, [spec.name for spec in specs])
            yield Place(keys, state, plan.kafka, prefix, embedded=False)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="signer-flow-demo-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _provision(plan: Plan, keys: Path) -> None:
    done = subprocess.run(  # noqa: S603 (our own module, by our own interpreter)
        plans.provision_command(plan, keys),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=dict(os.environ),
    )
    if done.returncode != 0:
        line = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise DemoError(f"key files could not be made: {line}")
