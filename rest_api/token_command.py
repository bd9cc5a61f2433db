"""``signer-flow token``: make a token, put its hash into the file, and show the token once."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.errors import BadInput, Unavailable
from common.ids import KeyId, parse_key_id
from common.private_file import read_private_file
from rest_api import token_file
from rest_api.token_file import Token

HEADER = "# Who may call: one [[token]] entry each, with the SHA-256 of the token. To withdraw one, remove its entry.\n"


def make_token(path: Path, name: str, keys: Sequence[str] | None, rate: str | None) -> tuple[str, Token]:
    """Make a token and append its entry; the file is replaced as a whole, so no reader ever sees half of one.

    Args:
        path: The token file; made, private to its owner, if there is none.
        name: Of the token, and of its caller in the audit.
        keys: Ids of the keys it is for; None: all.
        rate: Such as ``6000/minute``; None: no limit.

    Returns:
        The token, which nothing keeps, and its entry.

    Raises:
        BadInput: the name, a key id or the rate is malformed, the name is taken, or the file is not as it must be.
        Unavailable: the file cannot be written; it is as it was.
    """
    try:
        token_file.check_name(name)
        limit = None if rate is None else token_file.parse_rate(rate)
    except ValueError as error:
        raise BadInput("token", str(error)) from None
    allowed: frozenset[KeyId] | None = None if keys is None else frozenset(parse_key_id(key) for key in keys)
    if allowed is not None and not allowed:
        raise BadInput("token", "no key is named: leave --keys out for all keys")
    secret = token_file.new_token()
    token = Token(name, token_file.digest(secret), allowed, limit)
    try:
        path = path.resolve()
        with _alone(path.parent):
            before = _content(path)
            if any(old.name.lower() == name.lower() for old in token_file.parse(before, path)):
                raise BadInput("token", f"{path} has a token {name!r}: remove its entry first, or choose another name")
            after = before + b"\n" * (1 if before.endswith(b"\n") else 2) + token_file.entry(token).encode()
            token_file.parse(after, path)  # as every pod will read it
            _replace(path, after)
    except OSError as error:
        raise Unavailable("token-file", f"{path}: {(error.strerror or 'cannot be written').lower()}") from None
    return secret, token


def _content(path: Path) -> bytes:
    if not path.exists():
        return HEADER.encode()
    return read_private_file(path, token_file.MAX_FILE_BYTES, "token-file")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: two who append at one time would lose one of the entries."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(path: Path, content: bytes) -> None:
    # mkstemp makes it 0600, whatever the umask.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
