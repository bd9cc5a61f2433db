"""Every alert fires when it should and not when it should not, asks for metrics that exist, and names its runbook."""

import re
from importlib import import_module
from typing import Any

import pytest

from common.observability.metric_table import SPECS
from tests.deploy.tools import CHART, ROOT, run
from tests.observability.test_dashboard import problems, spec_of

yaml: Any = import_module("yaml")
RULES = CHART / "files" / "rules.yaml"
CASES = ROOT / "tests" / "deploy" / "alerts.yaml"


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def expected() -> dict[str, set[bool]]:
    """Alert to whether it is shown to fire, and not to fire."""
    found: dict[str, set[bool]] = {}
    for test in yaml.safe_load(CASES.read_text())["tests"]:
        for case in test["alert_rule_test"]:
            found.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    return found


@pytest.mark.helm
def test_each_alert_fires_when_it_should_and_only_then() -> None:
    done = run("promtool", "test", "rules", CASES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.helm
def test_a_case_that_does_not_hold_is_found(tmp_path: Any) -> None:
    """So that a promtool that checks nothing does not pass."""
    (tmp_path / "rules.yaml").write_text(RULES.read_text().replace("< 0", "< -5"))
    cases = CASES.read_text().replace("../../helm/signer-flow/files/rules.yaml", "rules.yaml")
    (tmp_path / "alerts.yaml").write_text(cases)
    done = run("promtool", "test", "rules", tmp_path / "alerts.yaml")
    assert done.returncode != 0
    assert "SignerFlowQuorumLost" in done.stdout + done.stderr


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    assert expected() == {rule["alert"]: {True, False} for rule in rules()}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_alert_asks_for_metrics_labels_and_values_of_the_table(rule: dict[str, Any]) -> None:
    # The dashboard's judge knows Grafana's interval and its job variable; rules have a fixed interval and name no job.
    query = re.sub(r"\[\d+[mhd]\]", "[$__rate_interval]", " ".join(rule["expr"].split()))
    query = re.sub(r"\bnamespace, job(, )?", "job\\1", query)
    # What is looked up at a time before now is not a rate; the rest of the expression is judged.
    query = re.sub(r"\((signer_flow_\w+) unless \1 offset 15m\) or", "", query)
    # With nothing in common the right side counts where the left is empty.
    assert problems(query.replace("or on () ", "or "), "") == []


def test_every_alarm_of_the_metric_table_has_an_alert() -> None:
    """``waiting_for_quorum`` is the margin below zero, which has its own."""
    (label,) = SPECS["alarm"].labels
    named = re.findall(r'alarm=~?"([^"]+)"', " ".join(rule["expr"] for rule in rules()))
    assert {alarm for each in named for alarm in each.split("|")} == (label.values or set()) - {"waiting_for_quorum"}


def test_each_alert_says_what_is_wrong_and_names_a_heading_of_the_runbooks() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in (ROOT / "k8s" / "runbooks.md").read_text().splitlines()
        if line.startswith("## ")
    }
    for rule in rules():
        assert rule["labels"]["severity"] in {"page", "warning"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}, rule["alert"]
        document, _, heading = rule["annotations"]["runbook"].partition("#")
        assert document == "k8s/runbooks.md"
        assert heading in headings, rule["alert"]
        for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
            by = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
            assert by, rule["alert"]
            assert all(label in re.split(r", *", each) for each in by), (rule["alert"], label)


def test_every_metric_that_an_alert_names_in_words_exists() -> None:
    for rule in rules():
        for name in re.findall(r"signer_flow_[a-z_]+", str(rule["annotations"])):
            spec_of(name)
