"""What gets into an image: the locked runtime libraries and no others, listed in an SBOM that does not lie."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.scripts import load

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?P<marker> ;[^\\]*)? \\\n", re.MULTILINE)


def pinned(name: str) -> dict[tuple[str, str], set[str]]:
    """(library, version) to hashes."""
    text = (ROOT / name).read_text()
    parts = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    found = {}
    for part in parts:
        match = PACKAGE.match(part)
        assert match is not None, part.splitlines()[0]
        found[match["name"], match["version"]] = set(re.findall(r"--hash=(sha256:[0-9a-f]{64})", part))
    return found


def test_the_images_lock_is_the_developers_lock_less_what_only_developers_need() -> None:
    shipped, all_of_it = pinned("requirements-runtime.lock"), pinned("requirements.lock")
    for key, hashes in shipped.items():
        assert hashes
        assert hashes == all_of_it[key], f"{key}: run `make lock`"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {name.lower() for name, _ in shipped}
    assert {re.split(r"[<>=!~\[; ]", each)[0].lower() for each in project["dependencies"]} <= names
    development = {re.split(r"[<>=!~\[; ]", each)[0].lower() for each in project["optional-dependencies"]["dev"]}
    assert not development & names


def test_the_sbom_lists_each_library_with_version_and_licence_and_is_the_same_every_time() -> None:
    command = [sys.executable, str(ROOT / ".ci" / "sbom.py")]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout for _ in range(2)]
    assert runs[0] == runs[1]
    document = json.loads(runs[0])
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    components = {each["bom-ref"]: each for each in document["components"]}
    assert len(components) == len(document["components"]) > 40
    for ref, each in components.items():
        assert ref == each["purl"] == f"pkg:pypi/{each['name']}@{each['version']}"
        assert each["licenses"], ref
        assert (each["name"], each["version"]) in pinned("requirements-runtime.lock")
    assert not {"colorama", "pytest", "pip"} & {each["name"] for each in components.values()}
    graph = {each["ref"]: each["dependsOn"] for each in document["dependencies"]}
    ours = document["metadata"]["component"]["bom-ref"]
    assert graph.keys() == components.keys() | {ours}
    assert {need for needs in graph.values() for need in needs} == components.keys(), "everything is there for a reason"


def test_an_sbom_of_another_version_than_the_locked_one_is_refused() -> None:
    made = load(ROOT / ".ci" / "sbom.py")
    project = {"name": "p", "version": "1", "description": "d", "dependencies": ["a"]}
    assert made.bill(project, {"a": "1"}, {"a": {"version": "1"}})["components"][0]["purl"] == "pkg:pypi/a@1"
    for found in ({"a": {"version": "2"}}, {}):
        with pytest.raises(made.Failed, match="a 1 is locked"):
            made.bill(project, {"a": "1"}, found)
