"""Makes helm/signer-flow/values.schema.json of values.yaml: types from the values, descriptions from the sentences
above them, and what neither says from lines that begin with ``# @schema``.

    helm_schema.py           print it
    helm_schema.py --write   put it beside values.yaml

Strict: an object takes the keys that values.yaml shows and no others, unless ``additionalProperties`` says what else.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).resolve().parent.parent / "helm" / "signer-flow"
_TYPES: Final = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}


class Failed(Exception):
    """values.yaml is not as it must be: one line for whoever wrote it."""


def schema_of(text: str) -> dict[str, Any]:
    """Return the JSON schema of a values.yaml.

    Raises:
        Failed: a value without a sentence, of a kind that has no type, or with an annotation that is no JSON.
    """
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise Failed("values.yaml is no mapping")
    lines = text.splitlines()
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", **_object(node, lines, "")}
    return {**schema, "title": "Values of the chart signer-flow"}


def _object(node: yaml.MappingNode, lines: list[str], where: str) -> dict[str, Any]:
    properties = {}
    for key, value in node.value:
        name = f"{where}{key.value}"
        sentence, more = _above(lines, key.start_mark.line, name)
        properties[key.value] = {"description": sentence, **_value(value, lines, name, more), **more}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _value(node: yaml.Node, lines: list[str], name: str, more: dict[str, Any]) -> dict[str, Any]:
    if isinstance(node, yaml.MappingNode) and "additionalProperties" not in more:
        return _object(node, lines, f"{name}.")
    value = yaml.SafeLoader("").construct_object(node, deep=True)
    if "type" in more or "enum" in more:
        return {}
    if type(value) not in _TYPES:
        raise Failed(f"{name}: nothing says of which type it is")
    if isinstance(value, list) and "items" not in more:
        raise Failed(f"{name}: a list needs items")
    return {"type": _TYPES[type(value)]}


def _above(lines: list[str], line: int, name: str) -> tuple[str, dict[str, Any]]:
    first = line
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    comments = [each.strip().removeprefix("#").strip() for each in lines[first:line]]
    sentence = " ".join(each for each in comments if not each.startswith("@schema"))
    if not sentence.endswith("."):
        raise Failed(f"{name}: no sentence above it")
    more: dict[str, Any] = {}
    for each in comments:
        if each.startswith("@schema"):
            try:
                more |= json.loads(each.removeprefix("@schema"))
            except ValueError as error:
                raise Failed(f"{name}: {error}") from None
    return sentence, more


def main(arguments: list[str]) -> int:
    """Print or write the schema; 1 and one line if values.yaml is wrong."""
    try:
        schema = schema_of((CHART / "values.yaml").read_text())
    except (Failed, yaml.YAMLError) as error:
        sys.stderr.write(f"helm_schema: {error}\n")
        return 1
    text = json.dumps(schema, indent=2) + "\n"
    if arguments == ["--write"]:
        (CHART / "values.schema.json").write_text(text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
