"""New shares while the system signs (promise P5), asked for as a user does; on the embedded broker and Apache Kafka."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from rest_api.client import Client, ClientError, Signature
from tests.system.running_demo import RunningDemo, running_demo, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
REFRESHES = 5
WITHIN_S = 60.0


@pytest.fixture(scope="module")
def demo(on_broker: tuple[str, ...]) -> Iterator[RunningDemo]:
    with running_demo(*on_broker) as running:
        running.wait_ready()
        yield running


def shown(demo: RunningDemo) -> dict[str, object]:
    key: dict[str, object] = httpx.get(f"{demo.url}/v1/keys/default", timeout=10).json()
    return key


def epoch(demo: RunningDemo) -> int:
    return int(str(shown(demo)["epoch"]))


def shown_with_times(demo: RunningDemo) -> dict[str, object]:
    """The key with its times, which a pod does not have from the key record but from the replicas' next beat."""
    wait_until(lambda: shown(demo)["last_refresh"] is not None, WITHIN_S, "a replica's beat of this epoch")
    return shown(demo)


def wait_for_epoch(demo: RunningDemo, at_least: int) -> None:
    wait_until(lambda: epoch(demo) >= at_least, WITHIN_S, f"epoch {at_least}")


def ask(demo: RunningDemo, pod: int = 0) -> httpx.Response:
    """Ask for a refresh; once more as long as the last one is too fresh, or the answer says that it is worth it."""
    answers: list[httpx.Response] = []

    def answered() -> bool:
        answers.append(httpx.post(f"http://127.0.0.1:{demo.port + pod}/v1/keys/default/refresh", timeout=10))
        problem = answers[-1].json()
        return not (str(problem.get("type")).endswith("refresh-too-soon") or problem.get("retryable"))

    wait_until(answered, WITHIN_S, "a refresh may be asked for")
    return answers[-1]


@contextmanager
def load(demo: RunningDemo, signed: list[Signature], failed: list[str]) -> Iterator[None]:
    """A few requests at a time, to both pods, without any retry. Each signature is verified."""
    stop = threading.Event()

    def sign(pod: int) -> None:
        with Client(f"http://127.0.0.1:{demo.port + pod}", retry_for_s=0) as api:
            while not stop.wait(0.1):
                try:
                    signed.append(api.sign(f"{pod} {len(signed)}".encode()))
                except ClientError as error:
                    failed.append(str(error))

    threads = [threading.Thread(target=sign, args=(n % 2,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=30)


def test_p5_no_request_fails_through_refreshes_and_the_public_key_stays(demo: RunningDemo) -> None:
    before = shown_with_times(demo)
    signed: list[Signature] = []
    failed: list[str] = []
    with load(demo, signed, failed):
        for n in range(REFRESHES):
            was = epoch(demo)
            answer = ask(demo, pod=n % 2)
            assert answer.status_code == 202, answer.text
            assert answer.json()["epoch"] == was
            assert answer.headers["location"] == "/v1/keys/default"
            wait_for_epoch(demo, was + 1)
            enough = len(signed) + 8
            wait_until(lambda enough=enough: len(signed) >= enough or bool(failed), WITHIN_S, "signatures go on")  # type: ignore[misc]
    assert failed == []
    assert {each.epoch for each in signed} >= {REFRESHES, REFRESHES + 1}
    assert {each.public_key for each in signed} == {signed[0].public_key}
    after = shown_with_times(demo)
    assert after["epoch"] == REFRESHES + 1
    for name in ("public_key", "public_key_pem", "jwk", "fingerprint", "threshold", "signers"):
        assert after[name] == before[name]
    assert str(after["last_refresh"]) > str(before["last_refresh"])
    assert str(after["next_refresh"]) > str(after["last_refresh"])


def test_the_command_line_watches_a_refresh_to_its_end(demo: RunningDemo) -> None:
    was = epoch(demo)

    def refresh() -> subprocess.CompletedProcess[str]:
        arguments = ("refresh", "default", "--wait", "--json", "--url", demo.url)
        return subprocess.run(
            [sys.executable, "-m", "rest_api.cli", *arguments], capture_output=True, text=True, timeout=90, check=False
        )

    ended: list[subprocess.CompletedProcess[str]] = []

    def over() -> bool:
        ended.append(refresh())
        return "refresh-too-soon" not in ended[-1].stderr

    wait_until(over, WITHIN_S, "a refresh may be asked for")
    assert ended[-1].returncode == 0, ended[-1].stderr
    told = json.loads(ended[-1].stdout)
    assert (told["key_id"], told["epoch_before"], told["epoch"]) == ("default", was, was + 1)
    assert {each["phase"] for each in told["phases"]} <= {"announce", "deal", "verdict", "ready", "commit"}


def test_without_a_quorum_a_refresh_is_refused_by_name_and_works_when_the_replicas_are_back(demo: RunningDemo) -> None:
    was = epoch(demo)
    url = f"{demo.url}/v1/keys/default/refresh"
    pids = [demo.children()[f"signer {seat}"] for seat in (2, 3)]
    refused: list[httpx.Response] = []
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:

        def named() -> bool:
            refused.append(httpx.post(url, timeout=10))
            detail = refused[-1].json().get("detail", "")
            return refused[-1].status_code == 503 and "replica 2 (silent" in detail and "replica 3 (silent" in detail

        wait_until(named, WITHIN_S, "both are missed")
        assert refused[-1].json()["type"] == "urn:signer-flow:problem:quorum-lost"
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert ask(demo).status_code in {202, 409}, "409: one that was asked for before both were missed goes on"
    wait_for_epoch(demo, was + 1)
