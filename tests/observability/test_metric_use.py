"""Every row of the metric table is counted somewhere: a dashboard of rows that never move says that all is well."""

import ast
from functools import cache
from pathlib import Path

import pytest

from common.observability.metric_table import SPECS
from common.observability.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("common", "rest_api", "signer_service")
TABLE = ROOT / "common/observability/metric_table.py"
VALUES = ROOT / "common/observability/metrics.py"
CLOSED = ("alarm", "stage")
"""Closed labels whose values stand in code as they are in the table."""


@cache
def nodes() -> tuple[ast.AST, ...]:
    """All of every module but the two that define metrics."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    trees = [ast.parse(path.read_text()) for path in paths if path not in {TABLE, VALUES}]
    return tuple(node for tree in trees for node in ast.walk(tree))


def of_metrics(node: ast.AST) -> bool:
    """Whether an expression is called ``metrics``, as a name or at the end of a chain."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name.lstrip("_") == "metrics"


@pytest.fixture(scope="module")
def used() -> set[str]:
    """What is asked of a ``Metrics`` anywhere; a method of it stands for what it touches."""
    found = {node.attr for node in nodes() if isinstance(node, ast.Attribute) and of_metrics(node.value)}
    for node in ast.walk(ast.parse(VALUES.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name in found:
            found |= {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
    return found


def rows() -> dict[str, str]:
    """Row to attribute of ``Metrics``."""
    endings = ("", "_total", "_seconds", "_seats")
    attributes = {name for name in vars(Metrics()) if name != "registry"}
    named = {row: next(a for a in attributes if row in {a + end for end in endings}) for row in SPECS}
    assert set(named.values()) == attributes
    return named


@pytest.mark.parametrize("row", SPECS)
def test_every_row_of_the_table_is_counted_somewhere(row: str, used: set[str]) -> None:
    assert rows()[row] in used


def test_every_metric_that_is_counted_stands_in_the_table(used: set[str]) -> None:
    methods = {name for name in vars(Metrics) if not name.startswith("_")}
    called = {node.attr for node in nodes() if isinstance(node, ast.Attribute) and of_metrics(node.value)}
    assert called <= set(rows().values()) | methods | {"registry"}


@pytest.mark.parametrize("label", CLOSED)
def test_every_value_of_a_closed_label_is_set_somewhere(label: str) -> None:
    written = {node.value for node in nodes() if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    for spec in SPECS.values():
        for each in spec.labels:
            if each.name == label:
                assert each.values is not None
                assert each.values <= written


def test_a_row_that_nobody_counts_is_found(used: set[str]) -> None:
    assert "made_up" not in used
    assert {"alarm", "ceremony_phase", "stage_duration"} <= used
