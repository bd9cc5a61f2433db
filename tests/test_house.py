"""The rules of the tree are enforced, and can fail; what is tracked speaks of no machine but the reader's."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.conftest import LONGEST_FIRST

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("common", "rest_api", "schemas", "signer_service")
DOCUMENTS = ("README.md", "OPERATING.md", "FIGURES.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md")
PURE = ("signer_service.frost", "signer_service.protocol", "rest_api.correlation", "common.wire.messages")


DIRECT = [
    ("rest_api.app", "signer_service.frost", "neither service knows the other"),
    ("signer_service.app", "rest_api", "neither service knows the other"),
    ("common.quorum", "signer_service", "neither service knows the other"),
    ("common.ids", "common.wire.messages", "layers of common"),
    ("signer_service.frost.group", "signer_service.protocol.machine", "layers of the signer"),
    ("rest_api.gateway", "rest_api.routes", "layers of the HTTP edge"),
    ("signer_service.frost.group", "time", "reach no clock"),
    ("signer_service.protocol.machine", "asyncio", "reach no clock"),
    ("signer_service.protocol.machine", "nacl", "doors to PyNaCl"),
    ("rest_api.gateway", "confluent_kafka", "doors to Kafka"),
    ("signer_service.shell.runner", "common.kafka.client", "only composition roots choose the broker"),
    ("signer_service.app", "common.kafka.embedded", "only composition roots choose the broker"),
    ("common.wire.envelope", "fastavro", "one door to Avro"),
    ("rest_api.gateway", "prometheus_client", "one door to the metrics library"),
    ("signer_service.app", "structlog", "one door to the logging library"),
]
"""A module, what it may not import, and the contract that says so."""


def lint(tree: Path, plants: Iterable[tuple[str, str]]) -> tuple[int, dict[str, str]]:
    """Run the import contracts on a copy of the tree with imports planted; exit code, and by contract what was said.

    One run finds all that is planted: a run for each would cost more than all other tests of this file together.
    """
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    for module, imported in plants:
        path = tree / Path(*module.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        with path.open("a") as file:
            file.write(f"\nimport {imported}\n")
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--config", "pyproject.toml"]
    wide = {**os.environ, "COLUMNS": "500"}
    done = subprocess.run(command, cwd=tree, env=wide, capture_output=True, text=True, check=False, timeout=100)
    # Below the summary, each broken contract: its name, underlined, and the imports that break it.
    parts = re.split(r"^(.+)\n-{3,}\n", done.stdout, flags=re.MULTILINE)
    said = {name: re.sub(r"\s+", " ", text) for name, text in zip(parts[1::2], parts[2::2], strict=True)}
    return done.returncode, {**said, "all": done.stdout + done.stderr}


def of_contract(said: dict[str, str], part: str) -> str:
    """What was said of the one contract with ``part`` in its name."""
    (found,) = [text for name, text in said.items() if part in name] or ["kept"]
    return found


def test_the_tree_as_it_is_keeps_every_contract(tmp_path: Path) -> None:
    code, said = lint(tmp_path, [])
    assert code == 0, said["all"]
    assert " 0 broken" in said["all"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, str]]:
    unheard_of = ("common.unheard_of", "common")
    return lint(tmp_path_factory.mktemp("planted"), [unheard_of, *((module, what) for module, what, _ in DIRECT)])


@pytest.mark.parametrize(("module", "imported", "contract"), DIRECT)
def test_a_planted_import_is_refused(
    planted: tuple[int, dict[str, str]], module: str, imported: str, contract: str
) -> None:
    code, said = planted
    assert code != 0
    assert f" {module} -> {imported} (l." in of_contract(said, contract), said["all"]


def test_a_module_that_no_layer_lists_is_refused(planted: tuple[int, dict[str, str]]) -> None:
    code, said = planted
    assert code != 0
    assert "not listed as layers: - common.unheard_of " in of_contract(said, "layers of common"), said["all"]


@pytest.fixture(scope="module")
def planted_below(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, str]]:
    tree = tmp_path_factory.mktemp("below")
    modules = [f"{pure}.planted" if (ROOT / Path(*pure.split("."))).is_dir() else pure for pure in PURE]
    through = [("common.secret", "time"), ("common.secret", "pydantic"), ("common.ids", "common.secret")]
    return lint(tree, [*through, *((module, "common.ids") for module in modules)])


@pytest.mark.parametrize("pure", PURE)
@pytest.mark.parametrize("forbidden", ["time", "pydantic"])
def test_an_import_through_another_module_is_refused(
    planted_below: tuple[int, dict[str, str]], pure: str, forbidden: str
) -> None:
    code, said = planted_below
    assert code != 0
    assert f"{pure} is not allowed to import {forbidden}: " in of_contract(said, "reach no clock"), said["all"]


def test_every_pure_module_stands_in_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in contracts if "reach no clock" in each["name"]]
    assert set(contract["source_modules"]) == set(PURE)
    required = "asyncio threading time datetime random secrets os logging pydantic fastapi fastavro confluent_kafka"
    assert set(required.split()) <= set(contract["forbidden_modules"])


def test_the_lock_pins_every_package_by_hash_and_names_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash=)", text, re.MULTILINE), "an option for pip stands in the lock"
    packages = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(packages) > 40
    for package in packages:
        assert re.match(r"[A-Za-z0-9._-]+==[^\s;]+( ; .*)? \\\n", package), package.splitlines()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", package), package.splitlines()[0]


def test_the_lock_holds_every_dependency_that_the_project_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    locked = {
        match.lower()
        for match in re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    }
    missing = {re.split(r"[<>=!~\[; ]", each)[0].lower() for each in named} - locked
    assert not missing, f"`make lock` was not run: {missing}"


def tracked() -> list[Path]:
    """Every text file of the project: what git tracks, or (an unpacked archive) what lies outside of tools' folders."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        paths = [
            path for path in ROOT.rglob("*") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
        ]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192]]


def test_no_tracked_file_names_somebodys_machine_or_package_index() -> None:
    # Put together here, so that this file does not find itself.
    homes = "root|home|Users|work|farm"
    pattern = re.compile(
        rf"(?<![\w.:$}}/*-])/(?:{homes})/\w"
        + "|--(?:extra-)?index"
        + "-url\\b(?! )|GOPROXY"
        + "=|https?://[^/\\s\"']*(?:artifactory|nexus|mirror|pypi-proxy)"
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in tracked()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found


def test_no_tracked_code_is_unfinished() -> None:
    words = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error")) + r")\b")
    found = [
        str(path.relative_to(ROOT)) for path in tracked() if path.suffix == ".py" and words.search(path.read_text())
    ]
    assert not found


@pytest.mark.parametrize("old", [False, True])
def test_make_says_in_one_line_that_python_is_too_old_or_missing(tmp_path: Path, old: bool) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python-of-old"
    if old:
        # What an older interpreter does with the version check: it exits with 1.
        python.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
        python.chmod(0o755)
    command = ["make", "--no-print-directory", "test", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    said = [text for text in done.stderr.splitlines() if not text.startswith("make")]
    assert len(said) == 1
    assert "needs Python 3.11 or newer" in said[0]
    assert not (tmp_path / ".venv").exists()


def test_every_file_that_is_to_begin_first_exists() -> None:
    assert [name for name in LONGEST_FIRST if not (ROOT / "tests" / name).is_file()] == []


def anchors(document: Path) -> set[str]:
    """What a link may name after ``#``: the headings, as renderers of Markdown write them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def dead_links(document: Path) -> list[str]:
    """Links of ``document`` within the project that lead nowhere."""
    dead = []
    for link in re.findall(r"\]\(((?!https?:)[^)\s]+)\)", document.read_text()):
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


def test_every_link_of_the_documents_leads_somewhere(tmp_path: Path) -> None:
    assert {name: dead for name in (*DOCUMENTS, "k8s/runbooks.md") if (dead := dead_links(ROOT / name))} == {}
    wrong = tmp_path / "wrong.md"
    wrong.write_text("# A head, and more\n[a](#a-head-and-more) [b](#b) [c](none.md) [d](wrong.md#a-head-and-more)")
    assert dead_links(wrong) == ["#b", "none.md"]


def test_every_test_that_the_documents_name_exists() -> None:
    """A claim whose test was renamed away is a claim that nobody defends."""
    known = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        known |= set(re.findall(r"def (test_\w+)\(", path.read_text()))
    for document in DOCUMENTS:
        text = (ROOT / document).read_text()
        named = set(re.findall(r"`(test_\w+)`", text))
        assert named <= known, (document, sorted(named - known))
        paths = set(re.findall(r"`((?:tests|common|rest_api|signer_service|schemas|k8s|\.ci)/[\w./]*)`", text))
        assert not [path for path in paths if not (ROOT / path).exists()], (document, paths)
