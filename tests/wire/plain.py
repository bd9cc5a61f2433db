"""The form of the examples: JSON for people. Bytes as hex, a UUID as text, a union's value under its branch's name."""

import uuid
from typing import Any


def to_plain(schema: Any, value: Any, named: dict[str, Any]) -> Any:
    """``value`` as fastavro read it by ``schema`` (as written in the file)."""
    if isinstance(schema, str):
        return to_plain(named[schema], value, named) if schema in named else _leaf(value)
    if isinstance(schema, list):
        name, inner = value
        name = name.rpartition(".")[2]
        return {name: to_plain(named[name], inner, named)}
    kind = schema["type"]
    if kind == "array":
        return [to_plain(schema["items"], one, named) for one in value]
    if kind == "record":
        return {field["name"]: to_plain(field["type"], value[field["name"]], named) for field in schema["fields"]}
    if kind == "fixed" and schema.get("logicalType") == "uuid":
        return str(uuid.UUID(bytes=value))
    return _leaf(value)


def named_types(schema: Any) -> dict[str, Any]:
    """Every named type that is defined somewhere in ``schema``."""
    if isinstance(schema, list):
        return {name: one for branch in schema for name, one in named_types(branch).items()}
    if not isinstance(schema, dict):
        return {}
    if schema["type"] == "array":
        return named_types(schema["items"])
    found = {schema["name"]: schema} if "name" in schema else {}
    for field in schema.get("fields", ()):
        found |= named_types(field["type"])
    return found


def _leaf(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
