"""Rows of the input of ``batch``: one at a time, and what is wrong with one stays its own.

What is wrong with the file as a whole (no header, an unknown column, a quote that nobody closed: from there on nobody
can say where a row ends) ends the run; what is wrong with one row is that row's error.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from rest_api import client_wire
from rest_api.commands.options import MAX_MESSAGE_BYTES

REFERENCE, TEXT, DATA = "reference", "text", "data_base64"
MAX_REFERENCE_CHARS: Final = 256
MAX_CELL_CHARS: Final = 1024 * 1024
"""A cell beyond this is no message but the rest of a file after a quote that was not closed."""


class InputError(Exception):
    """The file cannot be read as the CSV that it must be; one line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One data row, the first being number 1. ``message`` is None where ``error`` says why it cannot be signed."""

    number: int
    cells: tuple[str, ...]
    reference: str | None
    message: bytes | None
    error: str | None


class CsvInput:
    """The input as an iterator of rows.

    Args:
        stream: Bytes; UTF-8, with or without a byte order mark.
        name: For what is said.

    Raises:
        InputError: there is no right header.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._name = name
        self._lines = Lines(stream)
        self._rows = records(self._lines)
        try:
            header = next(self._rows, None)
        except csv.Error as error:
            raise InputError(f"{name}: line {self._lines.number}: {_plain(error)}") from None
        self.columns = self._check_header(header)

    @property
    def consumed(self) -> int:
        """How many bytes of the input were read."""
        return self._lines.consumed

    def _check_header(self, header: list[str] | None) -> tuple[str, ...]:
        expected = f"expected {REFERENCE},{TEXT} or {REFERENCE},{DATA}"
        if header is None:
            raise InputError(f"{self._name}: the file is empty; {expected}")
        known = {REFERENCE, TEXT, DATA}
        if not known & set(header):
            raise InputError(f"{self._name}: row 1 is no header: {expected}")
        for column in header:
            if column not in known:
                raise InputError(f"{self._name}: unknown column {column[:40]!r} in the header; {expected}")
        if len(set(header)) != len(header):
            raise InputError(f"{self._name}: a column stands twice in the header; {expected}")
        if TEXT in header and DATA in header:
            raise InputError(f"{self._name}: both {TEXT} and {DATA} in the header: which is signed? {expected}")
        if TEXT not in header and DATA not in header:
            raise InputError(f"{self._name}: no column {TEXT} or {DATA} in the header; {expected}")
        return tuple(header)

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows.

        Raises:
            InputError: from here on nobody can say where a row ends.
        """
        number = 0
        while True:
            number += 1
            try:
                cells = next(self._rows, None)
            except csv.Error as error:
                raise InputError(f"{self._name}: row {number} (line {self._lines.number}): {_plain(error)}") from None
            if cells is None:
                return
            yield self._row(number, cells)

    def _row(self, number: int, given: list[str]) -> Row:
        cells, width = tuple(plain(cell) for cell in given), len(self.columns)
        error = None
        if len(cells) != width:
            error = f"bad-row: it has {len(cells)} cells, the header {width}"
            cells = (cells + ("",) * width)[:width]
        elif any(cell != found for cell, found in zip(cells, given, strict=True)):
            error = "bad-row: it is not UTF-8"
        values = dict(zip(self.columns, cells, strict=True))
        reference = values.get(REFERENCE)
        if error is None and reference is not None and len(reference) > MAX_REFERENCE_CHARS:
            error = f"bad-row: the reference has more than {MAX_REFERENCE_CHARS} characters"
        message = None
        if error is None:
            message, error = _message(values)
        return Row(number, cells, reference, message, error)


def _message(values: dict[str, str]) -> tuple[bytes | None, str | None]:
    if DATA in values:
        try:
            message = client_wire.unb64(values[DATA])
        except ValueError as error:
            return None, f"bad-row: {DATA}: {error}"
    else:
        message = values[TEXT].encode()
    if len(message) > MAX_MESSAGE_BYTES:
        return None, f"message-too-large: {len(message)} bytes; at most {MAX_MESSAGE_BYTES}: sign its SHA-256 instead"
    return message, None


class Lines:
    """Lines of a binary stream as text, counted: ``consumed`` bytes so far, ``ended`` by a line end or not."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.consumed = 0
        self.number = 0
        self.ended = True

    def __iter__(self) -> Iterator[str]:
        while line := self._stream.readline(4 * MAX_CELL_CHARS):
            self.consumed += len(line)
            self.number += 1
            self.ended = line.endswith(b"\n")
            if self.number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            # What is not UTF-8 becomes half of a surrogate pair, which no UTF-8 gives: `plain` finds it again.
            yield line.decode("utf-8", "surrogateescape")


def records(lines: Iterable[str]) -> Iterator[list[str]]:
    """The rows of CSV text, without the empty ones; raises ``csv.Error``."""
    csv.field_size_limit(MAX_CELL_CHARS)
    return (row for row in csv.reader(lines, strict=True) if row)


def plain(cell: str) -> str:
    """The cell with U+FFFD for what was not UTF-8."""
    return cell.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _plain(error: csv.Error) -> str:
    text = str(error)
    if "field larger" in text:
        return f"a cell of more than {MAX_CELL_CHARS} characters: is a quote not closed?"
    return "the file ends within quotes: one is not closed" if "unexpected end of data" in text else text
