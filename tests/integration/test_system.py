"""From HTTP to signature with everything in containers: Apache Kafka, three signers, two pods."""

import json
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from rest_api.client import BatchItem, Client, Limited, ServiceUnavailable, Signature
from tests.integration.containers import System
from tests.system.running_demo import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]

AGAIN_WITHIN_S = 120.0
CALLERS = 4


def verify(public_key: bytes, message: bytes, signature: Signature) -> None:
    """By a library that shares nothing with ours."""
    Ed25519PublicKey.from_public_bytes(public_key).verify(signature.signature, message)


class Callers:
    """Some threads that ask one pod for signatures until they are told to stop, and remember what they were told."""

    def __init__(self, url: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self._url = url
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(CALLERS)
        self._tasks = [self._pool.submit(self._ask) for _ in range(CALLERS)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for task in self._tasks:
            task.result()

    @property
    def signed(self) -> int:
        return self.outcomes["signed"]

    def _ask(self) -> None:
        with Client(self._url, retry_for_s=0.0) as client:
            while not self._stop.is_set():
                try:
                    client.sign(uuid.uuid4().bytes)  # which checks the signature
                    self.outcomes["signed"] += 1
                except (ServiceUnavailable, Limited) as refused:
                    self.outcomes[str(refused)[-80:]] += 1


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


def test_each_container_sees_its_own_keys_and_no_others(system: System) -> None:
    program = """
import json, os
print(json.dumps(sorted(os.path.join(top, name) for top, _, names in os.walk("/run/signer-flow") for name in names)))
"""
    for name, each in system.everyone().items():
        found = each.exec_run(["python", "-c", program])
        assert found.exit_code == 0, found.output
        kind, index = name.split()
        own = ["edge.key", "operator.pub", "roster.avro"]
        if kind == "signer":
            own = ["operator.pub", "roster.avro", f"seats/{index}/identity.key", f"seats/{index}/sealing.key"]
        assert json.loads(found.output) == [f"/run/signer-flow/{path}" for path in own]


def test_the_health_check_of_the_image_finds_every_container_well(system: System) -> None:
    for name in system.everyone():
        wait_until(lambda name=name: system.healthy(name), AGAIN_WITHIN_S, f"{name} is healthy")  # type: ignore[misc]


def test_kill_9_of_one_signer_container_under_load_fails_no_request(system: System) -> None:
    victim: Any = system.everyone()["signer 2"]
    with Callers(system.url()) as callers:
        wait_until(lambda: callers.signed >= 20, AGAIN_WITHIN_S, "signatures before the kill")
        victim.kill()
        before = callers.signed
        wait_until(lambda: callers.signed >= before + 100, AGAIN_WITHIN_S, "signatures after the kill")
        system.wait_ready(2, "the killed one is missed")
        victim.start()
        system.wait_ready(3, "the killed one is ready again, with its share")
        before = callers.signed
        wait_until(lambda: callers.signed >= before + 50, AGAIN_WITHIN_S, "signatures with all three")
    assert set(callers.outcomes) == {"signed"}, callers.outcomes


def test_sigterm_ends_a_signer_in_order_and_fails_no_request(system: System) -> None:
    signer = system.everyone()["signer 3"]
    with Callers(system.url()) as callers:
        wait_until(lambda: callers.signed >= 20, AGAIN_WITHIN_S, "signatures before")
        signer.stop(timeout=60)
        signer.reload()
        assert signer.attrs["State"]["ExitCode"] == 0, signer.logs(tail=20)
        before = callers.signed
        wait_until(lambda: callers.signed >= before + 50, AGAIN_WITHIN_S, "signatures by the other two")
        signer.start()
        system.wait_ready(3, "it is ready again")
    assert set(callers.outcomes) == {"signed"}, callers.outcomes


def test_sigterm_ends_a_pod_in_order(system: System) -> None:
    pod = system.everyone()["pod 1"]
    pod.stop(timeout=60)
    pod.reload()
    assert pod.attrs["State"]["ExitCode"] == 0, pod.logs(tail=20)
    pod.start()
    system.wait_signing(1)


def test_a_restart_of_the_broker_loses_nothing_and_signing_comes_back_by_itself(system: System) -> None:
    with Client(system.url()) as client:
        [key] = client.keys()
    broker = system.kafka.wrapped()
    with Callers(system.url()) as callers:
        wait_until(lambda: callers.signed >= 20, AGAIN_WITHIN_S, "signatures before the restart")
        broker.restart(timeout=60)
        system.kafka.wait()
        before = callers.signed
        wait_until(lambda: callers.signed >= before + 50, AGAIN_WITHIN_S, "signatures after the restart")
    said = {outcome for outcome in callers.outcomes if outcome != "signed"}
    assert all("[503 " in outcome or "[504 " in outcome for outcome in said), callers.outcomes
    with Client(system.url()) as client:
        [after] = client.keys()
    assert after.public_key == key.public_key
