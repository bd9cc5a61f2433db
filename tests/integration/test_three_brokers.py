"""A broker of three is lost: the other two have everything, and the system signs all through."""

import signal
from collections.abc import Iterator

import pytest

from tests.integration.processes import Processes, running_processes
from tests.integration.system import AGAIN_WITHIN_S, Callers
from tests.integration.three_brokers import NODES, ThreeBrokers

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]

ANSWERED_WITHIN_S = 30.0
"""Each request has 5 s; the rest is for a machine with much else to do."""


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeBrokers]:
    made = ThreeBrokers(tmp_path_factory.mktemp("brokers"))
    try:
        made.open()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def system(brokers: ThreeBrokers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with running_processes(brokers, tmp_path_factory.mktemp("system"), replication=len(NODES)) as running:
        brokers.wait_whole()
        yield running


@pytest.mark.parametrize(
    ("topic", "number"), [("signer.v1.resp0", signal.SIGKILL), ("signer.v1.ceremony", signal.SIGTERM)]
)
def test_the_loss_of_a_broker_costs_503_or_504_at_most_and_signing_goes_on_without_it(
    brokers: ThreeBrokers, system: Processes, topic: str, number: signal.Signals
) -> None:
    victim = brokers.leader(system.prefix + topic)
    with Callers(system) as callers, Callers(system, 1) as others:
        callers.wait_signed(20, "signatures before")
        others.wait_signed(20, "signatures of the other pod before")
        brokers.end(victim, number)
        callers.wait_signed(100, "signatures without that broker")
        others.wait_signed(100, "signatures of the other pod without that broker")
        system.wait(system.ready, AGAIN_WITHIN_S, "everybody is ready without that broker")
        brokers.start(victim)
        brokers.wait_whole()
        callers.wait_signed(50, "signatures with three again")
        others.wait_signed(50, "signatures of the other pod with three again")
    for each in (callers, others):
        assert all("[503 " in other or "[504 " in other for other in each.others), each.outcomes
        assert each.longest_s < ANSWERED_WITHIN_S
    system.wait(system.ready, AGAIN_WITHIN_S, "everybody is ready with three again")
