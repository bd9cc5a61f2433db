"""The rules of the tree are enforced, and can fail; what is tracked speaks of no machine but the reader's."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("common", "rest_api", "schemas", "signer_service")
PURE = ("signer_service.frost", "signer_service.protocol", "rest_api.correlation", "common.wire.messages")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the tree that a test may spoil."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(tree: Path) -> tuple[int, str]:
    """Run the import contracts on ``tree``; return the exit code and what was said."""
    command = [
        str(Path(sys.executable).parent / "lint-imports"),
        "--no-cache",
        "--config",
        str(tree / "pyproject.toml"),
    ]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False, timeout=100)
    return done.returncode, done.stdout + done.stderr


def plant(tree: Path, module: str, line: str) -> None:
    """Append ``line`` to ``module``, which is made if it is missing."""
    path = tree / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    with path.open("a") as file:
        file.write(f"\n{line}\n")


def test_the_tree_as_it_is_keeps_every_contract(tree: Path) -> None:
    code, said = lint(tree)
    assert code == 0, said
    assert " 0 broken" in said


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("rest_api.app", "import signer_service.frost", "neither service knows the other"),
        ("signer_service.app", "import rest_api", "neither service knows the other"),
        ("common.quorum", "import signer_service", "neither service knows the other"),
        ("common.ids", "import common.wire.messages", "layers of common"),
        ("common.unheard_of", "", "layers of common"),
        ("signer_service.frost.group", "import signer_service.protocol.machine", "layers of the signer"),
        ("rest_api.gateway", "import rest_api.routes", "layers of the HTTP edge"),
        ("signer_service.frost.group", "import time", "reach no clock"),
        ("signer_service.protocol.machine", "import asyncio", "reach no clock"),
        ("signer_service.protocol.machine", "import nacl.bindings", "doors to PyNaCl"),
        ("rest_api.gateway", "import confluent_kafka", "doors to Kafka"),
        ("signer_service.shell.runner", "import common.kafka.client", "only composition roots choose the broker"),
        ("signer_service.app", "import common.kafka.embedded", "only composition roots choose the broker"),
        ("common.wire.envelope", "import fastavro", "one door to Avro"),
        ("rest_api.gateway", "from prometheus_client import Counter", "one door to the metrics library"),
        ("signer_service.app", "import structlog", "one door to the logging library"),
    ],
)
def test_a_planted_import_is_refused(tree: Path, module: str, line: str, contract: str) -> None:
    plant(tree, module, line)
    code, said = lint(tree)
    assert code != 0
    assert re.search(rf"{re.escape(contract)}.* BROKEN", re.sub(r"\s+", " ", said)), said


@pytest.mark.parametrize("pure", PURE)
@pytest.mark.parametrize("forbidden", ["time", "pydantic"])
def test_an_import_through_another_module_is_refused(tree: Path, pure: str, forbidden: str) -> None:
    module = f"{pure}.planted" if (tree / Path(*pure.split("."))).is_dir() else pure
    plant(tree, "common.secret", f"import {forbidden}")
    plant(tree, module, "import common.ids")
    plant(tree, "common.ids", "import common.secret")
    code, said = lint(tree)
    assert code != 0
    assert f"{pure} is not allowed to import {forbidden}" in said, said


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


def test_every_test_that_the_documents_name_exists() -> None:
    """A claim whose test was renamed away is a claim that nobody defends."""
    known = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        known |= set(re.findall(r"def (test_\w+)\(", path.read_text()))
    for document in ("SECURITY.md", "ARCHITECTURE.md", "README.md"):
        text = (ROOT / document).read_text()
        named = set(re.findall(r"`(test_\w+)`", text))
        assert named <= known, (document, sorted(named - known))
        paths = set(re.findall(r"`((?:tests|common|rest_api|signer_service|schemas|k8s|\.ci)/[\w./]*)`", text))
        assert not [path for path in paths if not (ROOT / path).exists()], (document, paths)
