"""Refreshes of a demo's key as tests ask for them, and signing beside them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from rest_api.client import Client, ClientError, Signature
from tests.system.running_demo import PLAIN, RunningDemo, wait_until

WITHIN_S = 60.0


def shown(demo: RunningDemo) -> dict[str, object]:
    key: dict[str, object] = PLAIN.get(f"{demo.url}/v1/keys/default").json()
    return key


def epoch(demo: RunningDemo) -> int:
    return int(str(shown(demo)["epoch"]))


def shown_with_times(demo: RunningDemo) -> dict[str, object]:
    """The key with its times, which a pod does not have from the key record but from the replicas' next beat."""
    wait_until(lambda: shown(demo)["last_refresh"] is not None, WITHIN_S, "a replica's beat of this epoch")
    return shown(demo)


def settled(demo: RunningDemo) -> None:
    """Wait until no ceremony runs: one that a test before has begun would be counted as ours."""

    def calm() -> bool:
        keys = PLAIN.get(f"{demo.url}/v1/cluster").json()["keys"]
        return bool(keys) and all(key["ceremony"] is None for key in keys)

    wait_until(calm, WITHIN_S, "no ceremony runs")


def wait_for_epoch(demo: RunningDemo, at_least: int) -> None:
    wait_until(lambda: epoch(demo) >= at_least, WITHIN_S, f"epoch {at_least}")


def ask(demo: RunningDemo, pod: int = 0) -> httpx.Response:
    """Ask for a refresh; once more as long as the last one is too fresh, or the answer says that it is worth it."""
    answers: list[httpx.Response] = []

    def answered() -> bool:
        answers.append(PLAIN.post(f"http://127.0.0.1:{demo.port + pod}/v1/keys/default/refresh"))
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
            while not stop.wait(0.2):
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
