"""What the two images are made of, and what they can do without."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.integration import daemon
from tests.integration.containers import HARDENED, run_to_its_end
from tests.integration.daemon import ROOT, Images

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]

OVER_BASE_BYTES = 250_000_000
SHARED = ("common", "schemas")
OWN = {"rest_api": "rest_api", "signer_service": "signer_service"}


def size(name: str) -> int:
    return int(daemon.client().images.get(name).attrs["Size"])


def said_by_python(image: str, program: str, **more: object) -> str:
    code, said = run_to_its_end(
        image, ["-c", program], entrypoint=["python"], network_mode="none", **{**HARDENED, **more}
    )
    assert code == 0, said
    return said


@pytest.fixture(params=sorted(OWN))
def package(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def image(images: Images, package: str) -> str:
    return str(getattr(images, package))


def test_an_image_is_less_than_250_mb_larger_than_its_base(image: str, images: Images) -> None:
    assert size(image) - size(images.base) < OVER_BASE_BYTES


def test_an_image_runs_as_a_numbered_user_who_can_write_nowhere_but_in_its_volumes(image: str) -> None:
    assert daemon.client().images.get(image).attrs["Config"]["User"] == "10001:10001"
    program = """
import json, os
found = [top for top, _, _ in os.walk("/", followlinks=False) if os.access(top, os.W_OK)
         and not top.startswith(("/proc", "/sys", "/dev"))]
print(json.dumps([os.getuid(), os.getgid(), found]))
"""
    uid, gid, writable = json.loads(said_by_python(image, program, read_only=False))
    assert (uid, gid) == (10001, 10001)
    # Of every user: /tmp and its like. With a read-only root these are closed too.
    own = [path for path in writable if path not in ("/tmp", "/var/tmp", "/run/lock")]
    assert sorted(own) == ["/run/signer-flow", "/var/lib/signer-flow"]
    assert json.loads(said_by_python(image, program))[2] == []


def test_an_image_holds_its_own_service_as_tracked_and_nothing_of_the_other(image: str, package: str) -> None:
    program = """
import json, pathlib
print(json.dumps(sorted(str(path.relative_to("/app")) for path in pathlib.Path("/app").rglob("*")
                        if path.is_file() and path.suffix != ".pyc")))
"""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *SHARED, package],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    tracked = sorted(name for name in listed.stdout.split("\0") if name and Path(ROOT, name).is_file())
    assert json.loads(said_by_python(image, program)) == tracked


def test_an_image_has_the_locked_libraries_and_no_installer(image: str) -> None:
    program = """
import importlib.metadata, json
print(json.dumps({each.name.lower().replace("_", "-"): each.version for each in importlib.metadata.distributions()
                  if "/opt/signer-flow/" in str(each.locate_file(""))}))
"""
    installed = json.loads(said_by_python(image, program))
    locked: dict[str, set[str]] = {}
    for line in (ROOT / "requirements-runtime.lock").read_text().splitlines():
        name, found, rest = line.partition("==")
        if found:
            locked.setdefault(name, set()).add(rest.split()[0])
    assert "pip" not in installed
    assert "pytest" not in installed
    assert len(installed) > 40
    for name, version in installed.items():
        assert version in locked[name]


def test_a_pod_in_a_container_without_tokens_says_what_is_missing(images: Images) -> None:
    code, said = run_to_its_end(images.rest_api, [], network_mode="none", **HARDENED)
    assert code == 2
    assert len(said.splitlines()) == 1
    assert "SIGNER_REST_API_TOKENS_FILE" in said


def test_a_signer_in_a_container_without_keys_says_what_is_missing(images: Images) -> None:
    settings = {"SIGNER_SERVICE_INDEX": "1", "SIGNER_SERVICE_KAFKA_BOOTSTRAP": "127.0.0.1:9092"}
    code, said = run_to_its_end(images.signer_service, [], environment=settings, network_mode="none", **HARDENED)
    assert code == 2
    assert "/run/signer-flow/operator.pub is missing" in said.splitlines()[-1]


def test_no_shell_can_run_in_the_containers_of_these_tests(images: Images) -> None:
    program = """
import subprocess
for shell in ("/bin/sh", "/bin/bash", "/usr/bin/dash"):
    try:
        subprocess.run([shell, "-c", "exit 0"])
    except OSError as error:
        print(type(error).__name__)
"""
    assert said_by_python(images.rest_api, program).split() == ["PermissionError"] * 3
