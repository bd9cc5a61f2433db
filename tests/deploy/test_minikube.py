"""What k8s/minikube.sh would do: minikube, kubectl and helm are scripts here that write down how they are called."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import pytest

from tests.deploy.tools import ROOT, run

SCRIPT = ROOT / "k8s" / "minikube.sh"
FAKE = """#!/bin/bash
line="${{0##*/}} $*"
{{ printf '%s\\x1f' "${{0##*/}}" "$@"; printf '\\x1e'; }} >>{log}
case $line in
{answers}
esac
"""
IMAGES = "docker.io/signer-flow/rest-api:local\ndocker.io/signer-flow/signer-service:local"
WELL = {
    "minikube status": (7, ""),
    "minikube image ls": (0, IMAGES),
    "kubectl --context signer-flow --namespace signer-flow get --raw": (0, "<html><form method=post>"),
    "docker image inspect": (1, ""),
}
"""The first answer whose beginning fits counts; all else ends with 0 and says nothing."""


@dataclass
class Done:
    code: int
    said: str
    calls: list[list[str]] = field(default_factory=list)

    def of(self, *beginning: str) -> list[list[str]]:
        return [call for call in self.calls if call[: len(beginning)] == list(beginning)]


def play(
    folder: Path,
    answers: Mapping[str, tuple[int, str]],
    arguments: Sequence[str] = (),
    *,
    without: str = "",
    **environment: str,
) -> Done:
    programs, log = folder / "bin", folder / "log"
    programs.mkdir()
    log.touch()
    lines = [
        f"{quote(beginning)}*) echo {quote(text)}; exit {code} ;;"
        for beginning, (code, text) in {**answers, **WELL, **answers}.items()
    ]
    text = FAKE.format(log=quote(str(log)), answers="\n".join(lines))
    for name in {"minikube", "kubectl", "helm", "docker"} - {without}:
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for name in ("bash", "grep", "dirname", "env"):
        (programs / name).symlink_to(str(shutil.which(name)))
    asked = {"PATH": str(programs), "HOME": str(folder), **environment}
    done = subprocess.run(
        [str(SCRIPT), *arguments], env=asked, capture_output=True, text=True, timeout=60, check=False, cwd=folder
    )
    calls = [record.split("\x1f")[:-1] for record in log.read_text().split("\x1e")[:-1]]
    return Done(done.returncode, done.stderr + done.stdout, calls)


def test_from_nothing_it_starts_builds_installs_tests_and_opens_the_page_in_this_order(tmp_path: Path) -> None:
    done = play(tmp_path, {})
    assert done.code == 0, done.said
    order = [
        ("minikube", "status"),
        ("minikube", "start"),
        ("kubectl", "--context", "signer-flow", "wait", "node"),
        ("minikube", "image", "build"),
        ("minikube", "image", "ls"),
        ("minikube", "image", "build"),
        ("minikube", "image", "ls"),
        ("helm", "upgrade", "--install"),
        ("helm", "test"),
        ("kubectl", "--context", "signer-flow", "--namespace", "signer-flow", "get", "--raw"),
        ("minikube", "service"),
    ]
    calls = [call for call in done.calls if call[0] != "docker"]
    assert [tuple(call[: len(want)]) for call, want in zip(calls, order, strict=True)] == order
    built = [call[call.index("--build-opt") + 1] for call in done.of("minikube", "image", "build")]
    assert built == ["target=rest-api", "target=signer-service"]
    (opened,) = done.of("minikube", "service")
    assert opened[2] == "signer-flow-rest-api"


def test_what_is_there_already_is_not_made_again(tmp_path: Path) -> None:
    done = play(tmp_path, {"minikube status": (0, "Running"), "docker image inspect": (0, "[]")}, OPEN="0")
    assert done.code == 0, done.said
    assert not done.of("minikube", "start")
    assert not done.of("minikube", "image", "build")
    assert len(done.of("minikube", "image", "load")) == 2
    assert not done.of("minikube", "service"), "OPEN=0 only says the command"
    assert "minikube service signer-flow-rest-api" in done.said


def test_run_again_without_its_values_it_keeps_those_of_before(tmp_path: Path) -> None:
    """Else a committee of five would be shared anew to three, and an API that asks for tokens would ask for none."""
    done = play(tmp_path, {"minikube status": (0, "Running"), "docker image inspect": (0, "[]")}, OPEN="0")
    (installed,) = done.of("helm", "upgrade")
    assert "--reset-then-reuse-values" in installed


@pytest.mark.parametrize("missing", ["minikube", "kubectl", "helm"])
def test_a_missing_tool_is_named_with_the_place_to_get_it_and_nothing_is_begun(tmp_path: Path, missing: str) -> None:
    done = play(tmp_path, {}, without=missing)
    assert done.code == 1
    assert f"there is no {missing}: see https://" in done.said
    assert done.calls == []


FAILURES = [
    ("minikube start", "the cluster did not start", "kubectl"),
    ("kubectl --context signer-flow wait node", "the node is not ready", "helm"),
    ("minikube image build", "could not be built in the cluster", "helm"),
    ("helm upgrade", "the release is not ready after", "helm test"),
    ("helm test", "the cluster does not sign", "minikube service"),
    ("kubectl --context signer-flow --namespace signer-flow get --raw", "nobody serves the page", "minikube service"),
]


@pytest.mark.parametrize(("step", "said", "later"), FAILURES, ids=[step for step, _, _ in FAILURES])
def test_a_step_that_fails_says_what_to_do_and_is_the_last(tmp_path: Path, step: str, said: str, later: str) -> None:
    done = play(tmp_path, {step: (1, "")})
    assert done.code == 1
    (line,) = [line for line in done.said.splitlines() if line.startswith("minikube.sh: ")]
    assert said in line
    assert not done.of(*later.split())


def test_an_image_that_did_not_arrive_and_a_page_that_is_none_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    done = play(tmp_path / "one", {"minikube image ls": (0, "docker.io/signer-flow/rest-api:old")})
    assert done.code == 1
    assert "signer-flow/rest-api:local is not in the cluster" in done.said
    (tmp_path / "two").mkdir()
    page = {"kubectl --context signer-flow --namespace signer-flow get --raw": (0, "hello")}
    done = play(tmp_path / "two", page)
    assert done.code == 1
    assert "is not the page" in done.said


def test_names_and_further_values_are_handed_on(tmp_path: Path) -> None:
    answers = {
        "kubectl --context p --namespace n get --raw": (0, "<form"),
        "minikube image ls": (0, "x/signer-flow/rest-api:7\nx/signer-flow/signer-service:7"),
    }
    arguments = ["--set", "committee.size=5"]
    done = play(tmp_path, answers, arguments, PROFILE="p", NAMESPACE="n", RELEASE="r", TAG="7")
    assert done.code == 0, done.said
    (installed,) = done.of("helm", "upgrade")
    assert installed[-2:] == arguments
    assert installed[3] == "r"
    assert installed[5:9] == ["--kube-context", "p", "--namespace", "n"]
    (opened,) = done.of("minikube", "service")
    assert opened[2] == "r-signer-flow-rest-api", "the chart's full name of a release that is not called like it"


@pytest.mark.helm
def test_the_chart_takes_the_values_that_the_script_gives_and_has_the_service_that_it_opens(tmp_path: Path) -> None:
    done = play(tmp_path, {}, RELEASE="r")
    (installed,) = done.of("helm", "upgrade")
    values = [installed[at + 1] for at, each in enumerate(installed) if each == "--set"]
    assert len(values) == 2
    sets = [part for value in values for part in ("--set", value)]
    rendered = run("helm", "template", "r", "helm/signer-flow", *sets)
    assert rendered.returncode == 0, rendered.stderr
    assert "name: r-signer-flow-rest-api\n" in rendered.stdout
    assert "type: NodePort" in rendered.stdout


@pytest.mark.helm
@pytest.mark.parametrize("script", ["k8s/minikube.sh", ".ci/helm-tools"])
def test_shellcheck_finds_nothing(script: str) -> None:
    done = run("shellcheck", script)
    assert done.returncode == 0, done.stdout


def test_the_script_can_be_run() -> None:
    assert os.access(SCRIPT, os.X_OK)
