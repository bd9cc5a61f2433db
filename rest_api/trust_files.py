"""The three files that this pod trusts by: ``operator.pub``, ``roster.avro`` and, private, ``edge.key``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common import ed25519, trust
from common.errors import BadInput
from common.private_file import read_private_file
from common.secret import Secret
from common.wire import topics
from common.wire.messages import MAX_RECORD_BYTES, Roster
from rest_api.gateway.key_directory import KeyDirectory
from rest_api.settings import Settings

KEY_BYTES: Final = 32
_REMEDY: Final = "run `python -m signer_service provision`, or point the setting at the folder that it wrote"


@dataclass(frozen=True, slots=True)
class TrustFiles:
    """What stood in them."""

    operator_key: bytes
    roster: Roster
    edge_key: Secret[bytes]

    def directory(self, settings: Settings) -> KeyDirectory:
        """A key directory that believes nothing but these, so far."""
        topic = topics.ceremony(settings.topic_prefix).name
        return KeyDirectory(self.roster, self.operator_key, topic, settings.pins)


def read_trust_files(settings: Settings) -> TrustFiles:
    """Read and check the files.

    Raises:
        BadInput: one line that names the file, what is wrong with it, and what to do.
    """
    operator_file = settings.trust_file(settings.operator_key_file, "operator.pub")
    roster_file = settings.trust_file(settings.roster_file, "roster.avro")
    edge_file = settings.trust_file(settings.edge_key_file, "edge.key")
    operator_key = _read(operator_file)
    if len(operator_key) != KEY_BYTES:
        raise BadInput("operator-key", f"{operator_file}: a public key has {KEY_BYTES} bytes, this {len(operator_key)}")
    try:
        roster = trust.read_roster(_read(roster_file), operator_key)
    except BadInput as bad:
        raise BadInput(bad.code, f"{roster_file}: {bad.detail} (operator key: {operator_file})") from None
    edge_key = _read_private(edge_file)
    if ed25519.public_key(edge_key) not in roster.edge_keys:
        raise BadInput("edge-key", f"{edge_file}: not an edge key of {roster_file}: no signer would take our requests")
    files = TrustFiles(operator_key, roster, edge_key)
    files.directory(settings)  # settings and roster may pin different keys: that, too, must stop the start
    return files


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_RECORD_BYTES + 1)
    except OSError as error:
        raise BadInput("key-file", f"{path}: {_why(error)}; {_REMEDY}") from None
    if len(raw) > MAX_RECORD_BYTES:
        raise BadInput("key-file", f"{path}: far too large for what it should be")
    return raw


def _read_private(path: Path) -> Secret[bytes]:
    raw = read_private_file(path, MAX_RECORD_BYTES, "key-file", remedy=_REMEDY)
    if len(raw) != KEY_BYTES:
        raise BadInput("key-file", f"{path}: a private key has {KEY_BYTES} bytes; {_REMEDY}")
    return Secret(raw)


def _why(error: OSError) -> str:
    return (
        "there is no such file"
        if isinstance(error, FileNotFoundError)
        else (error.strerror or "cannot be read").lower()
    )
