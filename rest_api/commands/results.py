"""Where the results of ``batch`` go: whole rows or none; and where a run that stopped before has to go on."""

import contextlib
import csv
import errno
import fcntl
import io
import itertools
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from rest_api import client_wire
from rest_api.client import ItemError, Signature
from rest_api.commands.csv_input import InputError, Lines, Row, plain, records

RESULT_COLUMNS: Final = ("signature", "key_id", "epoch", "public_key", "signers", "request_id", "error")
Result = Signature | ItemError | str
"""What became of a row; a string is an error of our own."""


class OutputError(Exception):
    """The results cannot be written; one line."""


def error_of(result: ItemError | str) -> str:
    """The error column: a code, a colon, and words."""
    if isinstance(result, str):
        return result
    code = str(result.problem.get("type", "")).rpartition(":")[2] or "error"
    return f"{code}: {result.problem.get('detail') or result.problem.get('title') or 'no reason given'}"


def as_csv(row: Row, result: Result) -> list[str]:
    """The row's cells and the result columns."""
    if not isinstance(result, Signature):
        return [*row.cells, *[""] * (len(RESULT_COLUMNS) - 1), error_of(result)]
    signed = client_wire.b64(result.signature), result.key_id, str(result.epoch), client_wire.b64(result.public_key)
    return [*row.cells, *signed, " ".join(map(str, result.signers)), result.request_id, ""]


def as_json(columns: Sequence[str], row: Row, result: Result) -> dict[str, Any]:
    """The row and its result as one object."""
    cells = dict(zip(columns, row.cells, strict=True))
    if isinstance(result, Signature):
        return {"row": row.number, **cells, **result.as_json()}
    problem = {"detail": error_of(result)} if isinstance(result, str) else dict(result.problem)
    return {"row": row.number, **cells, "error": problem}


class Results:
    """A file descriptor that only ever gets whole rows.

    When the disk is full, what was written of the last rows is cut off again, where that is possible.

    Args:
        descriptor: Where to write.
        columns: Of the input.
        json: JSON lines instead of CSV.
        fresh: Whether the header is still to be written.
    """

    def __init__(self, descriptor: int, columns: Sequence[str], *, json: bool = False, fresh: bool = True) -> None:
        self._descriptor = descriptor
        self._columns = tuple(columns)
        self._json = json
        self._header_due = fresh and not json

    def write(self, done: Iterable[tuple[Row, Result]]) -> None:
        """Append rows.

        Raises:
            OutputError: they cannot be written; those of before are kept.
        """
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        if self._header_due:
            table.writerow([*self._columns, *RESULT_COLUMNS])
        for row, result in done:
            if self._json:
                text.write(orjson.dumps(as_json(self._columns, row, result)).decode() + "\n")
            else:
                table.writerow(as_csv(row, result))
        self._write(text.getvalue().encode())
        self._header_due = False

    def finish(self) -> None:
        """Write the header if there was no row."""
        if self._header_due:
            self.write(())

    def _write(self, content: bytes) -> None:
        left = memoryview(content)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            self._take_back(len(content) - len(left))
            reason = (
                "the disk is full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else os.strerror(error.errno or 0)
            )
            raise OutputError(f"cannot write the results: {reason}; what was written before is kept") from None

    def _take_back(self, size: int) -> None:
        with contextlib.suppress(OSError):
            if size and stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                end = os.lseek(self._descriptor, 0, os.SEEK_CUR) - size
                os.ftruncate(self._descriptor, end)
                os.lseek(self._descriptor, end, os.SEEK_SET)


def open_to_resume(path: Path) -> int:
    """Open (or make) the result file of a run before, for us alone.

    Raises:
        OutputError: it cannot be opened, or another run writes it.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OutputError(f"{path}: not a regular file, nothing can be resumed there")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"{path}: another run is writing it") from None
    except OSError as error:
        raise OutputError(f"{path}: {(error.strerror or 'cannot be opened').lower()}") from None
    return descriptor


def resume(descriptor: int, name: str, columns: Sequence[str], rows: Iterator[Row]) -> tuple[int, int]:
    """Pass over the rows of the input that have their result already, and cut off a half-written end.

    Args:
        descriptor: The result file, open for reading and writing; afterwards it stands where to go on.
        name: Of the result file, for what is said.
        columns: Of the input.
        rows: The input; what is left of it is what is left to do.

    Returns:
        How many rows have a result, and how many of those are errors. Whether the header is there: the file is not
        empty then.

    Raises:
        InputError: the results there are not those of this input.
    """
    header = [*columns, *RESULT_COLUMNS]
    keep = count = failed = 0
    with os.fdopen(os.dup(descriptor), "rb") as stream:
        stream.seek(0)
        lines = Lines(stream)
        found = records(lines)
        for number in itertools.count():
            try:
                cells = next(found, None)
            except csv.Error as error:
                if stream.read(1):
                    raise InputError(f"{name}: row {number}: {error}: not a result file of this command") from None
                break  # the end, within quotes: a row that was not written whole
            if cells is None or not lines.ended:
                break
            cells = [plain(cell) for cell in cells]
            if number == 0:
                if cells != header:
                    raise InputError(f"{name}: not a result file for this input: its header is another")
            else:
                failed += _check(cells, next(rows, None), len(columns), len(header), f"{name}: row {number}")
                count = number
            keep = lines.consumed
    os.ftruncate(descriptor, keep)
    os.lseek(descriptor, keep, os.SEEK_SET)
    return count, failed


def _check(cells: list[str], row: Row | None, width: int, full: int, where: str) -> bool:
    """Whether the row that was written is an error."""
    if row is None:
        raise InputError(f"{where}: the input has no such row: these are the results of another input")
    if len(cells) != full or tuple(cells[:width]) != row.cells:
        raise InputError(f"{where}: not the row {row.number} of the input: these are the results of another input")
    return bool(cells[-1])
