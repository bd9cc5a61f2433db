"""Files that nobody but their owner may read or write: keys, passwords, who may call."""

import os
import stat
from pathlib import Path

from common.errors import BadInput


def read_private_file(path: Path, most_bytes: int, code: str, *, remedy: str = "") -> bytes:
    """Return what stands in a file that only its owner can read; if that is not us, its group may read it, too.

    Args:
        path: Where; symbolic links are followed, as mounted secrets are links.
        most_bytes: What is longer is refused, and never held.
        code: Of the ``BadInput``.
        remedy: What to do when the file is not there, appended to the line.

    Raises:
        BadInput: missing, unreadable, no regular file, open to others, or too long: one line that names the file and
            nothing of its content.
    """
    told = f"; {remedy}" if remedy else ""
    try:
        with path.open("rb") as file:
            # Of the open file, not of the name: between two looks a name can change hands.
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise BadInput(code, f"{path}: not a regular file{told}")
            # A file that is not ours can have been given to us only by its group (a mounted Secret with fsGroup):
            # reading is then the group's to do. Our own file has no such excuse.
            allowed = 0o600 if found.st_uid == os.geteuid() else 0o640
            if found.st_mode & 0o077 & ~allowed:
                mode = stat.S_IMODE(found.st_mode)
                raise BadInput(
                    code, f"{path}: mode {mode:04o} lets others read or write it; run `chmod {allowed:o} {path}`"
                )
            raw = file.read(most_bytes + 1)
    except FileNotFoundError:
        raise BadInput(code, f"{path}: there is no such file{told}") from None
    except IsADirectoryError:
        raise BadInput(code, f"{path}: not a regular file{told}") from None
    except OSError as error:
        raise BadInput(code, f"{path}: {(error.strerror or 'cannot be read').lower()}{told}") from None
    if len(raw) > most_bytes:
        raise BadInput(code, f"{path}: more than {most_bytes} bytes, which cannot be right{told}")
    return raw
