"""Files that are there whole or not at all, and that only we can read.

A durable write is: write ``<name>.tmp``, fsync it, rename it over ``<name>``, fsync the directory. Whoever dies at any
point leaves the old content or the new one, and perhaps a ``.tmp`` that the next start removes.

Erasing overwrites the bytes before the name goes. That is the best a program can do, and not a promise: a
copy-on-write or journalling file system, a flash disk's spare blocks, a snapshot or a backup may keep a copy. What was
written here is therefore sealed as well (``keystore``), and stays closed to whoever lacks the sealing key.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import BadInput, Unavailable

PRIVATE_FILE = 0o600
PRIVATE_DIR = 0o700
_TMP = ".tmp"
_OPEN_TMP = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def write_durably(path: Path, data: bytes, *, mode: int = PRIVATE_FILE, wipe_old: bool = False) -> None:
    """Replace the content of ``path`` by ``data``; on return it survives a power cut.

    Args:
        path: One writer at a time: the temporary name is fixed.
        data: The whole new content.
        mode: Permission bits of the file, whatever the umask.
        wipe_old: Overwrite what the file held before, once the new content is safe.

    Raises:
        OSError: and then ``path`` holds the old content or the new one, never a mix.
    """
    temporary = _write_temporary(path, data, mode)
    old = _open_for_wiping(path) if wipe_old else None
    try:
        temporary.replace(path)
        sync_dir(path.parent)
        if old is not None:
            _overwrite(old)
    finally:
        if old is not None:
            os.close(old)


def create_durably(path: Path, data: bytes, *, mode: int = PRIVATE_FILE) -> bool:
    """Make ``path`` with ``data``, unless a file of that name is there: then leave it alone.

    Returns:
        Whether it was made.

    Raises:
        OSError: and then the file is there whole or not at all.
    """
    temporary = _write_temporary(path, data, mode)
    try:
        # A link, not a rename: rename would replace a key that appeared meanwhile.
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
        sync_dir(path.parent)
    return True


def erase(path: Path) -> None:
    """Overwrite, then remove ``path`` (nothing happens if it is not there). See the module for what this is worth.

    Raises:
        OSError: it may still be there.
    """
    descriptor = _open_for_wiping(path)
    if descriptor is None:
        return
    try:
        # Renamed first: a crash in the middle must not leave a file of that name with half of its bytes.
        doomed = path if path.name.endswith(_TMP) else path.replace(path.with_name(path.name + _TMP))
        sync_dir(path.parent)
        _overwrite(descriptor)
    finally:
        os.close(descriptor)
    doomed.unlink()
    sync_dir(path.parent)


def remove_leftovers(directory: Path) -> None:
    """Erase what a writer that died left in ``directory``."""
    for path in sorted(directory.glob(f"*{_TMP}")):
        erase(path)


def make_private_dir(path: Path) -> None:
    """Make ``path`` for us alone, if it is not there; parents are made as the umask says.

    Raises:
        BadInput: code ``directory``: it cannot be made, is no directory, or others may write in it. One line, with
            the remedy.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            path.mkdir(mode=PRIVATE_DIR)
            sync_dir(path.parent)
        mode = path.stat().st_mode
    except OSError as error:
        raise BadInput("directory", f"{path} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise BadInput("directory", f"{path} is not a directory: name another, or move it away")
    if mode & stat.S_IWOTH:
        raise BadInput("directory", f"everybody may write in {path}: run `chmod 700 {path}`")


def sync_dir(path: Path) -> None:
    """Make the names in ``path`` durable: a rename is otherwise lost with the power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, remedy: str) -> Iterator[None]:
    """Hold a lock on ``path`` for the time of the block; it goes with the process, however that ends.

    ``path`` is a directory, or a file that is made if missing (some network file systems lock no directories).

    Raises:
        Unavailable: code ``locked``: another process holds it.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY if path.is_dir() else os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(path, flags | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable("locked", f"another process holds {path}: {remedy}") from None
        yield
    finally:
        os.close(descriptor)


def _write_temporary(path: Path, data: bytes, mode: int) -> Path:
    temporary = path.with_name(path.name + _TMP)
    descriptor = os.open(temporary, _OPEN_TMP, mode)
    try:
        os.fchmod(descriptor, mode)
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return temporary


def _open_for_wiping(path: Path) -> int | None:
    try:
        return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _overwrite(descriptor: int) -> None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    _write_all(descriptor, bytes(os.fstat(descriptor).st_size))
    os.fsync(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
