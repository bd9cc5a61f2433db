"""Passwords for the broker come from a private file, and are never repeated."""

from pathlib import Path

import pytest

from common.errors import BadInput
from common.kafka.security import read_security_file

VARIABLE = "SIGNER_SERVICE_KAFKA_SECURITY_FILE"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "kafka.properties"
    made.touch(mode=0o600)
    return made


def test_security_options_are_read_from_a_file(path: Path) -> None:
    path.write_text("# for the signers\nsecurity.protocol=SASL_SSL\n\nsasl.password=a=b\n")
    assert read_security_file(path, VARIABLE) == {"security.protocol": "SASL_SSL", "sasl.password": "a=b"}
    assert read_security_file(None, VARIABLE) == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"sasl.password hunter2\n", "line 1"),
        (b"sasl.password=x\nsasl.password=hunter2\n", "line 2"),
        (b"sasl.password=hunter2\xff\n", "not UTF-8"),
        (b"sasl.password=hunter2" * 10_000, "more than"),
    ],
)
def test_a_wrong_file_is_one_line_that_does_not_repeat_it(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    with pytest.raises(BadInput, match=f"^settings: {VARIABLE}: .*{said}") as caught:
        read_security_file(path, VARIABLE)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in caught.value.detail


def test_a_file_that_others_may_read_or_that_is_not_there_is_refused(path: Path) -> None:
    path.chmod(0o640)
    with pytest.raises(BadInput, match=f"{VARIABLE}: .*chmod 600"):
        read_security_file(path, VARIABLE)
    path.unlink()
    with pytest.raises(BadInput, match=f"{VARIABLE}: .*no such file"):
        read_security_file(path, VARIABLE)
