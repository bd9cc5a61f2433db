"""``python -m schemas`` prints the reference of all records; with ``--write`` it puts it into README.md."""

import json
import sys
from pathlib import Path
from typing import Any

import schemas

README = Path(__file__).with_name("README.md")
MARK = "<!-- From here on written by `python -m schemas --write`: change the .avsc files instead. -->"


def reference() -> str:
    """Return the Markdown reference: a table of the records, then one of the fields of each."""
    parsed = [json.loads(schemas.current(name)) for name in schemas.names()]
    lines = ["| record | what it is |", "|---|---|"]
    lines += [f"| [{one['name']}](#{one['name'].lower()}) | {one['doc']} |" for one in parsed]
    for one in parsed:
        lines += ["", f"## {one['name']}"]
        for part in _records(one):
            if part is not one:
                lines += ["", f"**{part['name']}**: {part['doc']}"]
            lines += ["", "| field | type | meaning |", "|---|---|---|"]
            lines += [f"| `{f['name']}` | {_type(f['type'])} | {f['doc']} |" for f in part["fields"]]
    return "\n".join(lines) + "\n"


def regenerated(text: str) -> str:
    """Return the README ``text`` with its reference as it should be now."""
    return text.split(MARK)[0] + MARK + "\n\n" + reference()


def _records(schema: Any) -> list[Any]:
    """All records in ``schema``, itself first, in the order of their definition."""
    if isinstance(schema, list):
        return [found for branch in schema for found in _records(branch)]
    if not isinstance(schema, dict):
        return []
    if schema["type"] == "array":
        return _records(schema["items"])
    if schema["type"] == "record":
        return [schema, *(found for field in schema["fields"] for found in _records(field["type"]))]
    return []


def _type(schema: Any) -> str:
    if isinstance(schema, list):
        return " or ".join(_type(branch) for branch in schema)
    if isinstance(schema, str):
        return schema
    kind = schema["type"]
    if kind == "array":
        return f"array of {_type(schema['items'])}"
    if kind == "fixed":
        return f"{schema['name']}: fixed({schema['size']})"
    if kind == "enum":
        return f"{schema['name']}: " + " ".join(f"`{symbol}`" for symbol in schema["symbols"])
    if kind == "record":
        return str(schema["name"])
    return f"{kind} ({schema['logicalType']})"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        README.write_text(regenerated(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(reference(), end="")
