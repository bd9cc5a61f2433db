"""A saved log comes back as it was, or the file is refused: cut, changed, or no such file."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import BadInput
from signer_service.audit import log_file
from signer_service.audit.facts import DoesNotHold, Logged
from tests import playbook
from tests.audit.logs import logged, short_log

RECORDS = [Logged(0, 1_700_000_000_000, b"first"), Logged(1, None, b""), Logged(2, 5, bytes(300))]


def save(path: Path, records: list[Logged]) -> bytes:
    with log_file.saving(path, playbook.TOPIC) as writer:
        for each in records:
            writer.add(each)
    return path.read_bytes()


def load(path: Path) -> list[Logged]:
    with log_file.opened(path) as reader:
        assert reader.topic == playbook.TOPIC
        return list(reader)


def refused(path: Path) -> str:
    """The code with which a file is refused."""
    try:
        load(path)
    except DoesNotHold as found:
        return found.problem.code
    except BadInput as found:
        return found.code
    pytest.fail("it was taken")


def test_a_saved_log_comes_back_as_it_was(tmp_path: Path) -> None:
    for number, records in enumerate(([], RECORDS, logged(short_log()))):
        path = tmp_path / str(number)
        save(path, records)
        assert load(path) == records


def test_the_file_is_lines_of_json_that_explain_themselves(tmp_path: Path) -> None:
    head, first, *_, last = map(json.loads, save(tmp_path / "log", RECORDS).decode("ascii").splitlines())
    assert head == {"format": "signer-flow ceremony log", "version": 1, "topic": playbook.TOPIC}
    assert (first["offset"], first["timestamp_ms"], first["value"]) == (0, 1_700_000_000_000, "Zmlyc3Q=")
    assert (last["end"], last["records"]) == (2, 3)


def test_a_file_that_was_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    whole = save(path, RECORDS)
    head = whole.index(b"\n") + 1
    for length in range(head, len(whole), 7):
        path.write_bytes(whole[:length])
        assert refused(path) == "log-file-cut"
    path.write_bytes(whole[: head - 2])
    assert refused(path) == "log-file"


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_with_one_byte_changed_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "log"
    whole = path.read_bytes() if path.exists() else save(path, RECORDS)
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = tmp_path / "changed"
    changed.write_bytes(whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :])
    # A changed name of the topic is for who reads: here an assertion.
    with pytest.raises((DoesNotHold, BadInput, AssertionError)):
        load(changed)


def test_a_changed_record_is_refused_with_its_line_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "log"
    whole = save(path, RECORDS)
    path.write_bytes(whole.replace(b"Zmlyc3Q=", b"Amlyc3Q="))
    with pytest.raises(DoesNotHold, match=r"line 2: the record does not give the running hash beside it") as found:
        load(path)
    assert found.value.problem.offset == 0
    path.write_bytes(whole.replace(b"Zmlyc3Q=", b"Zmlyc3R="))
    with pytest.raises(DoesNotHold, match=r"line 2: the value is not base64"):
        load(path)
    path.write_bytes(whole.replace(b'"timestamp_ms": 5', b'"timestamp_ms": 6'))
    with pytest.raises(DoesNotHold, match=r"line 5: the last line does not fit the lines before it"):
        load(path)
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[3], lines[2], lines[4]]))
    assert refused(path) == "log-file-changed"
    path.write_bytes(whole + b"\n")
    assert refused(path) == "log-file-changed"


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"{}",
        b'{"offset": true, "timestamp_ms": null, "value": "", "running_hash": ""}',
        b'{"offset": -1, "timestamp_ms": null, "value": "", "running_hash": ""}',
        b'{"offset": 1e3, "timestamp_ms": null, "value": "", "running_hash": ""}',
        b'{"offset": 9223372036854775808, "timestamp_ms": null, "value": "", "running_hash": ""}',
        b'{"offset": 0, "timestamp_ms": "now", "value": "", "running_hash": ""}',
        b'{"offset": 0, "timestamp_ms": null, "value": 7, "running_hash": ""}',
        b'{"offset": 0, "timestamp_ms": null, "value": "*", "running_hash": ""}',
        b"[" * 100_000,
        b'{"end": -1}',
    ],
)
def test_a_line_that_is_no_record_is_refused(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "log"
    head = save(path, []).splitlines(keepends=True)[0]
    path.write_bytes(head + line + b"\n")
    assert refused(path) == "log-file-changed"


def test_what_is_no_saved_log_or_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert refused(path) == "log-file"
    for content in (b"", b"\x00" * 1000, b"{}\n", b'{"format": "signer-flow ceremony log", "version": 2}\n'):
        path.write_bytes(content)
        assert refused(path) == "log-file"
    assert refused(tmp_path) == "log-file"


def test_a_saved_log_is_never_overwritten_and_one_that_failed_is_not_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "log"
    whole = save(path, RECORDS)
    with pytest.raises(BadInput, match="is there already"):
        save(path, RECORDS[:1])
    assert path.read_bytes() == whole
    with pytest.raises(ZeroDivisionError), log_file.saving(tmp_path / "other", playbook.TOPIC):
        raise ZeroDivisionError
    assert not (tmp_path / "other").exists()
