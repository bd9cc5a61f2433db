"""What a run wrote down of its clients: one row for each question, refusal to connect, answer, fault and refresh.

A question (``Ask``) is written before its first byte leaves, so that nothing that was asked can be missing here. All
times are Unix milliseconds of this machine.
"""

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TextIO, TypeVar

LOST = 0
"""Status of a question whose connection broke: the outcome is unknown."""
HUNG = -1
"""Status of a question that the caller gave up: nobody answered and nobody hung up."""
NOBODY = -2
"""Status of a question that no pod took: each refused the connection, or said goodbye before it took it."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Operation ``op`` asks to sign ``messages``: in one request, in one batch, or each on one WebSocket frame."""

    op: int
    way: str
    messages: tuple[bytes, ...]
    timeout_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Turned:
    """Pod ``pod`` refused the connection, so it never had the question; the caller goes to another."""

    op: int
    pod: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The one answer to message ``item`` of ``op``. With status 200 there is a signature; else ``code`` says why."""

    op: int
    item: int
    pod: int
    status: int
    code: str
    request_id: str
    signature: bytes
    public_key: bytes
    epoch: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Fault:
    """``kind`` was done to ``target`` from ``from_ms`` on; everybody was ready again at ``until_ms``.

    ``over_ms`` is when it was over for the target itself: a broker serves again. 0: not known.
    """

    kind: str
    target: str
    from_ms: int
    until_ms: int
    over_ms: int = 0


@dataclass(frozen=True, slots=True)
class Refresh:
    """Somebody asked for a refresh, and was told ``status`` (202: it begins), ``code`` if it was a problem."""

    status: int
    code: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Final:
    """What a pod said of the key when all was over."""

    pod: int
    public_key: bytes
    epoch: int


Row = Ask | Turned | Answer | Fault | Refresh | Final
R = TypeVar("R", Ask, Turned, Answer, Fault, Refresh, Final)
_KINDS: dict[str, type[Row]] = {kind.__name__.lower(): kind for kind in (Ask, Turned, Answer, Fault, Refresh, Final)}


def to_line(row: Row) -> str:
    """One row as one line of JSON, bytes as base64."""
    return json.dumps(
        {"row": type(row).__name__.lower()} | {field.name: _plain(getattr(row, field.name)) for field in fields(row)}
    )


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def from_line(line: str) -> Row:
    """The row again.

    Raises:
        ValueError, KeyError, TypeError: the line is not one of ours.
    """
    found = json.loads(line)
    kind = _KINDS[found.pop("row")]
    values: dict[str, Any] = {}
    for field in fields(kind):
        value = found[field.name]
        if field.type is bytes:
            value = base64.b64decode(value)
        elif isinstance(value, list):
            value = tuple(base64.b64decode(each) for each in value)
        values[field.name] = value
    return kind(**values)


class Book:
    """The history file, as it is written: a row is on its way to the disk when ``write`` returns."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.rows: list[Row] = []

    def write(self, row: Row) -> None:
        """Add one row."""
        self.rows.append(row)
        self._file.write(to_line(row) + "\n")


def read(path: Path) -> Iterator[Row]:
    """All rows of a history file."""
    with path.open(encoding="utf-8") as lines:
        yield from map(from_line, lines)


def only(rows: Iterable[Row], kind: type[R]) -> list[R]:
    """The rows of one kind."""
    return [row for row in rows if isinstance(row, kind)]
