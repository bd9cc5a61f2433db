"""What the commands of the chart's Jobs share: several pods asked in turn, waiting, and the way past a check."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Annotated, Final, TypeVar

import typer

from rest_api.client import Client, ClientError
from rest_api.commands.options import DEFAULT_URL, connect, note

POLL_EVERY_S: Final = 0.5
NOBODY: Final = "no API pod can be asked"

WaitS = Annotated[float, typer.Option("--wait-s", min=1, max=3600, help="How long to wait for that.")]
Urls = Annotated[
    list[str],
    typer.Option(
        "--url",
        envvar="SIGNER_FLOW_URL",
        default_factory=lambda: [DEFAULT_URL],
        help="Base URL of the API; several, such as one per pod, are asked in turn.",
    ),
]
Revision = Annotated[
    int | None, typer.Option("--revision", min=1, help="The release's revision that asks; the next one is named by it.")
]
_Answer = TypeVar("_Answer")


@contextmanager
def connected(urls: Sequence[str], token: str | None) -> Iterator[list[Client]]:
    """A client for each pod, of one attempt each: whoever waits asks them all again."""
    with ExitStack() as stack:
        yield [stack.enter_context(connect(url, token, retry_for_s=0)) for url in urls]


def answers(pods: Sequence[Client], ask: Callable[[Client], _Answer]) -> tuple[list[_Answer], str]:
    """What those pods say that answer, and why the first one does not; empty if each did."""
    found, why = [], ""
    for api in pods:
        try:
            found.append(ask(api))
        except ClientError as error:
            why = why or f"{NOBODY}: {error}"
    return found, why


def waited(ask: Callable[[], str], saying: str, wait_s: float) -> str:
    """Ask until the answer is empty, and say each one that is new. Returns what it is after ``wait_s``."""
    ends_at = time.monotonic() + wait_s
    told = ""
    while (line := ask()) and time.monotonic() <= ends_at:
        if line != told:
            note(f"{saying}: {line}")
            told = line
        time.sleep(POLL_EVERY_S)
    return line


def way_past(value: str, revision: int | None) -> str:
    """The setting that lets one upgrade pass and no later one: it names the revision that this upgrade makes."""
    if revision is None:
        return (
            f"--set {value}.skipRevision=N, where N is the revision that the upgrade makes (helm history says the last)"
        )
    return f"--set {value}.skipRevision={revision + 1} (the revision that the next upgrade makes: see helm history)"
