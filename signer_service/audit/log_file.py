"""A ceremony log in a file: what an auditor takes along, and what is put aside when something went wrong.

JSON lines, ASCII, each ended by a newline, nothing between them:

    {"format": "signer-flow ceremony log", "version": 1, "topic": "signer.v1.ceremony"}
    {"offset": 0, "timestamp_ms": 1767225600000, "value": "<base64>", "running_hash": "<128 hex digits>"}
    …
    {"end": 86, "records": 87, "sha256": "<64 hex digits>"}

``value`` is the record as it stands in the log, base64 (RFC 4648, padded). ``timestamp_ms`` is the broker's word, or
null. ``running_hash`` is the log's after this record: SHA-512 of the hash before (64 zero bytes at first), the offset
as 8 bytes big-endian and the value; replicas show the same one (``inspect``, presence). The last line has the last
offset (-1 if there is none), the number of records, and the SHA-256 of every byte before it.

All this finds accidents, and says where. Whoever changes records on purpose can hash them anew: against him there are
only the seats' signatures, which the audit checks, and a running hash that a replica tells.

Codes, as ``DoesNotHold``: ``log-file-cut``, ``log-file-changed``. As ``BadInput``: ``log-file``: it cannot be read, or
is no such file, or there is one already.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

from common.errors import BadInput
from common.ids import Offset
from common.wire.messages import MAX_RECORD_BYTES
from common.wire.transcript import LOG_START_HASH, next_log_hash
from signer_service.audit.facts import DoesNotHold, Logged

FORMAT: Final = "signer-flow ceremony log"
VERSION: Final = 1
_LONGEST_LINE: Final = 2 * MAX_RECORD_BYTES


class LogWriter:
    """Writes a log line by line. What lacks its last line was not saved whole."""

    def __init__(self, file: IO[bytes], topic: str) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._running = LOG_START_HASH
        self._records = 0
        self._last = -1
        self._line({"format": FORMAT, "version": VERSION, "topic": topic})

    def _line(self, content: dict[str, Any]) -> None:
        line = _encode(content)
        self._sha256.update(line)
        self._file.write(line)

    def add(self, logged: Logged) -> None:
        """Write a record."""
        self._running = next_log_hash(self._running, Offset(logged.offset), logged.value)
        self._records, self._last = self._records + 1, logged.offset
        value = base64.b64encode(logged.value).decode()
        self._line(
            {
                "offset": logged.offset,
                "timestamp_ms": logged.written_ms,
                "value": value,
                "running_hash": self._running.hex(),
            }
        )

    def end(self) -> None:
        """Write the last line."""
        self._line({"end": self._last, "records": self._records, "sha256": self._sha256.hexdigest()})


@contextmanager
def saving(path: Path, topic: str) -> Iterator[LogWriter]:
    """Write a new file; it is removed again when the block fails. A file that is there is evidence, and stays.

    Raises:
        BadInput: ``log-file``.
    """
    try:
        file = path.open("xb")
    except FileExistsError:
        raise BadInput("log-file", f"{path} is there already: it is not overwritten; choose another name") from None
    except OSError as error:
        raise BadInput("log-file", f"{path} cannot be written: {error.strerror}") from None
    try:
        with file:
            writer = LogWriter(file, topic)
            yield writer
            writer.end()
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


class LogReader:
    """Reads a saved log. ``topic`` is known at once; iterate for the records."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file
        self._sha256 = hashlib.sha256()
        self._number = 0
        raw = file.readline(_LONGEST_LINE)
        head = _parse(raw)
        if head is None or head.get("format") != FORMAT:
            raise BadInput("log-file", f"{path} is not a saved ceremony log: make one with `audit --kafka ... --save`")
        if head.get("version") != VERSION or not isinstance(head.get("topic"), str):
            raise BadInput("log-file", f"{path} has version {head.get('version')!r} of the format: use a newer program")
        self.topic: str = head["topic"]
        self._count(raw)

    def _count(self, raw: bytes) -> None:
        self._sha256.update(raw)
        self._number += 1

    def __iter__(self) -> Iterator[Logged]:
        """Yield the records; after the last one, the file has been found whole.

        Raises:
            DoesNotHold: ``log-file-cut``, ``log-file-changed``.
        """
        running, records, last = LOG_START_HASH, 0, -1
        while True:
            raw = self._file.readline(_LONGEST_LINE)
            if not raw.endswith(b"\n") and len(raw) < _LONGEST_LINE:
                raise DoesNotHold("log-file-cut", f"{self._path} ends in line {self._number + 1} without its last line")
            line = _parse(raw)
            if line is not None and "end" in line:
                self._check_end(raw, records, last)
                return
            logged, said = self._record(line)
            running = next_log_hash(running, Offset(logged.offset), logged.value)
            if running.hex() != said:
                raise self._changed("the record does not give the running hash beside it", logged.offset)
            records, last = records + 1, logged.offset
            self._count(raw)
            yield logged

    def _record(self, line: dict[str, Any] | None) -> tuple[Logged, str]:
        if line is None or line.keys() != {"offset", "timestamp_ms", "value", "running_hash"}:
            raise self._changed("not a record")
        offset, written, value, said = (line[name] for name in ("offset", "timestamp_ms", "value", "running_hash"))
        # type() and not isinstance: JSON's true is an int in Python.
        if type(offset) is not int or not 0 <= offset < 2**63 or not (written is None or type(written) is int):
            raise self._changed("no offset, or no time")
        try:
            raw = base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise self._changed("the value is not base64", offset) from None
        if base64.b64encode(raw).decode() != value:
            raise self._changed("the value is not base64 in its one form", offset)
        return Logged(offset, written, raw), str(said)

    def _check_end(self, raw: bytes, records: int, last: int) -> None:
        if raw != _encode({"end": last, "records": records, "sha256": self._sha256.hexdigest()}):
            raise self._changed("the last line does not fit the lines before it")
        if self._file.read(1):
            raise self._changed("something follows the last line")

    def _changed(self, what: str, offset: int | None = None) -> DoesNotHold:
        detail = f"{self._path} was changed after it was saved: line {self._number + 1}: {what}"
        return DoesNotHold("log-file-changed", detail, offset)


@contextmanager
def opened(path: Path) -> Iterator[LogReader]:
    """Open a saved log.

    Raises:
        BadInput: ``log-file``.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadInput("log-file", f"{path} cannot be read: {error.strerror}") from None
    with file:
        try:
            reader = LogReader(path, file)
        except OSError as error:
            raise BadInput("log-file", f"{path} cannot be read: {error.strerror}") from None
        yield reader


def _encode(line: dict[str, Any]) -> bytes:
    return json.dumps(line).encode("ascii") + b"\n"


def _parse(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw.decode("ascii"))
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None
