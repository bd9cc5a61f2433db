"""Print what runs in the images as a CycloneDX 1.6 document: the libraries of requirements-runtime.lock.

    python .ci/sbom.py > sbom.json

Of what the libraries installed beside this interpreter say of themselves; nothing is asked of a network, and the same
tree gives the same bytes. Exit code 1, with one line, if what is installed is not what is locked: the list would lie.
"""

import json
import re
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT: Final = Path(__file__).resolve().parent.parent
TARGET: Final[Mapping[str, str]] = {
    **{name: str(value) for name, value in default_environment().items()},
    "sys_platform": "linux",
    "platform_system": "Linux",
    "extra": "",
}
"""Images are Linux, wherever this runs."""


class Failed(Exception):
    """Says in one line what is wrong and what to do."""


def canonical(name: str) -> str:
    """A library's name as package indexes write it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(text: str) -> dict[str, str]:
    """Name to version of what a lock asks for on Linux."""
    lines = [line.removesuffix("\\").strip() for line in text.splitlines() if re.match(r"[A-Za-z0-9]", line)]
    wanted = [Requirement(line) for line in lines]
    return {
        canonical(each.name): str(each.specifier).removeprefix("==")
        for each in wanted
        if each.marker is None or each.marker.evaluate(TARGET)
    }


def installed() -> dict[str, Mapping[str, Any]]:
    """Name to metadata (PEP 566's JSON form) of everything that is installed beside this interpreter."""
    return {canonical(each.name): each.metadata.json for each in distributions()}


def licenses(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a library says of its licence, in CycloneDX' words; empty if it says nothing."""
    if expression := metadata.get("license_expression"):
        return [{"expression": expression}]
    named = [each.rpartition(" :: ")[2] for each in metadata.get("classifier", ()) if each.startswith("License :: ")]
    if not named and (told := str(metadata.get("license", "")).strip()):
        named = [told.splitlines()[0][:100]]
    return [{"license": {"name": name}} for name in named]


def needs(metadata: Mapping[str, Any]) -> list[str]:
    """Names of the libraries that this one asks for on Linux, without its extras."""
    asked = [Requirement(line) for line in metadata.get("requires_dist", ())]
    return sorted({canonical(each.name) for each in asked if each.marker is None or each.marker.evaluate(TARGET)})


def bill(project: Mapping[str, Any], lock: Mapping[str, str], found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The document. ``project`` is the table of pyproject.toml."""
    for name, version in lock.items():
        here = found.get(name, {}).get("version")
        if here != version:
            raise Failed(f"{name} {version} is locked, but {here or 'none'} is installed: run `make .venv/.installed`")
    ours = f"pkg:pypi/{project['name']}@{project['version']}"
    purls = {name: f"pkg:pypi/{name}@{version}" for name, version in lock.items()}
    components = [
        {
            "type": "library",
            "bom-ref": purls[name],
            "name": name,
            "version": version,
            "purl": purls[name],
            "licenses": licenses(found[name]),
        }
        for name, version in sorted(lock.items())
    ]
    direct = sorted(canonical(Requirement(line).name) for line in project["dependencies"])
    graph = [{"ref": ours, "dependsOn": [purls[name] for name in direct]}]
    graph += [
        {"ref": purls[name], "dependsOn": [purls[need] for need in needs(found[name]) if need in purls]}
        for name in sorted(lock)
    ]
    about = {"type": "application", "bom-ref": ours, "name": project["name"], "version": project["version"]}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**about, "purl": ours, "description": project["description"]}},
        "components": components,
        "dependencies": graph,
    }


def main() -> int:
    """Print the document of this tree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = locked((ROOT / "requirements-runtime.lock").read_text())
    try:
        document = bill(project, lock, installed())
    except Failed as failed:
        print(f"sbom: {failed}", file=sys.stderr)
        return 1
    json.dump(document, sys.stdout, indent=2, sort_keys=True)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
