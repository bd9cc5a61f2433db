"""What does not run is counted with its reason; where Docker is required, it is a failure."""

import os
import subprocess
import sys

import pytest

from tests.integration.daemon import ROOT

# Where no daemon can be.
NOWHERE = "unix:///nowhere/docker.sock"


@pytest.mark.parametrize(
    ("require", "code", "counted"), [("", 0, "1 skipped"), ("docker", 1, "1 error"), ("kafka,docker", 1, "1 error")]
)
def test_without_docker_a_test_is_skipped_with_the_reason_unless_docker_is_required(
    require: str, code: int, counted: str
) -> None:
    name = "test_no_shell_can_run_in_the_containers_of_these_tests"
    where = "tests/integration/test_images.py"
    # Without the plugin, which takes half of the time to start and has no part in it.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        *("-p", "no:cacheprovider", "-p", "no:schemathesis"),
        "-k",
        name,
        where,
    ]
    environment = {**os.environ, "DOCKER_HOST": NOWHERE, "SIGNER_FLOW_REQUIRE": require}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == code, done.stdout
    assert counted in done.stdout.splitlines()[-1]
    assert "no Docker: no daemon answers" in done.stdout
