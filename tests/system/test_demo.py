"""`signer-flow demo` as its user sees it, with new shares while it signs (promise P5) and processes that die (P6).

On the embedded broker. What the broker has a part in is done on Apache Kafka as well, in ``test_demo_on_apache``: a
file of its own, so that another worker may have it.
"""

import asyncio
import base64
import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from rest_api.client import Signature
from tests.cli import running
from tests.system.refreshing import ask, epoch, load, settled, shown_with_times, wait_for_epoch
from tests.system.running_demo import PLAIN, STOP_WITHIN_S, RunningDemo, running_demo, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
WYCHEPROOF = Path(__file__).parent.parent / "vectors" / "wycheproof-ed25519.json"
REFRESHES = 3
WITHIN_S = 60.0
EVERYBODY = {"signer 1", "signer 2", "signer 3", "api 0", "api 1"}


def openssl_verifies(public_key: str, message: bytes, signature: str) -> None:
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key))
    key.verify(base64.b64decode(signature), message)


def cli(*arguments: str, stdin: bytes = b"") -> running.Done:
    return asyncio.run(running.cli(*arguments, stdin=stdin))


def gone(children: dict[str, int]) -> bool:
    """Whether none of them runs. (Who has ended and was not asked for its exit code has no program any more.)"""
    return not any(Path(f"/proc/{pid}/exe").exists() for pid in children.values())


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
    answer = PLAIN.post(
        f"{demo.url}/v1/sign/batch", json={"items": items}, timeout=40, headers={"Request-Timeout-Ms": "30000"}
    )
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [r["reference"] for r in results] == [str(i) for i in range(1000)]
    for i, result in enumerate(results):
        openssl_verifies(result["public_key"], f"invoice {i}".encode(), result["signature"])


def test_both_pods_sign_with_the_same_key(demo: RunningDemo) -> None:
    keys = {
        PLAIN.post(f"http://127.0.0.1:{demo.port + n}/v1/sign", json={"text": "same"}, timeout=10).json()["public_key"]
        for n in range(2)
    }
    assert len(keys) == 1


def test_the_command_line_signs_and_verifies(demo: RunningDemo, tmp_path: Path) -> None:
    document = tmp_path / "contract.txt"
    document.write_bytes(b"we agree\n")
    signed = subprocess.run(
        [Path(sys.executable).parent / "signer-flow", "sign", document, "--url", demo.url],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert signed.returncode == 0, signed.stderr
    signature = signed.stdout.decode().strip()
    assert len(base64.b64decode(signature, validate=True)) == 64
    assert cli("verify", str(document), "--signature", signature, "--url", demo.url).code == 0
    assert cli("verify", "-", "--signature", signature, "--url", demo.url, stdin=b"we agree\r\n").code == 1
    assert cli("sign", "-", "--url", demo.url, "--key", "nobody", stdin=b"x").code == 3
    assert cli("sign", str(tmp_path / "missing"), "--url", demo.url).code == 2
    # It tries for some seconds to reach a service that may be about to start.
    assert cli("sign", "-", "--url", "http://127.0.0.1:1").code == 4


def test_p5_no_request_fails_through_refreshes_and_the_public_key_stays(demo: RunningDemo) -> None:
    demo.wait_until_whole()
    settled(demo)
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
    assert {each.epoch for each in signed} >= {was, was + 1}
    assert {each.public_key for each in signed} == {signed[0].public_key}
    after = shown_with_times(demo)
    assert after["epoch"] == was + 1 == int(str(before["epoch"])) + REFRESHES
    for name in ("public_key", "public_key_pem", "jwk", "fingerprint", "threshold", "signers"):
        assert after[name] == before[name]
    assert str(after["last_refresh"]) > str(before["last_refresh"])
    assert str(after["next_refresh"]) > str(after["last_refresh"])


def test_the_command_line_watches_a_refresh_to_its_end(demo: RunningDemo) -> None:
    settled(demo)
    was = epoch(demo)
    ended: list[running.Done] = []

    def over() -> bool:
        ended.append(cli("refresh", "default", "--wait", "--json", "--url", demo.url))
        return "refresh-too-soon" not in ended[-1].err

    wait_until(over, WITHIN_S, "a refresh may be asked for")
    assert ended[-1].code == 0, ended[-1].err
    told = json.loads(ended[-1].out)
    assert (told["key_id"], told["epoch_before"], told["epoch"]) == ("default", was, was + 1)
    assert {each["phase"] for each in told["phases"]} <= {"announce", "deal", "verdict", "ready", "commit"}


def test_without_a_quorum_a_refresh_is_refused_by_name_and_works_when_the_replicas_are_back(demo: RunningDemo) -> None:
    demo.wait_until_whole()
    settled(demo)
    was = epoch(demo)
    url = f"{demo.url}/v1/keys/default/refresh"
    pids = [demo.children()[f"signer {seat}"] for seat in (2, 3)]
    refused: list[httpx.Response] = []
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:

        def named() -> bool:
            refused.append(PLAIN.post(url, timeout=10))
            detail = refused[-1].json().get("detail", "")
            return refused[-1].status_code == 503 and "replica 2 (silent" in detail and "replica 3 (silent" in detail

        wait_until(named, WITHIN_S, "both are missed")
        assert refused[-1].json()["type"] == "urn:signer-flow:problem:quorum-lost"
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert ask(demo).status_code in {202, 409}, "409: one that was asked for before both were missed goes on"
    wait_for_epoch(demo, was + 1)


def test_p6_kill_9_of_each_signer_in_turn_fails_no_request(demo: RunningDemo) -> None:
    """Only requests in flight at a kill may be slow, and the next signer dies when the last is back."""
    demo.wait_until_whole()
    stop, hurry = threading.Event(), threading.Event()
    taken: list[tuple[float, float, int, str]] = []

    def load() -> None:
        with httpx.Client(base_url=demo.url, timeout=10) as http:
            while not stop.is_set():
                started = time.monotonic()
                answer = http.post("/v1/sign", json={"text": f"at {started}"})
                taken.append((started, time.monotonic(), answer.status_code, answer.text))
                if not hurry.is_set():
                    stop.wait(0.2)

    kills: list[float] = []
    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for seat in (1, 2, 3):
            before, answered, pid = len(demo.lines), len(taken), demo.children()[f"signer {seat}"]
            # As many requests as will go, from before the kill until its death was noticed; then the signers, and
            # whatever else runs on this machine, are left some time to come back.
            hurry.set()
            wait_until(lambda answered=answered: len(taken) > answered + 20, 30, "requests are under way")  # type: ignore[misc]
            kills.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)
            demo.wait_for_line(rf"^signer {seat} was killed by SIGKILL; starting it again in 2 s$", 30, before)
            answered = len(taken)
            wait_until(lambda answered=answered: len(taken) > answered + 10, 30, "requests go on")  # type: ignore[misc]
            hurry.clear()
            wait_until(
                lambda seat=seat, pid=pid: demo.children().get(f"signer {seat}", pid) != pid,  # type: ignore[misc]
                30,
                f"signer {seat} is started again",
            )
            demo.wait_until_whole()
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
    demo.wait_until_whole()
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


def test_a_taken_port_is_said_in_one_line_with_the_remedy(demo: RunningDemo) -> None:
    refused = cli("demo", "--port", str(demo.port), "--admin-port", str(demo.admin_port))
    assert refused.code == 4
    (line,) = refused.err.splitlines()
    assert f"port {demo.port} is taken" in line
    assert "--port" in line


def test_sigterm_ends_everything_and_leaves_nothing(demo: RunningDemo) -> None:
    demo.wait_until_whole()
    children = demo.children()
    assert set(children) == EVERYBODY
    code, seconds = demo.stop(signal.SIGTERM)
    assert code == 0, demo.lines[-5:]
    assert seconds < STOP_WITHIN_S, "something was waited for"
    wait_until(lambda: gone(children), 30, "children are gone")
    assert list(demo.temporary.iterdir()) == []


def test_a_demo_that_is_killed_takes_its_children_with_it() -> None:
    everybody = {"signer 1", "signer 2", "api 0"}
    with running_demo(apis=1, signers=2) as demo:
        wait_until(lambda: set(demo.children()) == everybody, WITHIN_S, "all are started")
        # Also before it is ready: what a demo starts is tied to it from the first moment.
        children = demo.children()
        demo.stop(signal.SIGKILL)
        wait_until(lambda: gone(children), 30, "children are gone")


def test_a_process_that_does_not_end_is_not_waited_for() -> None:
    everybody = {"signer 1", "signer 2", "api 0"}
    with running_demo(apis=1, signers=2) as demo:
        wait_until(lambda: set(demo.children()) == everybody, WITHIN_S, "all are started")
        children = demo.children()
        # It would never hear that it is to end.
        os.kill(children["signer 2"], signal.SIGSTOP)
        code, seconds = demo.stop(signal.SIGTERM)
        assert (code, seconds < STOP_WITHIN_S) == (0, True), demo.lines
        wait_until(lambda: gone(children), 30, "children are gone")
        assert list(demo.temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--threshold", "4"), "--threshold"),
        (("--threshold", "1"), "--threshold"),
        (("--state-dir", "somewhere"), "--kafka"),
        (("--tokens-file", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_a_demo_that_cannot_work_is_refused_before_anything_starts(arguments: tuple[str, ...], named: str) -> None:
    refused = cli("demo", *arguments)
    assert refused.code == 2
    assert named in refused.err
