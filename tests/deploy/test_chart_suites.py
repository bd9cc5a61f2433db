"""The chart's own suites (helm/signer-flow/tests) hold, and each guard that is taken away makes one of them fail."""

import shutil
from pathlib import Path

import pytest

from tests.deploy.tools import CHART, run

pytestmark = pytest.mark.helm

WEAKENED = [
    ("serviceaccount.yaml", '{{- include "signer-flow.refusals" . -}}', ""),
    ("_refusals.tpl", "gt $t $n", "gt $t 99"),
    ("_refusals.tpl", "lt $t 2", "lt $t 0"),
    ("_refusals.tpl", "gt $n $partitions", "gt $n 99"),
    ("_refusals.tpl", "ne (int .Values.signer.replicas) $n", "false"),
    ("signer-pdb.yaml", "minAvailable: {{", "minAvailable: 1 # {{"),
    ("signer-statefulset.yaml", "whenDeleted: Retain", "whenDeleted: Delete"),
    ("signer-statefulset.yaml", "whenScaled: Retain", "whenScaled: Delete"),
    ("signer-statefulset.yaml", "maxUnavailable: 1", "maxUnavailable: 2"),
    ("guard-committee-policy.yaml", "[statefulsets, statefulsets/scale]", "[statefulsets]"),
    ("guard-committee-policy.yaml", "failurePolicy: Fail", "failurePolicy: Ignore"),
    ("guard-keep-policy.yaml", "[persistentvolumeclaims, secrets,", "[secrets,"),
    ("guard-keep-policy.yaml", "operations: [UPDATE]", "operations: [CREATE]"),
    ("guard-keep-policy.yaml", "failurePolicy: Fail", "failurePolicy: Ignore"),
    ("guard-keep-binding.yaml", "[Deny]", "[Warn]"),
    ("guard-committee-binding.yaml", "[Deny]", "[Audit]"),
    ("upgrade-check-job.yaml", "helm.sh/hook: pre-upgrade", "helm.sh/hook: post-upgrade"),
    (
        "upgrade-check-job.yaml",
        "(ne (int .Values.upgradeCheck.skipRevision) .Release.Revision)",
        "(not .Values.upgradeCheck.skipRevision)",
    ),
    ("hand-on-job.yaml", "eq (int .Values.handOn.skipRevision) .Release.Revision", ".Values.handOn.skipRevision"),
    ("_refusals.tpl", '(eq .service.type "LoadBalancer")', "false"),
    ("_refusals.tpl", "hasKey $own $name", "false"),
    ("hand-on-job.yaml", "helm.sh/hook: pre-upgrade", "helm.sh/hook: post-upgrade"),
    ("rest-api-hpa.yaml", "-rest-api\n  minReplicas", "-signer\n  minReplicas"),
    ("network-deny.yaml", "[Ingress, Egress]", "[Ingress]"),
]
"""A template, what stands there, and what a careless change would make of it."""


def suites(chart: Path, which: str = "*") -> tuple[int, str]:
    done = run("untt", "--file", f"tests/{which}_test.yaml", chart)
    return done.returncode, done.stdout + done.stderr


def test_every_suite_of_the_chart_passes() -> None:
    code, said = suites(CHART)
    assert code == 0, said
    assert " 0 total" not in said.partition("Tests:")[2].partition("\n")[0]


@pytest.mark.parametrize(("template", "guard", "instead"), WEAKENED, ids=[f"{t}: {g}" for t, g, _ in WEAKENED])
def test_a_guard_that_is_weakened_makes_a_suite_fail(tmp_path: Path, template: str, guard: str, instead: str) -> None:
    copy = tmp_path / "signer-flow"
    shutil.copytree(CHART, copy)
    path = copy / "templates" / template
    text = path.read_text()
    assert guard in text, f"{template} no longer says {guard!r}"
    path.write_text(text.replace(guard, instead, 1))
    code, said = suites(copy, "refusals" if template in {"serviceaccount.yaml", "_refusals.tpl"} else "guards")
    assert code != 0, said
    assert "failed" in said
