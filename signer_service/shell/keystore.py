"""Key files as they are read, and state as it is sealed: the only use of PyNaCl's AEAD in the shell.

A sealed file is readable to nobody without the replica's sealing key, and to nobody as something that it is not: its
header (whose it is, what for, which key) is bound as associated data, so a file of another seat, key, purpose or
operator does not open, and the header says which of these it was.

    "SFS1" ‖ u16 length ‖ header (JSON, ASCII) ‖ nonce (24) ‖ XChaCha20-Poly1305 ciphertext and tag

XChaCha20 takes its nonce at random: 24 bytes never repeat, so no counter has to survive a crash.
"""

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from common.errors import BadInput
from common.ids import Index
from common.secret import Secret
from signer_service.protocol import remedy
from signer_service.protocol.machine import Entropy

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 24
TAG_BYTES: Final = 16
_MAGIC: Final = b"SFS1"
_LARGEST_HEADER: Final = 1024

_DEV_KEY: Final = hashlib.sha256(b"signer-flow insecure development sealing key").digest()
"""With ``--insecure-dev`` and no sealing key: the format stays the same and damage is still seen, but nothing is kept
secret. The caller says so, loudly."""


def read_secret_key(path: Path, what: str) -> Secret[bytes]:
    """Return the 32 raw bytes of a private key file that nobody but us can read.

    Args:
        path: A symbolic link is followed: that is how Kubernetes mounts a Secret.
        what: Its name for a person, such as "identity key".

    Raises:
        BadInput: code ``key-file``: missing, not a plain file, of another length, or open to others. One line that
            names the file and the remedy.
    """
    return Secret(_read_key(path, what, secret=True))


def read_public_key(path: Path, what: str) -> bytes:
    """Return the 32 raw bytes of a public key file.

    Raises:
        BadInput: code ``key-file``, as ``read_secret_key``, but anybody may read it.
    """
    return _read_key(path, what, secret=False)


def _read_key(path: Path, what: str, *, secret: bool) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise BadInput("key-file", f"{what} {path} is missing: make it with `provision`, or mount it") from None
    except OSError as error:
        raise BadInput("key-file", f"{what} {path} cannot be read: {error.strerror}") from error
    try:
        # Asked of the open file, not of its name: the name could point elsewhere a moment later.
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise BadInput("key-file", f"{what} {path} is not a plain file")
        if secret:
            _check_private(path, what, facts)
        raw = os.read(descriptor, KEY_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(raw) != KEY_BYTES:
        found = f"{len(raw)}" if len(raw) < KEY_BYTES else f"more than {KEY_BYTES}"
        raise BadInput(
            "key-file", f"{what} {path} has {found} bytes, not {KEY_BYTES} raw ones: restore it from a backup"
        )
    return raw


def _check_private(path: Path, what: str, facts: os.stat_result) -> None:
    # A file that is not ours can have been given to us only by its group (a mounted Secret with fsGroup): reading is
    # then the group's to do. Our own file has no such excuse.
    allowed = 0o600 if facts.st_uid == os.geteuid() else 0o640
    if stat.S_IMODE(facts.st_mode) & 0o077 & ~allowed:
        mode = stat.S_IMODE(facts.st_mode)
        raise BadInput("key-file", f"{what} {path} is open to others (mode {mode:04o}): run `chmod {allowed:o} {path}`")


@dataclass(frozen=True, slots=True)
class Sealer:
    """Seals and opens this replica's files. ``operator_key`` is the public key that everything hangs on."""

    key: Secret[bytes]
    operator_key: bytes
    seat: Index
    entropy: Entropy

    def seal(self, purpose: str, name: str, plaintext: bytes) -> bytes:
        """Return the sealed file: ``purpose`` says what it is for, ``name`` which one of those (a key id, or empty)."""
        header = _header(self._expected(purpose, name))
        nonce = self.entropy(NONCE_BYTES)
        sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, header, nonce, self.key.expose())
        return header + nonce + bytes(sealed)

    def open(self, path: Path, purpose: str, name: str, raw: bytes) -> bytes:
        """Return what ``raw``, read from ``path``, holds, if it is that file of this replica and whole.

        Raises:
            BadInput: code ``state-file``: cut, changed, not of this seat, key, purpose or operator, or sealed under
                another key. One line that names the file, what is wrong and what to do.
        """
        header, rest = _split(path, raw)
        expected = self._expected(purpose, name)
        found = _parse(path, header)
        for field, value in expected.items():
            if found.get(field) != value:
                what = f"is of another {_WORDS[field]}: {found.get(field)!r}, here it is {value!r}"
                raise _refuse(path, what, _THEN[field])
        if header != _header(expected):
            raise _refuse(path, "has a damaged header")
        nonce, sealed = rest[:NONCE_BYTES], rest[NONCE_BYTES:]
        try:
            return bytes(crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, header, nonce, self.key.expose()))
        except CryptoError:
            what = "does not open: it was cut or changed, or the sealing key is another one"
            raise _refuse(path, what, remedy.SEALING_KEY) from None

    def _expected(self, purpose: str, name: str) -> dict[str, str | int]:
        operator = hashlib.sha256(self.operator_key).hexdigest()
        return {"purpose": purpose, "name": name, "seat": self.seat, "operator": operator}


def insecure_sealing_key() -> Secret[bytes]:
    """The key that everybody knows, for ``--insecure-dev``."""
    return Secret(_DEV_KEY)


_WORDS: Final = {"purpose": "purpose", "name": "key", "seat": "seat", "operator": "operator key"}


_THEN: Final = {"purpose": remedy.HEAL, "name": remedy.HEAL, "seat": remedy.SEAT, "operator": remedy.OPERATOR}


def _header(fields: dict[str, str | int]) -> bytes:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    return _MAGIC + len(text).to_bytes(2, "big") + text


def _split(path: Path, raw: bytes) -> tuple[bytes, bytes]:
    if not raw.startswith(_MAGIC):
        raise _refuse(path, "is not a state file")
    length = int.from_bytes(raw[len(_MAGIC) : len(_MAGIC) + 2], "big")
    end = len(_MAGIC) + 2 + length
    if length > _LARGEST_HEADER or len(raw) < end + NONCE_BYTES + TAG_BYTES:
        raise _refuse(path, "was cut or changed")
    return raw[:end], raw[end:]


def _parse(path: Path, header: bytes) -> dict[str, object]:
    try:
        fields = json.loads(header[len(_MAGIC) + 2 :])
    except (ValueError, RecursionError):
        raise _refuse(path, "has a damaged header") from None
    if not isinstance(fields, dict):
        raise _refuse(path, "has a damaged header")
    return fields


def _refuse(path: Path, what: str, then: str = remedy.HEAL) -> BadInput:
    return BadInput("state-file", f"{path} {what}: {then}")
