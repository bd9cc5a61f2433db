"""Key files are read only if nobody else can; sealed files open only as what they are."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import BadInput
from common.ids import Index
from common.secret import Secret
from signer_service.shell.keystore import Sealer, read_public_key, read_secret_key

PATH = Path("shares/default")


def sealer(seat: int = 1, key: bytes = b"k" * 32, operator: bytes = b"o" * 32) -> Sealer:
    return Sealer(Secret(key), operator, Index(seat), os.urandom)


def written(tmp_path: Path, data: bytes, mode: int) -> Path:
    path = tmp_path / "identity.key"
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_a_private_key_file_of_our_own_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, b"s" * 32, 0o600)
    assert read_secret_key(path, "identity key").expose() == b"s" * 32
    (tmp_path / "mounted").symlink_to(path)
    assert read_secret_key(tmp_path / "mounted", "identity key").expose() == b"s" * 32


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666, 0o620])
def test_a_key_file_open_to_others_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, b"s" * 32, mode)
    with pytest.raises(BadInput, match=f"chmod 600 {path}"):
        read_secret_key(path, "identity key")
    assert read_public_key(path, "edge public key") == b"s" * 32


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_file_of_another_length_is_refused(tmp_path: Path, length: int) -> None:
    path = written(tmp_path, b"s" * length, 0o600)
    with pytest.raises(BadInput, match=r"bytes, not 32") as caught:
        read_secret_key(path, "identity key")
    assert str(path) in caught.value.detail
    assert "ss" not in caught.value.detail


def test_a_missing_key_file_and_one_that_is_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="missing"):
        read_secret_key(tmp_path / "none", "sealing key")
    with pytest.raises(BadInput, match="not a plain file"):
        read_secret_key(tmp_path, "sealing key")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(BadInput, match="not a plain file"):
        read_secret_key(tmp_path / "pipe", "sealing key")


def test_what_was_sealed_opens_and_is_not_readable() -> None:
    raw = sealer().seal("share", "default", b"the share itself")
    assert b"the share itself" not in raw
    assert sealer().open(PATH, "share", "default", raw) == b"the share itself"
    assert sealer().seal("share", "default", b"the share itself") != raw


@pytest.mark.parametrize(
    ("other", "purpose", "name", "word"),
    [
        (sealer(seat=2), "share", "default", "another seat: 2, here it is 1"),
        (sealer(operator=b"p" * 32), "share", "default", "another operator key"),
        (sealer(), "journal", "default", "another purpose"),
        (sealer(), "share", "payments", "another key: 'payments', here it is 'default'"),
        (sealer(key=b"K" * 32), "share", "default", "does not open"),
    ],
)
def test_a_file_of_another_says_in_one_line_whose_it_is(other: Sealer, purpose: str, name: str, word: str) -> None:
    raw = other.seal(purpose, name, b"content")
    with pytest.raises(BadInput, match=word) as caught:
        sealer().open(PATH, "share", "default", raw)
    assert "\n" not in caught.value.detail
    assert str(PATH) in caught.value.detail
    # A wrong mount looks the same at every seat: who healed them all would have destroyed the key.
    mounted = word.startswith(("another seat", "another operator"))
    assert ("put that right; delete and move nothing" in caught.value.detail) is mounted
    assert ("let the replica be healed, one replica at a time" in caught.value.detail) is not mounted
    assert ("while t other replicas hold shares" in caught.value.detail) is not mounted


@given(st.data())
def test_a_file_that_was_cut_or_changed_anywhere_is_refused(data: st.DataObject) -> None:
    raw = sealer().seal("share", "default", b"c" * 40)
    at = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        damaged = raw[:at]
    else:
        damaged = raw[:at] + bytes([raw[at] ^ data.draw(st.integers(1, 255))]) + raw[at + 1 :]
    with pytest.raises(BadInput) as caught:
        sealer().open(PATH, "share", "default", damaged)
    assert caught.value.code == "state-file"
    assert "\n" not in caught.value.detail


@given(st.binary(max_size=200))
def test_rubbish_is_refused(raw: bytes) -> None:
    for candidate in (raw, b"SFS1" + raw):
        with pytest.raises(BadInput):
            sealer().open(PATH, "share", "default", candidate)


def test_a_header_nested_too_deeply_is_refused() -> None:
    with pytest.raises(BadInput):
        sealer().open(PATH, "share", "default", b"SFS1\x04\x00" + b"[" * 1024 + bytes(40))
