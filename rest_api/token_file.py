"""The file that says who may call: TOML, private to its owner, and no token in it, only SHA-256 of each.

    [[token]]
    name = "billing"                # stands in the audit
    sha256 = "9f86d0…"              # of the token, 64 lower-case hex digits
    keys = ["default"]              # which keys it may use; without this line: all
    rate = "6000/minute"            # signatures per second, minute or hour, on each pod; without this line: no limit

A token is 32 random bytes, so its bare hash can stand here: nobody can guess through it. ``signer-flow token`` writes
such entries; a line is removed by hand. Anything that is not exactly so refuses the whole file.
"""

import hashlib
import re
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from common.errors import BadInput
from common.ids import KeyId, parse_key_id
from common.private_file import read_private_file

ANONYMOUS: Final = "anonymous"
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
MARK: Final = "sft_"
"""So that a scanner of repositories and logs can tell what it found."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_RATE: Final = re.compile(r"([1-9][0-9]{0,8})/(second|minute|hour)")
_FIELDS: Final = frozenset({"name", "sha256", "keys", "rate"})


@dataclass(frozen=True, slots=True)
class Rate:
    """``amount`` items per ``unit`` (second, minute or hour)."""

    amount: int
    unit: str

    def __str__(self) -> str:
        return f"{self.amount}/{self.unit}"


@dataclass(frozen=True, slots=True)
class Token:
    """One entry. ``keys`` None: every key. ``rate`` None: no limit."""

    name: str
    sha256: bytes
    keys: frozenset[KeyId] | None = None
    rate: Rate | None = None


def parse_rate(text: str) -> Rate:
    """Read ``100/second``, ``6000/minute`` or ``100000/hour``.

    Raises:
        ValueError: it is none of these.
    """
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError("a rate is written like 100/second, 6000/minute or 100000/hour")
    return Rate(int(found.group(1)), found.group(2))


def check_name(name: str) -> str:
    """Return ``name`` if a token may be called so.

    Raises:
        ValueError: it cannot.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError("a token's name has 1 to 63 letters, digits or . _ @ -, the first a letter or digit")
    if name.lower() == ANONYMOUS:
        raise ValueError(f"the name {ANONYMOUS} stands for callers without a token")
    return name


def digest(token: str) -> bytes:
    """What the file keeps of a token: 32 bytes. Any string may come from a caller's header."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def new_token() -> str:
    """A token: 32 bytes from the system's generator, to be shown once."""
    return MARK + secrets.token_urlsafe(32)


def entry(token: Token) -> str:
    """The lines that stand for ``token`` in the file."""
    lines = ["[[token]]", f'name = "{token.name}"', f'sha256 = "{token.sha256.hex()}"']
    if token.keys is not None:
        lines.append("keys = [" + ", ".join(f'"{key}"' for key in sorted(token.keys)) + "]")
    if token.rate is not None:
        lines.append(f'rate = "{token.rate}"')
    return "\n".join(lines) + "\n"


def read_token_file(path: Path) -> tuple[Token, ...]:
    """Read and check the file. An empty one is right: then nobody may call.

    Raises:
        BadInput: code ``token-file``: one line that names the file, the entry and what is wrong with it.
    """
    return parse(read_private_file(path, MAX_FILE_BYTES, "token-file", remedy="`signer-flow token` makes one"), path)


def parse(raw: bytes, path: Path) -> tuple[Token, ...]:
    """Understand the bytes of the file; ``path`` is for what is said. Raises as ``read_token_file``."""
    try:
        document = tomllib.loads(raw.decode())
    except UnicodeDecodeError:
        raise BadInput("token-file", f"{path}: not UTF-8 text") from None
    except ValueError as error:
        # The parser's own error, or Python's for a number of thousands of digits. The parser's words name line and
        # column; the rest of them may quote the file.
        place = re.search(r"\((at .*)\)$", str(error))
        raise BadInput("token-file", f"{path}: not TOML{' ' + place.group(1) if place else ''}") from None
    except RecursionError:
        raise BadInput("token-file", f"{path}: nested too deeply") from None
    entries = document.pop("token", [])
    if document:
        raise BadInput("token-file", f"{path}: {min(document)!r} is unknown: only [[token]] entries stand here")
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise BadInput("token-file", f"{path}: each token begins with a line [[token]]")
    tokens: list[Token] = []
    names: dict[str, int] = {}
    hashes: dict[bytes, int] = {}
    for number, fields in enumerate(entries, 1):
        where = f"{path}: token {number}"
        try:
            token = _token(fields)
        except (ValueError, BadInput) as error:
            raise BadInput("token-file", f"{where}: {getattr(error, 'detail', error)}") from None
        # Two that differ in their capitals only would be one for whoever reads the audit.
        if (first := names.setdefault(token.name.lower(), number)) != number:
            raise BadInput("token-file", f"{where}: has the name of token {first}, {token.name!r}")
        if (first := hashes.setdefault(token.sha256, number)) != number:
            raise BadInput("token-file", f"{where}: has the sha256 of token {first}: whose call would it be?")
        tokens.append(token)
    return tuple(tokens)


def _token(fields: Mapping[str, Any]) -> Token:
    unknown = sorted(set(fields) - _FIELDS)
    if unknown:
        raise ValueError(f"{unknown[0]!r} is unknown: an entry has name, sha256, keys, rate")
    name, sha256 = (_text(fields, field) for field in ("name", "sha256"))
    check_name(name)
    if _SHA256.fullmatch(sha256) is None:
        raise ValueError("sha256 is not 64 lower-case hex digits")
    keys: frozenset[KeyId] | None = None
    if "keys" in fields:
        given = fields["keys"]
        if not isinstance(given, list) or not given or not all(isinstance(key, str) for key in given):
            raise ValueError("keys is not a list of key ids; leave it out for all keys")
        keys = frozenset(parse_key_id(key) for key in given)
    return Token(name, bytes.fromhex(sha256), keys, parse_rate(_text(fields, "rate")) if "rate" in fields else None)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if isinstance(value, str):
        return value
    raise ValueError(f"{name} is missing" if value is None else f"{name} is not a string")
