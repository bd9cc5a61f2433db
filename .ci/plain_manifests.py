"""Makes k8s/signer-flow.yaml of the chart, for those without helm: what `helm template` renders, as plain objects.

    plain_manifests.py [--set NAME=VALUE]...            print it
    plain_manifests.py --write [--set NAME=VALUE]...    put it into k8s/

What helm does by hooks is done by ordinary objects: the Job that makes the keys runs beside the rest, and pods wait for
what it makes. `helm test` and the check before an upgrade are left out: their commands are in k8s/runbooks.md.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parent.parent
OUT: Final = ROOT / "k8s" / "signer-flow.yaml"
NAME: Final = "signer-flow"
ORDER: Final = (
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "Job",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "HorizontalPodAutoscaler",
    "ConfigMap",
    "Service",
    "Ingress",
    "ServiceMonitor",
    "PrometheusRule",
    "StatefulSet",
)
CLUSTER_WIDE: Final = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
HEADER: Final = """\
# signer-flow as plain objects, made of helm/signer-flow by `make k8s`; change that, not this.
#
#   kubectl apply --filename k8s/namespace.yaml
#   kubectl -n signer-flow delete job -l app.kubernetes.io/component=provision --ignore-not-found
#   kubectl apply --filename k8s/signer-flow.yaml --selector app.kubernetes.io/component=provision
#   kubectl -n signer-flow wait job -l app.kubernetes.io/component=provision --for=condition=Complete --timeout=10m
#   kubectl apply --filename k8s/signer-flow.yaml
#   kubectl -n signer-flow rollout status statefulset/signer-flow-rest-api --timeout=10m
#
# First the Job that makes the keys, since a pod that is started without its own does not find them later; what is left
# needs no order: the Job that makes the topics tries until there is a broker, signers and pods wait for both. The same
# commands bring a new version, or other values, such as another committee:
#   make k8s ARGS="--set committee.size=5 --set committee.threshold=3"
# To fewer signers: between both apply commands `signer-flow hand-on --signers N --url URL`, which waits until they have
# the key, since the pods that go cannot hand it on afterwards.
# A Job has what it does in its name, so that a changed one is a new one; one that was there before would not run again
# (committee 3, 5, 3), so it goes first. What they made is never made anew.
#
#   kubectl delete --filename k8s/signer-flow.yaml
# takes away none of the Secrets, the roster and the volumes: applied again, it goes on with the same key.
"""
WORDS: Final = {
    f"helm upgrade {NAME} <chart> --reset-then-reuse-values --set committee.size=N --set committee.threshold=T": (
        "make k8s ARGS='--set committee.size=N --set committee.threshold=T', and apply it as its head says"
    ),
    f"First: helm uninstall {NAME}": "First: kubectl delete --filename k8s/signer-flow.yaml",
    "`helm uninstall` leaves it, and the next install": "`kubectl delete` of this file leaves it, and the next apply",
    "for as long as it runs; the Role goes with it": "and nobody else is to use its account",
}
"""What the chart says to users of helm, and what is said here."""


class Failed(Exception):
    """One line for whoever runs this."""


def helm() -> str:
    """The program: ours, else that of the machine. The manifest is the same with versions 3 and 4."""
    own = ROOT / ".helm-tools" / "helm"
    found = str(own) if own.exists() else shutil.which("helm")
    if found is None:
        raise Failed("there is no helm: run .ci/helm-tools helm, or install it (https://helm.sh/docs/intro/install)")
    return found


def rendered(arguments: list[str]) -> str:
    """What helm makes of the chart."""
    command = [helm(), "template", NAME, str(ROOT / "helm" / NAME), "--namespace", NAME, "--skip-tests", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    if done.returncode != 0:
        raise Failed(done.stderr.strip())
    return done.stdout


def plain(manifest: str) -> str:
    """The objects of a manifest without what only helm understands, in an order of their own."""
    documents = [each for each in map(_document, re.split(r"^---\n", manifest, flags=re.MULTILINE)) if each]
    documents.sort(key=lambda each: (ORDER.index(each[0]), each[1]))
    return HEADER + "".join(f"---\n{text}" for _, _, text in documents)


def _document(text: str) -> tuple[str, str, str] | None:
    text = re.sub(r"^# Source: .*\n", "", text.strip("\n") + "\n", flags=re.MULTILINE)
    thing: dict[str, Any] | None = yaml.safe_load(text)
    if thing is None:
        return None
    kind, name = thing["kind"], thing["metadata"]["name"]
    hooks = thing["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    tests = thing["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "test"
    if tests or (hooks and "pre-install" not in hooks):
        return None
    text = _without_helm(text)
    if kind not in CLUSTER_WIDE:
        text = text.replace(f"\n  name: {name}\n", f"\n  name: {name}\n  namespace: {NAME}\n", 1)
    if kind == "Job" and hooks:
        # A Job cannot be changed: another one has another name.
        does = hashlib.sha256(str(thing["spec"]).encode()).hexdigest()[:8]
        text = text.replace(f"\n  name: {name}\n", f"\n  name: {name}-{does}\n", 1)
    for said, instead in WORDS.items():
        text = re.sub(r"\s+(?:# )?".join(map(re.escape, said.split())), instead, text)
    return kind, name, text


def _without_helm(text: str) -> str:
    kept: list[str] = []
    for line in text.splitlines():
        if re.match(r"\s+(helm\.sh/[a-z-]+|app\.kubernetes\.io/managed-by):", line):
            # What was said about it goes, too.
            while kept and kept[-1].lstrip().startswith("#"):
                kept.pop()
        else:
            kept.append(line.rstrip())
    # Annotations of which none is left.
    return re.sub(r"^( *)annotations:\n(?!\1 )", "", "\n".join(kept) + "\n", flags=re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Print it, or with --write put it where it belongs."""
    write = "--write" in arguments
    try:
        text = plain(rendered([each for each in arguments if each != "--write"]))
    except Failed as error:
        print(f"plain_manifests: {error}", file=sys.stderr)
        return 1
    if write:
        OUT.write_text(text)
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
