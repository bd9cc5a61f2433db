"""The state directory: what a replica must still know after a crash, as one atomic whole.

    journal           the public fold of the ceremonies, and which generation of each key's secrets belongs to it
    shares/<key_id>   that key's secrets
    lock              held by the process that uses the directory

Both kinds are sealed (``keystore``). Several files cannot be replaced at one stroke, so the journal decides. Secrets
that changed are first written beside the old ones in one file, each under a random generation name (1); then the
journal, which names the generation that counts (2); then the file again with that generation alone, the old bytes
overwritten (3). A crash before (2) leaves the old state, after it the new one; ``load`` finishes what was begun.

What is "settled" was counted on at some time. A settled generation that the journal does not name is therefore no
leftover but a file of another time (a restored backup, say): that is refused, never erased.
"""

import os
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from common.errors import BadInput
from common.ids import KeyId, parse_key_id
from common.secret import Secret
from signer_service.protocol import remedy
from signer_service.shell import disk
from signer_service.shell.keystore import Sealer

_GENERATION_BYTES: Final = 16
_LARGEST_FILE: Final = 256 * 1024 * 1024
_NOT_OURS: Final = "opens, but does not hold what this version writes"


@dataclass(frozen=True, slots=True)
class Saved:
    """What is kept: public bytes, and secret bytes per key. Nothing here knows what they mean."""

    public: bytes
    secrets: Mapping[KeyId, Secret[bytes]] = field(default_factory=dict)

    def same_secrets(self, other: "Saved") -> bool:
        """Whether both hold the same secrets of the same keys."""
        return self.secrets.keys() == other.secrets.keys() and all(
            content is other.secrets[key_id] or content.expose() == other.secrets[key_id].expose()
            for key_id, content in self.secrets.items()
        )


@dataclass(frozen=True, slots=True)
class _Generation:
    name: bytes
    content: Secret[bytes]
    settled: bool


class StateDir:
    """One replica's state on disk. Blocking; used by one thread at a time.

    ``open`` takes the lock, ``close`` lets it go. Between them ``load`` comes before the first ``save``.
    """

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._path = path
        self._sealer = sealer
        self._locks = ExitStack()
        self._public: bytes | None = None
        self._current: dict[KeyId, _Generation] = {}

    @classmethod
    def open(cls, path: Path, sealer: Sealer) -> Self:
        """Make the directory if need be, and lock it.

        Raises:
            BadInput: code ``directory``: it cannot be made or used.
            Unavailable: code ``locked``: another process uses it.
        """
        opened = cls(path, sealer)
        disk.make_private_dir(path)
        disk.make_private_dir(opened._shares)
        try:
            opened._locks.enter_context(
                disk.locked(path / "lock", "stop that one first; two replicas on one state directory would ruin it")
            )
        except OSError as error:
            raise BadInput("directory", f"{path} cannot be used: {error.strerror}") from error
        return opened

    def close(self) -> None:
        """Let the lock go."""
        self._locks.close()

    def load(self) -> Saved | None:
        """Return what was saved last, whole, or None if nothing ever was. Finishes a save that a crash cut short.

        Raises:
            BadInput: code ``state-file``: a file was cut, changed, is missing, or is of another seat, key, operator or
                time. One line that names it and says what to do. Nothing was changed then.
        """
        try:
            return self._load()
        except OSError as error:
            name = error.filename if isinstance(error.filename, str) else self._path
            raise _refuse(Path(name), f"cannot be used ({error.strerror})") from error

    def _load(self) -> Saved | None:
        raw = _read(self._journal)
        files = {path.name: path for path in sorted(self._shares.iterdir()) if not path.name.endswith(".tmp")}
        if raw is None:
            if files:
                raise _refuse(self._journal, f"is missing, but {next(iter(files.values()))} is there")
            self._remove_leftovers()
            return None
        public, named = self._parse_journal(raw)
        held = {name: self._open_share(path, name) for name, path in files.items()}
        for key_id, generation in named.items():
            self._check_named(key_id, generation, held.get(key_id, ()))
        for name in held.keys() - named.keys():
            if any(each.settled for each in held[name]):
                raise _refuse(files[name], "holds a share that the journal knows nothing of")
        # Every file is whole and belongs here: only now is anything changed.
        self._remove_leftovers()
        for name in held.keys() - named.keys():
            disk.erase(files[name])
        self._current = {}
        for key_id, generation in named.items():
            kept = next(each for each in held[key_id] if each.name == generation)
            self._current[key_id] = _Generation(kept.name, kept.content, settled=True)
            if len(held[key_id]) > 1 or not kept.settled:
                self._write_share(key_id, (self._current[key_id],))
        self._public = public
        if not public and not named:
            return None
        return Saved(public, {key_id: each.content for key_id, each in self._current.items()})

    def save(self, saved: Saved) -> bool:
        """Make ``saved`` durable; what it no longer holds is erased. On return it survives a power cut.

        Returns:
            Whether anything had changed: if not, nothing was written.

        Raises:
            OSError: the old state is there, or the new one; the process should end.
        """
        changed = {
            key_id: _Generation(self._sealer.entropy(_GENERATION_BYTES), content, settled=False)
            for key_id, content in saved.secrets.items()
            if key_id not in self._current or self._current[key_id].content.expose() != content.expose()
        }
        removed = self._current.keys() - saved.secrets.keys()
        if not changed and not removed and saved.public == self._public:
            return False
        if self._public is None:
            # From here on a share without a journal means that a journal was lost, not that a first save was cut short.
            self._write_journal(b"", {})
        for key_id in changed.keys() | removed:
            both = [self._current.get(key_id), changed.get(key_id)]
            unsettled = [_Generation(each.name, each.content, settled=False) for each in both if each is not None]
            self._write_share(key_id, unsettled)
        kept = {key_id: self._current[key_id] for key_id in self._current.keys() - removed - changed.keys()}
        fresh = {key_id: _Generation(each.name, each.content, settled=True) for key_id, each in changed.items()}
        current = kept | fresh
        self._write_journal(saved.public, {key_id: each.name for key_id, each in current.items()})
        for key_id, generation in fresh.items():
            self._write_share(key_id, (generation,))
        for key_id in removed:
            disk.erase(self._shares / key_id)
        self._public, self._current = saved.public, current
        return True

    @property
    def _journal(self) -> Path:
        return self._path / "journal"

    @property
    def _shares(self) -> Path:
        return self._path / "shares"

    def _remove_leftovers(self) -> None:
        disk.remove_leftovers(self._path)
        disk.remove_leftovers(self._shares)

    def _write_journal(self, public: bytes, generations: Mapping[KeyId, bytes]) -> None:
        entries = [part for key_id in sorted(generations) for part in (key_id.encode(), generations[key_id])]
        disk.write_durably(self._journal, self._sealer.seal("journal", "", _pack((public, *entries))))

    def _parse_journal(self, raw: bytes) -> tuple[bytes, dict[KeyId, bytes]]:
        parts = _unpack(self._journal, self._sealer.open(self._journal, "journal", "", raw))
        try:
            public, *entries = parts
            pairs = zip(entries[::2], entries[1::2], strict=True)
            return public, {parse_key_id(key_id.decode("ascii")): generation for key_id, generation in pairs}
        except (ValueError, BadInput):
            raise _refuse(self._journal, _NOT_OURS) from None

    def _write_share(self, key_id: KeyId, generations: tuple[_Generation, ...] | list[_Generation]) -> None:
        parts = [part for each in generations for part in (bytes([each.settled]) + each.name, each.content.expose())]
        sealed = self._sealer.seal("share", key_id, _pack(parts))
        disk.write_durably(self._shares / key_id, sealed, wipe_old=True)

    def _open_share(self, path: Path, name: str) -> tuple[_Generation, ...]:
        try:
            parse_key_id(name)
        except BadInput:
            raise _refuse(path, "is not a share") from None
        parts = _unpack(path, self._sealer.open(path, "share", name, _read(path) or b""))
        if len(parts) % 2:
            raise _refuse(path, _NOT_OURS)
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return tuple(_Generation(head[1:], Secret(content), settled=head[:1] == b"\x01") for head, content in pairs)

    def _check_named(self, key_id: KeyId, generation: bytes, held: tuple[_Generation, ...]) -> None:
        if not held:
            raise _refuse(self._shares / key_id, "is missing")
        if all(each.name != generation for each in held):
            raise _refuse(self._shares / key_id, "is of another epoch or moment than the journal")


def _read(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refuse(path, f"cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refuse(path, "is not a plain file")
    with os.fdopen(descriptor, "rb") as file:
        try:
            raw = file.read(_LARGEST_FILE + 1)
        except OSError as error:
            raise _refuse(path, f"cannot be read ({error.strerror})") from error
    if len(raw) > _LARGEST_FILE:
        raise _refuse(path, "is far too large to be ours")
    return raw


def _pack(parts: tuple[bytes, ...] | list[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _unpack(path: Path, packed: bytes) -> list[bytes]:
    # What is read here was authenticated, so it is as one of us wrote it; another version of us, perhaps.
    parts, at = [], 0
    while at < len(packed):
        end = at + 4 + int.from_bytes(packed[at : at + 4], "big")
        if len(packed) < max(end, at + 4):
            raise _refuse(path, _NOT_OURS)
        parts.append(packed[at + 4 : end])
        at = end
    return parts


def _refuse(path: Path, what: str) -> BadInput:
    return BadInput("state-file", f"{path} {what}: {remedy.VERSION if what == _NOT_OURS else remedy.HEAL}")
