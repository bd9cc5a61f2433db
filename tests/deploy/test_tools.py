"""Checks that need a program say so where there is none, and are a failure where they are required."""

import re

import pytest

from tests.deploy.tools import CHART, ROOT, need, tool

SCRIPT = (ROOT / ".ci" / "helm-tools").read_text()


def test_without_a_tool_a_test_is_skipped_with_the_reason_and_fails_where_it_is_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for required in ("", "docker"):
        monkeypatch.setenv("SIGNER_FLOW_REQUIRE", required)
        with pytest.raises(pytest.skip.Exception, match=r"there is no helm5: run \.ci/helm-tools"):
            tool("helm5")
    monkeypatch.setenv("SIGNER_FLOW_REQUIRE", "docker,helm")
    with pytest.raises(pytest.fail.Exception, match="there is no folder of schemas"):
        need("folder of schemas")


def test_ci_requires_the_tools_and_makes_them() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"SIGNER_FLOW_REQUIRE=(\w+,)*helm\b", text)
    assert re.search(r"^ *\.ci/helm-tools$", text, re.MULTILINE)


def test_every_program_is_of_a_version_that_is_written_down_and_the_schemas_of_a_known_content() -> None:
    versions = dict(re.findall(r"\b([A-Z0-9]+)=(\d+\.\d+\.\d+)\b", SCRIPT))
    assert versions.keys() >= {"HELM", "HELM3", "KUBECONFORM", "UNTT", "SCHEMAS", "OLDEST"}
    assert (versions["HELM"].split(".")[0], versions["HELM3"].split(".")[0]) == ("4", "3")
    assert re.search(r"^SCHEMAS_SHA256=[0-9a-f]{64}$", SCRIPT, re.MULTILINE)
    assert f'kubeVersion: ">={versions["OLDEST"]}-0"' in (CHART / "Chart.yaml").read_text()
