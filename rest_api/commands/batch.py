"""``signer-flow batch``: every row of a CSV signed, in order, a bad row failing alone."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from rest_api.client import Signature
from rest_api.commands import results
from rest_api.commands.csv_input import CsvInput, InputError, Row
from rest_api.commands.interrupts import Interrupts
from rest_api.commands.options import (
    DEFAULT_URL,
    INTERRUPTED,
    INVALID,
    UNAVAILABLE,
    USAGE,
    Key,
    PublicKey,
    Timeout,
    Token,
    Url,
    connect,
    fail,
    note,
)
from rest_api.commands.pipeline import Pace, Sender, run
from rest_api.commands.results import OutputError, Result, Results

RETRY_FOR_S = 30.0


class _Tally:
    """What was landed so far."""

    def __init__(self, done: int, failed: int) -> None:
        self.done = done
        self.failed = failed

    def add(self, landed: Sequence[tuple[Row, Result]]) -> None:
        """Count rows."""
        self.done += len(landed)
        self.failed += sum(not isinstance(result, Signature) for _, result in landed)

    def __str__(self) -> str:
        return f"{self.done} rows done, {self.done - self.failed} signed, {self.failed} failed"


def batch(
    file: Annotated[
        str,
        typer.Argument(metavar="IN.csv|-", help="CSV in UTF-8 with a header: reference,text or reference,data_base64."),
    ],
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.csv",
            help="Write to this file, after the rows that a run before left there; a half-written one is done again.",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    token: Token = None,
    timeout_ms: Timeout = 30_000,
    public_key: PublicKey = None,
    batch_items: Annotated[int, typer.Option(min=1, max=1000, help="Rows in one request, at most.")] = 250,
    in_flight: Annotated[int, typer.Option(min=1, max=8, help="Requests under way at one time.")] = 4,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line, not CSV.")] = False,
) -> None:
    """Sign each row of a CSV: IN.csv > OUT.csv, the rows as they were with the result in columns behind them.

    A row that cannot be signed fails alone, with the reason in its column `error`. Signatures are verified before they
    are written. Stopped for whatever reason, OUT.csv holds whole rows, and --resume goes on after them.
    """
    if resume is not None and json:
        raise typer.BadParameter("goes with CSV only", param_hint="--resume")
    with contextlib.ExitStack() as stack:
        source = _open(file, stack)
        interrupts = Interrupts()
        stack.enter_context(interrupts.heard())
        tally = _Tally(0, 0)
        api = stack.enter_context(connect(url, token, timeout_ms, public_key, RETRY_FOR_S))
        again = f"; `signer-flow batch {file} --resume {resume or 'OUT.csv'}` goes on from there"
        try:
            with interrupts.welcome():
                rows = CsvInput(source, file)
                todo = iter(rows)
                if resume is None:
                    out = Results(sys.stdout.fileno(), rows.columns, json=json)
                else:
                    descriptor = _open_results(resume, source, stack)
                    tally = _Tally(*results.resume(descriptor, str(resume), rows.columns, todo))
                    out = Results(descriptor, rows.columns, fresh=os.fstat(descriptor).st_size == 0)
            moved = stack.enter_context(_progress(source, rows, tally))

            def land(done: Sequence[tuple[Row, Result]]) -> None:
                out.write(done)
                tally.add(done)
                moved()

            sender = Sender(api, key)
            run(
                todo,
                sender,
                land,
                pace=Pace(batch_items, timeout_ms / 1000),
                in_flight=in_flight,
                interrupts=interrupts,
            )
            out.finish()
        except InputError as error:
            fail(USAGE, f"{error}; {tally}" if tally.done else str(error))
        except OutputError as error:
            fail(UNAVAILABLE, f"{error}; {tally}")
        except KeyboardInterrupt:
            fail(INTERRUPTED, f"interrupted; {tally}{again}")
        except Exception:
            if tally.done:
                note(f"stopped; {tally}{again}")
            raise
    note(str(tally))
    if tally.failed:
        raise typer.Exit(INVALID)


def _open(file: str, stack: contextlib.ExitStack) -> BinaryIO:
    if file == "-":
        return sys.stdin.buffer
    try:
        return stack.enter_context(Path(file).open("rb"))
    except OSError as error:
        raise typer.BadParameter(f"cannot read {file}: {error.strerror}", param_hint="IN.csv") from None


def _open_results(path: Path, source: BinaryIO, stack: contextlib.ExitStack) -> int:
    descriptor = results.open_to_resume(path)
    stack.callback(os.close, descriptor)
    if os.path.sameopenfile(descriptor, source.fileno()):
        raise typer.BadParameter("is the input itself", param_hint="--resume")
    return descriptor


@contextlib.contextmanager
def _progress(source: BinaryIO, rows: CsvInput, tally: _Tally) -> Iterator[Callable[[], None]]:
    """A bar on standard error where that is a terminal. It moves with the bytes: rows are not counted beforehand."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    size = os.fstat(source.fileno()).st_size or None
    columns = BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(str(tally), total=size)
        yield lambda: bar.update(task, completed=rows.consumed, description=str(tally))
