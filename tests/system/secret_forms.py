"""Every secret of a running system, and every form in which one could be printed."""

import base64
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

from common import ed25519
from common.errors import BadInput
from common.ids import Index
from common.secret import Secret
from signer_service.protocol.ceremony_state import KeySecrets
from signer_service.protocol.snapshot import unpack
from signer_service.shell.keystore import Sealer

SHORTEST = 12
"""Characters of a form that are looked for: a log may cut a line, and so many do not come by chance."""


def forms(secret: bytes) -> Iterator[bytes]:
    """What a search has to look for: raw, hex, base64 at each of its three places in a longer text, Python's own
    literal and list, and the number that it is."""
    yield secret
    for written in (secret, secret[::-1]):
        text = written.hex()
        for spelled in (text, text.upper(), ":".join(text[i : i + 2] for i in range(0, len(text), 2))):
            yield spelled[: 2 * SHORTEST].encode()
        yield str(int.from_bytes(written, "big"))[: 2 * SHORTEST].encode()
        yield ", ".join(map(str, written[:SHORTEST])).encode()
    for before in range(3):
        # The characters that depend on nothing but the secret's own bytes.
        whole = base64.b64encode(bytes(before) + secret)
        inner = whole[-(-before * 8 // 6) : len(whole) // 4 * 4 - 4][: 2 * SHORTEST]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))
    yield repr(secret)[2:-1].encode()[: 3 * SHORTEST]


def found_in(secrets: Mapping[str, bytes], printed: bytes) -> list[str]:
    """Names of the secrets of which any form stands in ``printed``."""
    return [name for name, secret in secrets.items() if any(form in printed for form in forms(secret))]


def of_files(keys: Path) -> dict[str, bytes]:
    """The private keys that ``provision`` wrote."""
    return {str(path.relative_to(keys)): path.read_bytes() for path in keys.rglob("*.key")}


def of_state(keys: Path, state: Path) -> dict[str, bytes]:
    """What is in the sealed share files now: shares, and the secrets of a ceremony that is under way."""
    operator = ed25519.public_key(Secret((keys / "operator.key").read_bytes()))
    found: dict[str, bytes] = {}
    for path in state.glob("*/shares/*"):
        seat = path.parent.parent.name
        sealing = Secret((keys / "seats" / seat / "sealing.key").read_bytes())
        try:
            plain = Sealer(sealing, operator, Index(int(seat)), bytes).open(path, "share", path.name, path.read_bytes())
        except (BadInput, OSError):
            continue  # it is being replaced at this moment
        for _, content in _pairs(plain):
            for number, each in enumerate(_secrets(unpack(KeySecrets, content))):
                raw = each.to_bytes(32, "little") if isinstance(each, int) else each
                found[f"seat {seat} {path.name} {number} {raw[:4].hex()}"] = raw
    return found


def _pairs(packed: bytes) -> Iterator[tuple[bytes, bytes]]:
    parts: list[bytes] = []
    while packed:
        size = int.from_bytes(packed[:4], "big")
        parts.append(packed[4 : 4 + size])
        packed = packed[4 + size :]
    return zip(parts[::2], parts[1::2], strict=True)


def _secrets(value: object) -> Iterator[bytes | int]:
    """Whatever a ``Secret`` holds, anywhere inside."""
    if isinstance(value, Secret):
        held = value.expose()
        if isinstance(held, bytes | int):
            yield held
        else:
            yield from _secrets(held)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _secrets(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _secrets(each)
    elif isinstance(value, tuple | list | frozenset):
        for each in value:
            yield from _secrets(each)
