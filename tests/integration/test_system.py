"""From HTTP to signature on Apache Kafka: three signers and two pods, without Docker.

``test_system_in_containers`` runs the same in containers.
"""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from rest_api.client import BatchItem, Client, Signature
from tests.integration.processes import Processes
from tests.integration.system import Callers, System

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def system(processes: Processes) -> System:
    return processes


def verify(public_key: bytes, message: bytes, signature: Signature) -> None:
    """By a library that shares nothing with ours."""
    Ed25519PublicKey.from_public_bytes(public_key).verify(signature.signature, message)


def test_a_message_is_signed_and_the_signature_verifies_offline_with_another_library(system: System) -> None:
    with Client(system.url(0)) as first, Client(system.url(1)) as second:
        [key], [other] = first.keys(), second.keys()
        assert other.public_key == key.public_key
        for client, message in ((first, b""), (second, b"hello"), (first, bytes(65536))):
            verify(key.public_key, message, client.sign(message))


def test_a_batch_is_signed_in_order(system: System) -> None:
    items = [BatchItem(b"message %d" % number, f"row {number}") for number in range(300)]
    with Client(system.url(1), timeout_ms=30_000) as client:
        [key] = client.keys()
        results = client.sign_batch(items)
    assert [result.reference for result in results] == [item.reference for item in items]
    for item, result in zip(items, results, strict=True):
        assert isinstance(result, Signature), result
        verify(key.public_key, item.message, result)


def test_kill_9_of_one_signer_under_load_fails_no_request(system: System) -> None:
    with Callers(system) as callers:
        callers.wait_signed(20, "signatures before the kill")
        system.kill("signer 2")
        callers.wait_signed(100, "signatures after the kill")
        system.wait_ready(2, "the killed one is missed")
        system.start("signer 2")
        system.wait_ready(3, "the killed one is ready again, with its share")
        callers.wait_signed(50, "signatures with all three")
    assert not callers.others, callers.outcomes


def test_sigterm_ends_a_signer_in_order_and_fails_no_request(system: System) -> None:
    with Callers(system) as callers:
        callers.wait_signed(20, "signatures before")
        assert system.stop("signer 3") == 0, system.logs()
        callers.wait_signed(50, "signatures by the other two")
        system.start("signer 3")
        system.wait_ready(3, "it is ready again")
    assert not callers.others, callers.outcomes


def test_sigterm_ends_a_pod_in_order(system: System) -> None:
    assert system.stop("pod 1") == 0, system.logs()
    system.start("pod 1")
    system.wait_signing(1)


def test_a_restart_of_the_broker_loses_nothing_and_signing_comes_back_by_itself(system: System) -> None:
    with Client(system.url()) as client:
        [key] = client.keys()
    with Callers(system) as callers:
        callers.wait_signed(20, "signatures before the restart")
        system.restart_broker()
        callers.wait_signed(50, "signatures after the restart")
    assert all("[503 " in other or "[504 " in other for other in callers.others), callers.outcomes
    with Client(system.url()) as client:
        [after] = client.keys()
    assert after.public_key == key.public_key
