"""Files are there whole or not at all, and only ours to read."""

import os
import stat
from pathlib import Path

import pytest

from common.errors import BadInput, Unavailable
from signer_service.shell import disk
from tests.shell.crashing import Crash, crash, crash_at


def test_a_write_that_crashes_at_any_step_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    step, seen = 0, set()
    while True:
        disk.write_durably(path, b"old" * 100)
        try:
            with crash_at(step, crash):
                disk.write_durably(path, b"new" * 50, wipe_old=True)
        except Crash:
            seen.add(path.read_bytes())
            assert path.read_bytes() in (b"old" * 100, b"new" * 50)
            step += 1
            continue
        break
    assert seen == {b"old" * 100, b"new" * 50}
    assert step >= 5


def test_a_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        disk.write_durably(tmp_path / "a", b"x")
        disk.create_durably(tmp_path / "b", b"x")
        disk.make_private_dir(tmp_path / "c")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o700


def test_creating_never_overwrites(tmp_path: Path) -> None:
    assert disk.create_durably(tmp_path / "key", b"first")
    assert not disk.create_durably(tmp_path / "key", b"second")
    assert (tmp_path / "key").read_bytes() == b"first"
    assert [each.name for each in tmp_path.iterdir()] == ["key"]


def test_wiping_overwrites_the_bytes_that_the_name_no_longer_shows(tmp_path: Path) -> None:
    path = tmp_path / "share"
    disk.write_durably(path, b"secret" * 10)
    with path.open("rb") as old:
        disk.write_durably(path, b"fresh", wipe_old=True)
        assert old.read() == bytes(60)
    assert path.read_bytes() == b"fresh"


def test_erasing_overwrites_and_removes(tmp_path: Path) -> None:
    path = tmp_path / "share"
    disk.write_durably(path, b"secret")
    with path.open("rb") as old:
        disk.erase(path)
        assert old.read() == bytes(6)
    assert not path.exists()
    disk.erase(path)


def test_a_temporary_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "file.tmp").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        disk.write_durably(tmp_path / "file", b"x")
    assert victim.read_bytes() == b"precious"


def test_a_second_holder_of_the_lock_is_refused_in_one_line(tmp_path: Path) -> None:
    with (
        disk.locked(tmp_path / "lock", "stop it"),
        pytest.raises(Unavailable, match="stop it"),
        disk.locked(tmp_path / "lock", "stop it"),
    ):
        pytest.fail("two processes on one state directory")
    with disk.locked(tmp_path / "lock", "stop it"):
        pass


def test_a_directory_that_everybody_may_write_in_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(BadInput, match="chmod 700"):
        disk.make_private_dir(open_to_all)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadInput, match="not a directory"):
        disk.make_private_dir(tmp_path / "file")
