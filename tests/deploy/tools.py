"""Programs that check the chart, as `.ci/helm-tools` makes them, or the reason why there are none.

Without them the tests are skipped with that reason; with ``SIGNER_FLOW_REQUIRE=helm`` in the environment they fail.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".helm-tools"
CHART = ROOT / "helm" / "signer-flow"
SCHEMAS = FOLDER / "schemas"
PATIENCE_S = 100


def required() -> bool:
    """Whether a missing tool is a failure."""
    return "helm" in os.environ.get("SIGNER_FLOW_REQUIRE", "").split(",")


def need(what: str) -> None:
    """Skip, or fail where the tools are required."""
    reason = f"there is no {what}: run .ci/helm-tools"
    if required():
        pytest.fail(reason)
    pytest.skip(reason)


def tool(name: str) -> str:
    """The program's path; else the test is skipped, or fails. What the machine has itself is not of a known version."""
    own = FOLDER / name
    if own.exists():
        return str(own)
    if name in {"promtool", "shellcheck"} and (found := shutil.which(name)):
        return found
    need(name)
    raise AssertionError


def run(name: str, *arguments: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run one of the tools in the root of the tree, with no cluster and nobody's settings."""
    command: Sequence[str] = [tool(name), *map(str, arguments)]
    nowhere = {"KUBECONFIG": os.devnull, "HELM_CACHE_HOME": "/nonexistent", "HELM_CONFIG_HOME": "/nonexistent"}
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **nowhere},
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
