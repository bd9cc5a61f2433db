"""The schema files: documented, exemplified, recorded, and the same as what the code reads and writes."""

import dataclasses
import json
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

import schemas
from common.wire import codec, messages
from common.wire.shapes import SHAPES
from schemas.__main__ import README, regenerated
from tests.wire.plain import named_types, to_plain
from tests.wire.samples import SAMPLES, fastavro_read

NAMES = schemas.names()
FOLDER = Path(schemas.__file__).parent


def parsed(name: str) -> Any:
    return json.loads(schemas.current(name))


def test_every_record_that_travels_has_a_schema_and_no_other_has() -> None:
    assert sorted(kind.__name__ for kind in SHAPES) == list(NAMES)
    assert set(SHAPES) == set(SAMPLES)


@pytest.mark.parametrize("name", NAMES)
def test_every_record_and_field_has_a_doc_string(name: str) -> None:
    for one in named_types(parsed(name)).values():
        if one["type"] in ("record", "enum"):
            assert one["doc"].strip()
        for field in one.get("fields", ()):
            assert field["doc"].strip(), f"{one['name']}.{field['name']}"


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_has_the_fields_and_symbols_of_the_code(name: str) -> None:
    for one in named_types(parsed(name)).values():
        if one["type"] == "record":
            kind = getattr(messages, one["name"])
            assert [f["name"] for f in one["fields"]] == [f.name for f in dataclasses.fields(kind)]
        if one["type"] == "enum":
            symbols: type[Enum] = getattr(messages, one["name"])
            assert one["symbols"] == [member.name for member in symbols]
            assert [member.value for member in symbols] == [s.lower().replace("_", "-") for s in one["symbols"]]


@pytest.mark.parametrize("name", ["MsgToSign", "Roster", "Envelope"])
def test_a_signature_is_the_last_field_and_64_bytes(name: str) -> None:
    schema = parsed(name)
    last = schema["fields"][-1]["type"]
    last = named_types(schema).get(last, last) if isinstance(last, str) else last
    assert (last["type"], last["size"]) == ("fixed", 64)


def test_a_named_type_is_the_same_in_every_file() -> None:
    seen: dict[str, Any] = {}
    for name in NAMES:
        for inner, one in named_types(parsed(name)).items():
            if inner != name:
                assert seen.setdefault(inner, _expanded(one, named_types(parsed(name)))) == _expanded(
                    one, named_types(parsed(name))
                )


def _expanded(schema: Any, named: dict[str, Any]) -> Any:
    """``schema`` with definitions in place of names: which use comes first in a file does not matter."""
    if isinstance(schema, str):
        return _expanded(named[schema], named) if schema in named else schema
    if isinstance(schema, list):
        return [_expanded(one, named) for one in schema]
    return {
        key: [{**field, "type": _expanded(field["type"], named)} for field in value]
        if key == "fields"
        else _expanded(value, named)
        if key == "items"
        else value
        for key, value in schema.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_what_its_bytes_say(name: str) -> None:
    example = json.loads(schemas.example(name))
    raw = bytes.fromhex(example["encoded"])
    schema = parsed(name)

    assert to_plain(schema, fastavro_read(name, raw[10:]), named_types(schema)) == example["value"]
    assert codec.encode(codec.decode(raw, getattr(messages, name))) == raw


@pytest.mark.parametrize("name", NAMES)
def test_every_schema_that_we_write_is_in_the_history(name: str) -> None:
    text = schemas.current(name)
    fingerprint = codec.fingerprint(text)
    recorded = schemas.history().get(fingerprint)

    assert recorded is not None, f"cp schemas/{name}.avsc schemas/history/{fingerprint.hex()}.avsc"


def test_no_file_of_the_history_has_changed() -> None:
    for fingerprint, text in schemas.history().items():
        assert codec.fingerprint(text) == fingerprint, f"schemas/history/{fingerprint.hex()}.avsc was edited"


def test_the_readme_is_what_the_schemas_say() -> None:
    text = README.read_text(encoding="utf-8")

    assert regenerated(text) == text, "run: python -m schemas --write"


def test_the_files_travel_with_the_package() -> None:
    patterns = (FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8")

    for pattern in ("*.avsc", "history/*.avsc", "examples/*.json"):
        assert f'"{pattern}"' in patterns
        assert list(FOLDER.glob(pattern))
