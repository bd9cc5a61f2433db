"""`signer-flow demo` as its user sees it: on the embedded broker, and the same on Apache Kafka."""

import base64
import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.system.running_demo import STOP_WITHIN_S, RunningDemo, running_demo, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
WYCHEPROOF = Path(__file__).parent.parent / "vectors" / "wycheproof-ed25519.json"


ONE_BROKER = pytest.mark.parametrize("on_broker", ["embedded"], indirect=True, scope="module")
"""For what never reaches the broker: once is enough."""


@pytest.fixture(scope="module")
def started(on_broker: tuple[str, ...]) -> Iterator[Callable[[], RunningDemo]]:
    """Gives the module's demo on that broker, which is started anew if a test has ended it."""
    with contextlib.ExitStack() as stack:
        running: list[RunningDemo] = []

        def get() -> RunningDemo:
            if not running or running[-1].process.poll() is not None:
                running.append(stack.enter_context(running_demo(*on_broker)))
                running[-1].wait_ready()
            return running[-1]

        yield get


@pytest.fixture
def demo(started: Callable[[], RunningDemo]) -> RunningDemo:
    return started()


def openssl_verifies(public_key: str, message: bytes, signature: str) -> None:
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key))
    key.verify(base64.b64decode(signature), message)


def cli(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "rest_api.cli", *arguments], input=stdin, capture_output=True, timeout=60, check=False
    )


def test_every_wycheproof_message_is_signed_and_openssl_agrees(demo: RunningDemo) -> None:
    groups = json.loads(WYCHEPROOF.read_text())["testGroups"]
    messages = {bytes.fromhex(test["msg"]) for group in groups for test in group["tests"]}
    assert b"" in messages
    with httpx.Client(base_url=demo.url, timeout=10) as http:
        for message in sorted(messages):
            answer = http.post("/v1/sign", json={"data": base64.b64encode(message).decode()})
            assert answer.status_code == 200, answer.text
            openssl_verifies(answer.json()["public_key"], message, answer.json()["signature"])


def test_a_thousand_items_in_one_batch_are_signed_in_order(demo: RunningDemo) -> None:
    items = [{"text": f"invoice {i}", "reference": str(i)} for i in range(1000)]
    answer = httpx.post(
        f"{demo.url}/v1/sign/batch", json={"items": items}, timeout=40, headers={"Request-Timeout-Ms": "30000"}
    )
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [r["reference"] for r in results] == [str(i) for i in range(1000)]
    for i, result in enumerate(results):
        openssl_verifies(result["public_key"], f"invoice {i}".encode(), result["signature"])


def test_both_pods_sign_with_the_same_key(demo: RunningDemo) -> None:
    keys = {
        httpx.post(f"http://127.0.0.1:{demo.port + n}/v1/sign", json={"text": "same"}, timeout=10).json()["public_key"]
        for n in range(2)
    }
    assert len(keys) == 1


@ONE_BROKER
def test_the_command_line_signs_and_verifies(demo: RunningDemo, tmp_path: Path) -> None:
    # It tries for some seconds to reach a service that may be about to start.
    nobody = subprocess.Popen(
        [sys.executable, "-m", "rest_api.cli", "sign", "-", "--url", "http://127.0.0.1:1"], stdin=subprocess.DEVNULL
    )
    document = tmp_path / "contract.txt"
    document.write_bytes(b"we agree\n")
    signed = cli("sign", str(document), "--url", demo.url)
    assert signed.returncode == 0, signed.stderr
    signature = signed.stdout.decode().strip()
    assert len(base64.b64decode(signature, validate=True)) == 64
    assert cli("verify", str(document), "--signature", signature, "--url", demo.url).returncode == 0
    assert cli("verify", "-", "--signature", signature, "--url", demo.url, stdin=b"we agree\r\n").returncode == 1
    assert cli("sign", "-", "--url", demo.url, "--key", "nobody", stdin=b"x").returncode == 3
    assert cli("sign", str(tmp_path / "missing"), "--url", demo.url).returncode == 2
    assert nobody.wait(60) == 4


def test_p6_kill_9_of_each_signer_in_turn_fails_no_request(demo: RunningDemo) -> None:
    """Only requests in flight at a kill may be slow, and the next signer dies when the last is back."""
    stop, hurry = threading.Event(), threading.Event()
    taken: list[tuple[float, float, int, str]] = []

    def load() -> None:
        with httpx.Client(base_url=demo.url, timeout=10) as http:
            while not stop.is_set():
                started = time.monotonic()
                answer = http.post("/v1/sign", json={"text": f"at {started}"})
                taken.append((started, time.monotonic(), answer.status_code, answer.text))
                if not hurry.is_set():
                    stop.wait(0.05)

    def ready(seat: int) -> bool:
        try:
            answer = httpx.get(f"http://127.0.0.1:{demo.admin_port + seat}/readyz", timeout=2)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    kills: list[float] = []
    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for seat in (1, 2, 3):
            before, answered, pid = len(demo.lines), len(taken), demo.children()[f"signer {seat}"]
            # As many requests as will go, from before the kill until the next process is there; then the signers, and
            # whatever else runs on this machine, are left some time to come back.
            hurry.set()
            wait_until(lambda answered=answered: len(taken) > answered + 20, 30, "requests are under way")  # type: ignore[misc]
            kills.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)
            demo.wait_for_line(rf"^signer {seat} was killed by SIGKILL; starting it again in 2 s$", 5, before)
            wait_until(
                lambda seat=seat, pid=pid: demo.children().get(f"signer {seat}", pid) != pid,  # type: ignore[misc]
                30,
                f"signer {seat} is started again",
            )
            hurry.clear()
            wait_until(lambda seat=seat: ready(seat), 60, f"signer {seat} is ready again")  # type: ignore[misc]
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=20)
    failed = [row for row in taken if row[2] != 200]
    assert not failed, failed[:5]
    slow = [(a, b) for a, b, *_ in taken if b - a > 3.0]
    for a, b in slow:
        assert any(a <= kill <= b for kill in kills), f"a request that was not in flight at a kill took {b - a:.1f} s"
    assert len(taken) > 30


def test_p6_a_csv_is_signed_to_its_last_row_though_a_signer_dies_in_the_middle(
    demo: RunningDemo, tmp_path: Path
) -> None:
    rows = 1_500
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("reference,text\n" + "".join(f"r{n},invoice {n}\n" for n in range(rows)))
    with out.open("wb") as results:
        command = (sys.executable, "-m", "rest_api.cli", "batch", str(source), "--url", demo.url, "--batch-items", "50")
        run = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=results, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: out.read_bytes().count(b"\n") > rows // 5, 90, "a fifth is signed")
        os.kill(demo.children()["signer 2"], signal.SIGKILL)
        assert out.read_bytes().count(b"\n") < rows, "it died in the middle"
        _, said = run.communicate(timeout=120)
    finally:
        run.kill()
    assert (run.returncode, said.decode()) == (0, f"signer-flow: {rows} rows done, {rows} signed, 0 failed\n")
    with out.open(newline="") as results_again:
        found = list(csv.DictReader(results_again, strict=True))
    assert [row["reference"] for row in found] == [f"r{n}" for n in range(rows)]
    for row in found:
        openssl_verifies(row["public_key"], row["text"].encode(), row["signature"])
    assert len({row["public_key"] for row in found}) == 1


@ONE_BROKER
def test_a_taken_port_is_said_in_one_line_with_the_remedy(demo: RunningDemo) -> None:
    refused = cli("demo", "--port", str(demo.port), "--admin-port", str(demo.admin_port))
    assert refused.returncode == 4
    lines = refused.stderr.decode().splitlines()
    assert len(lines) == 1
    assert f"port {demo.port} is taken" in lines[0]
    assert "--port" in lines[0]


def test_sigterm_ends_everything_in_five_seconds_and_leaves_nothing(demo: RunningDemo) -> None:
    children = demo.children()
    assert set(children) == {"signer 1", "signer 2", "signer 3", "api 0", "api 1"}
    code, seconds = demo.stop(signal.SIGTERM)
    assert code == 0, demo.lines[-5:]
    assert seconds < STOP_WITHIN_S
    assert [pid for pid in children.values() if Path(f"/proc/{pid}").exists()] == []
    assert list(demo.temporary.iterdir()) == []


def test_a_demo_that_is_killed_takes_its_children_with_it() -> None:
    with running_demo(apis=1, signers=2) as running:
        running.wait_ready()
        children = running.children()
        assert set(children) == {"signer 1", "signer 2", "api 0"}
        running.stop(signal.SIGKILL)
        wait_until(
            lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in children.values()), 5, "children are gone"
        )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--threshold", "4"), "--threshold"),
        (("--threshold", "1"), "--threshold"),
        (("--state-dir", "somewhere"), "--kafka"),
    ],
)
def test_a_demo_that_cannot_work_is_refused_before_anything_starts(arguments: tuple[str, ...], named: str) -> None:
    refused = cli("demo", *arguments)
    assert refused.returncode == 2
    assert named.encode() in refused.stderr
