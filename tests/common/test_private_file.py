"""A private file is read when it is private, and refused with one line that shows nothing of it when not."""

import os
from pathlib import Path

import pytest

from common.errors import BadInput
from common.private_file import read_private_file


def refused(path: Path, most_bytes: int = 100) -> str:
    with pytest.raises(BadInput) as caught:
        read_private_file(path, most_bytes, "test", remedy="make one")
    assert caught.value.code == "test"
    assert "\n" not in caught.value.detail
    assert "hunter2" not in caught.value.detail
    return caught.value.detail


def test_a_private_file_is_read_through_a_link_too(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"hunter2")
    path.chmod(0o600)
    (tmp_path / "link").symlink_to(path)
    assert read_private_file(tmp_path / "link", 7, "test") == b"hunter2"
    path.chmod(0o400)
    assert read_private_file(path, 7, "test") == b"hunter2"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o644, 0o666])
def test_a_file_that_is_open_to_others_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"hunter2")
    path.chmod(mode)
    assert f"chmod 600 {path}" in refused(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_may_be_ours_to_read_by_its_group_and_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"hunter2")
    os.chown(path, 65534, 0)  # as a mounted Secret is root's, and its group is that of the pod
    for mode in (0o400, 0o440, 0o640):
        path.chmod(mode)
        assert read_private_file(path, 7, "test") == b"hunter2"
    for mode in (0o444, 0o460, 0o450, 0o441):
        path.chmod(mode)
        assert f"chmod 640 {path}" in refused(path)


def test_what_is_no_file_or_too_long_is_refused(tmp_path: Path) -> None:
    assert "no such file; make one" in refused(tmp_path / "none")
    assert "not a regular file" in refused(tmp_path)
    path = tmp_path / "secret"
    path.write_bytes(b"hunter2")
    path.chmod(0o600)
    assert "more than 6 bytes" in refused(path, 6)
