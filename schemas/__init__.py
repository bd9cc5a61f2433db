"""The Avro schemas of every record that travels, as files that any Avro tool reads.

``<Record>.avsc`` is what this version writes; ``history/<fingerprint>.avsc`` is everything that was ever written, which
every later version goes on reading; ``examples/<Record>.json`` is one value of each with its bytes. Only text is
handled here: ``common.wire.codec`` parses it. ``README.md`` has the rules of change.
"""

from functools import cache
from importlib.resources import files
from typing import Final

LEVEL: Final = 1
"""Highest level of these schemas that this version reads; it stands in every beat (``Presence.schema_level``)."""


def names() -> tuple[str, ...]:
    """Names of all records, in alphabetical order."""
    suffix = ".avsc"
    return tuple(sorted(f.name.removesuffix(suffix) for f in files(__name__).iterdir() if f.name.endswith(suffix)))


def current(name: str) -> str:
    """Text (JSON) of the schema that this version writes for the record ``name``."""
    return (files(__name__) / f"{name}.avsc").read_text(encoding="utf-8")


@cache
def history() -> dict[bytes, str]:
    """Text of every schema that was ever written, by its 8-byte fingerprint (CRC-64-AVRO, little-endian)."""
    suffix = ".avsc"
    folder = files(__name__) / "history"
    return {
        bytes.fromhex(f.name.removesuffix(suffix)): f.read_text(encoding="utf-8")
        for f in folder.iterdir()
        if f.name.endswith(suffix)
    }


def example(name: str) -> str:
    """Text (JSON) of the example of the record ``name``."""
    return (files(__name__) / "examples" / f"{name}.json").read_text(encoding="utf-8")
