"""State is old or new after a crash, never a mix; and what is not ours is refused, not guessed at."""

import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from common.errors import BadInput, Unavailable
from common.ids import Index, KeyId
from common.secret import Secret
from signer_service.shell.journal import Saved, StateDir
from signer_service.shell.keystore import Sealer
from tests.shell.crashing import Crash, crash, crash_at, kill

A, B = KeyId("alpha"), KeyId("beta")


def sealer(seat: int = 1) -> Sealer:
    return Sealer(Secret(b"k" * 32), b"o" * 32, Index(seat), os.urandom)


def saved(public: bytes, **secrets: bytes) -> Saved:
    return Saved(public, {KeyId(name): Secret(value) for name, value in secrets.items()})


def content(state: Saved | None) -> tuple[bytes, dict[str, bytes]] | None:
    return None if state is None else (state.public, {name: value.expose() for name, value in state.secrets.items()})


def write(path: Path, *states: Saved) -> None:
    directory = StateDir.open(path, sealer())
    try:
        directory.load()
        for state in states:
            directory.save(state)
    finally:
        directory.close()


def read(path: Path, seat: int = 1) -> tuple[bytes, dict[str, bytes]] | None:
    directory = StateDir.open(path, sealer(seat))
    try:
        return content(directory.load())
    finally:
        directory.close()


OLD = saved(b"epoch 1", alpha=b"a1" * 20, beta=b"b1" * 20)
CHANGES = {
    "first": (None, OLD),
    "changed": (OLD, saved(b"epoch 2", alpha=b"a2" * 20, beta=b"b1" * 20)),
    "all changed": (OLD, saved(b"epoch 2", alpha=b"a2" * 20, beta=b"b2" * 20)),
    "removed": (OLD, saved(b"shrunk", alpha=b"a1" * 20)),
    "added": (OLD, saved(b"grown", alpha=b"a1" * 20, beta=b"b1" * 20, gamma=b"g1")),
    "all at once": (OLD, saved(b"busy", alpha=b"a3", gamma=b"g1")),
    "public only": (OLD, saved(b"later", alpha=b"a1" * 20, beta=b"b1" * 20)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_save_that_crashes_at_any_step_leaves_the_old_state_or_the_new(tmp_path: Path, change: str) -> None:
    old, new = CHANGES[change]
    base = tmp_path / "base"
    write(base, *([old] if old else []))
    step, seen = 0, []
    while True:
        path = tmp_path / str(step)
        shutil.copytree(base, path)
        directory = StateDir.open(path, sealer())
        directory.load()
        try:
            with crash_at(step, crash):
                directory.save(new)
        except Crash:
            directory.close()
            seen.append(read(path))
            assert seen[-1] in (content(old), content(new))
            # What was loaded is settled: the next save of the same start is whole again.
            write(path, new)
            assert read(path) == content(new)
            step += 1
            continue
        directory.close()
        break
    assert seen[0] == content(old)
    assert seen[-1] == content(new)


@pytest.mark.parametrize("change", ["first", "all at once"])
def test_kill_9_in_the_middle_of_a_save_leaves_the_old_state_or_the_new(tmp_path: Path, change: str) -> None:
    old, new = CHANGES[change]
    base = tmp_path / "base"
    write(base, *([old] if old else []))
    for step in range(0, 24, 5):
        path = tmp_path / str(step)
        shutil.copytree(base, path)
        child = multiprocessing.get_context("fork").Process(target=_save_and_die, args=(path, new, step))
        child.start()
        child.join(20)
        assert child.exitcode == -9
        assert read(path) in (content(old), content(new))


def _save_and_die(path: Path, state: Saved, step: int) -> None:
    directory = StateDir.open(path, sealer())
    directory.load()
    with crash_at(step, kill):
        directory.save(state)
    kill()


def test_a_crash_while_a_cut_save_is_being_finished_changes_nothing_either(tmp_path: Path) -> None:
    _, new = CHANGES["all at once"]
    for first in range(0, 40, 3):
        path = tmp_path / str(first)
        write(path, OLD)
        directory = StateDir.open(path, sealer())
        directory.load()
        try:
            with crash_at(first, crash):
                directory.save(new)
        except Crash:
            directory.close()
            before = [content(OLD), content(new)]
            for second in range(12):
                directory = StateDir.open(path, sealer())
                try:
                    with crash_at(second, crash):
                        directory.load()
                except Crash:
                    pass
                directory.close()
            assert read(path) in before
            continue
        directory.close()


def test_erased_secrets_are_in_no_file(tmp_path: Path) -> None:
    write(tmp_path / "s", OLD, saved(b"x", alpha=b"a2"))
    assert sorted(path.name for path in (tmp_path / "s" / "shares").iterdir()) == ["alpha"]
    held = StateDir.open(tmp_path / "s", sealer())
    raw = (tmp_path / "s" / "shares" / "alpha").read_bytes()
    plain = sealer().open(tmp_path, "share", "alpha", raw)
    held.close()
    assert b"a1" not in plain
    assert b"a2" in plain


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    directory = StateDir.open(tmp_path / "s", sealer())
    directory.load()
    assert directory.save(OLD)
    with crash_at(0, crash) as calls:
        assert not directory.save(saved(b"epoch 1", alpha=b"a1" * 20, beta=b"b1" * 20))
    assert calls == []
    directory.close()


def test_an_empty_directory_holds_nothing(tmp_path: Path) -> None:
    assert read(tmp_path / "new") is None
    assert read(tmp_path / "new") is None


def test_two_processes_on_one_state_directory_are_refused(tmp_path: Path) -> None:
    first = StateDir.open(tmp_path / "s", sealer())
    with pytest.raises(Unavailable, match="another process"):
        StateDir.open(tmp_path / "s", sealer())
    first.close()
    StateDir.open(tmp_path / "s", sealer()).close()


def refused(path: Path, *words: str, seat: int = 1) -> None:
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(BadInput) as caught:
        read(path, seat)
    assert caught.value.code == "state-file"
    for word in words:
        assert word in caught.value.detail
    assert "\n" not in caught.value.detail
    elsewhere = "is of another seat" in caught.value.detail
    assert ("move the whole state directory away" in caught.value.detail) is not elsewhere
    assert ("delete and move nothing" in caught.value.detail) is elsewhere
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_a_share_file_cut_flipped_or_missing_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write(path, OLD)
    share = path / "shares" / "alpha"
    whole = share.read_bytes()
    for damaged in (whole[:-1], whole[:20], b"", whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]):
        share.write_bytes(damaged)
        refused(path, "shares/alpha")
    share.unlink()
    refused(path, "shares/alpha", "missing")


def test_a_share_file_of_another_seat_key_or_epoch_is_refused_and_says_which(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write(path, OLD)
    epoch_1 = (path / "shares" / "alpha").read_bytes()
    beta = (path / "shares" / "beta").read_bytes()
    (path / "shares" / "alpha").write_bytes(beta)
    refused(path, "shares/alpha", "another key: 'beta'")
    (path / "shares" / "alpha").write_bytes(epoch_1)
    write(path, saved(b"epoch 2", alpha=b"a2", beta=b"b1" * 20))
    (path / "shares" / "alpha").write_bytes(epoch_1)
    refused(path, "shares/alpha", "another epoch")
    other = tmp_path / "other"
    directory = StateDir.open(other, sealer(seat=2))
    directory.load()
    directory.save(OLD)
    directory.close()
    refused(other, "another seat: 2, here it is 1")


def test_shares_without_their_journal_are_refused_not_erased(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write(path, OLD)
    (path / "journal").unlink()
    refused(path, "journal", "missing")


def test_a_share_that_an_older_journal_does_not_know_is_refused_not_erased(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write(path, saved(b"before the key"))
    journal = (path / "journal").read_bytes()
    write(path, OLD)
    (path / "journal").write_bytes(journal)
    refused(path, "shares/", "knows nothing of")


def test_something_else_in_the_shares_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write(path, OLD)
    (path / "shares" / "Notes.txt").write_text("hello")
    refused(path, "Notes.txt")


@pytest.mark.parametrize("name", ["journal", "journal.tmp", "shares/alpha", "shares/alpha.tmp"])
@pytest.mark.parametrize("what", ["directory", "link"])
def test_what_is_no_plain_file_is_refused_by_name(tmp_path: Path, name: str, what: str) -> None:
    path = tmp_path / "s"
    write(path, OLD)
    (path / name).unlink(missing_ok=True)
    if what == "directory":
        (path / name).mkdir()
    else:
        (path / name).symlink_to(tmp_path / "elsewhere")
    refused(path, name)
