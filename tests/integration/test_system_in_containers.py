"""All of ``test_system`` with everything in containers, and what only containers have."""

import json

import pytest

from tests.integration import test_system
from tests.integration.containers import Containers
from tests.integration.system import AGAIN_WITHIN_S, System

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]

globals().update({name: test for name, test in vars(test_system).items() if name.startswith("test_")})


@pytest.fixture
def system(containers: Containers) -> System:
    return containers


def test_each_container_sees_its_own_keys_and_no_others(containers: Containers) -> None:
    program = """
import json, os
print(json.dumps(sorted(os.path.join(top, name) for top, _, names in os.walk("/run/signer-flow") for name in names)))
"""
    for name in containers.names:
        found = containers.wrapped(name).exec_run(["python", "-c", program])
        assert found.exit_code == 0, found.output
        kind, index = name.split()
        own = ["edge.key", "operator.pub", "roster.avro"]
        if kind == "signer":
            own = ["operator.pub", "roster.avro", f"seats/{index}/identity.key", f"seats/{index}/sealing.key"]
        assert json.loads(found.output) == [f"/run/signer-flow/{path}" for path in own]


def test_the_health_check_of_the_image_finds_every_container_well(containers: Containers) -> None:
    for name in containers.names:
        containers.wait(lambda name=name: containers.healthy(name), AGAIN_WITHIN_S, f"{name} is healthy")
