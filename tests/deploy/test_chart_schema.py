"""The chart's schema is made of its values: nothing drifts, nothing lacks a sentence, nothing unknown is taken."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from common.wire.topics import REQUEST_PARTITIONS
from tests.scripts import load

ROOT = Path(__file__).resolve().parent.parent.parent
CHART = ROOT / "helm" / "signer-flow"


def test_the_schema_is_what_make_helm_schema_writes() -> None:
    command = [sys.executable, str(ROOT / ".ci" / "helm_schema.py")]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert made == (CHART / "values.schema.json").read_text(), "run `make helm-schema`"


def test_there_are_fewer_than_three_hundred_lines_of_values_and_they_satisfy_their_schema() -> None:
    text = (CHART / "values.yaml").read_text()
    assert len(text.splitlines()) < 300
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema_rs.validator_for(schema).validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    "values",
    [
        {"signer": {"autoscaling": {"enabled": True}}},
        {"signer": {"replicas": "3"}},
        {"comittee": {"size": 5}},
        {"committee": {"size": "five"}},
        {"committee": {"publicKey": "AAAA"}},
        {"kafka": {"mode": "zookeeper"}},
        {"restApi": {"auth": "basic"}},
        {"signer": {"settings": {"HEAL_DELAY_MS": 5000}}},
        {"monitoring": {"rules": True}},
    ],
)
def test_unknown_values_and_wrong_ones_are_refused_an_autoscaler_of_signers_too(values: dict[str, object]) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert not jsonschema_rs.validator_for(schema).is_valid(values)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\n", "a: no sentence above it"),
        ("# A number\na: 1\n", "a: no sentence above it"),
        ("# A list.\na: []\n", "a: a list needs items"),
        ("# Nothing.\na: null\n", "a: nothing says of which type it is"),
        ("# A number.\n# @schema {minimum: 1}\na: 1\n", "a: "),
        ("# An object.\na:\n  b: 1\n", "a.b: no sentence above it"),
    ],
)
def test_a_value_that_says_too_little_of_itself_makes_no_schema(text: str, words: str) -> None:
    made = load(ROOT / ".ci" / "helm_schema.py")
    with pytest.raises(made.Failed, match=words):
        made.schema_of(text)


def test_the_chart_counts_the_partitions_that_the_topic_table_has() -> None:
    text = (CHART / "templates" / "_refusals.tpl").read_text()
    assert f'{{{{- define "signer-flow.requestPartitions" -}}}}{REQUEST_PARTITIONS}{{{{- end -}}}}' in text
