"""Gives each process of compose.yaml what it needs of the keys that ``provision`` made, and nothing else.

    hand_out.py KEYS GIVEN

Each folder of GIVEN is the volume of one process, and its name says whose: ``signer-<i>`` gets seat i's two keys,
``api`` the edge key; all get the operator's public key and the roster. The operator's private key is given to nobody.
Runs as root, so that the files can be made the property of the user of our images; run again, it brings what changed.
"""

import os
import sys
from pathlib import Path
from typing import Final

USER: Final = 10001
PUBLIC: Final = ("operator.pub", "roster.avro")


def wanted(name: str) -> tuple[str, ...]:
    """The files, relative to KEYS, for the process of this name."""
    kind, _, index = name.partition("-")
    if kind == "api":
        return (*PUBLIC, "edge.key")
    if kind == "signer" and index.isdecimal():
        return (*PUBLIC, f"seats/{index}/identity.key", f"seats/{index}/sealing.key")
    raise SystemExit(f"hand_out: {name!r} is neither api nor signer-<i>: nothing is known to be for it")


def give(source: Path, to: Path) -> None:
    """Put a copy of one file there, whole or not at all, for ``USER`` alone."""
    temporary = to.with_name(f"{to.name}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(source.read_bytes())
        os.fchown(descriptor, USER, USER)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(to)


def main(keys: Path, given: Path) -> None:
    """Fill every folder of ``given``."""
    for volume in sorted(given.iterdir()):
        for name in wanted(volume.name):
            target = volume / name
            for folder in (volume, *(parent for parent in reversed(target.parents) if volume in parent.parents)):
                folder.mkdir(exist_ok=True)
                os.chown(folder, USER, USER)
                folder.chmod(0o700)
            give(keys / name, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
