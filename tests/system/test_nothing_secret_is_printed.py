"""Whatever a system prints, shows or exports in a full run at its most talkative: no byte of a key is in it."""

import asyncio
import base64
import gzip
import hashlib
import json
import os
import signal
import time

import httpx
import pytest

from tests.cli.running import cli
from tests.observability.collector import running_collector
from tests.system.running_demo import PLAIN, READY_WITHIN_S, RunningDemo, running_demo, wait_until
from tests.system.secret_forms import forms, found_in, of_files, of_state

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

MESSAGE = "a message that is nobody's business: 7f3a91"


@pytest.mark.parametrize(
    "secret",
    [bytes(range(200, 232)), b"printable text of 32 characters!", hashlib.sha256(b"any bytes").digest()],
    ids=["high bytes", "text", "any bytes"],
)
def test_the_search_finds_each_form_of_a_secret(secret: bytes) -> None:
    number = int.from_bytes(secret, "little")
    for shown in (
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        secret.hex(":").encode(),
        secret[::-1].hex().encode(),
        base64.b64encode(secret),
        base64.urlsafe_b64encode(secret).rstrip(b"="),
        base64.b64encode(b"x" + secret + b"y"),
        base64.b64encode(b"xy" + secret),
        repr(secret).encode(),
        repr(list(secret)).encode(),
        str(number).encode(),
        json.dumps({"share": base64.b64encode(secret).decode()}).encode(),
    ):
        assert found_in({"it": secret}, b"before " + shown + b" after") == ["it"], shown
    assert found_in({"it": secret}, b"before " + os.urandom(4096) + b"after") == []
    assert all(len(form) >= 12 for form in forms(secret))


def test_nothing_printed_or_exported_by_a_full_run_holds_a_byte_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with running_demo("--log-level", "debug") as demo:
            secrets = _until_ready(demo)
            pages = _use(demo)
            _lose_a_signer(demo)
            (root,) = demo.temporary.glob("signer-flow-demo-*")
            secrets |= of_state(root / "keys", root / "state")
            code, _ = demo.stop()
        assert code == 0
    kinds = {name.partition(" ")[0] for name in secrets}
    assert {"operator.key", "edge.key", "seats/1/identity.key", "seats/3/sealing.key", "seat"} <= kinds
    assert len([name for name in secrets if name.startswith("seat ")]) >= 3, "a share of each seat"

    printed = "\n".join(demo.lines).encode()
    for who in ("api 0", "api 1", "signer 1", "signer 2", "signer 3"):
        # Without the option a demo says warnings only.
        said = any(who in line and ("[debug" in line or "[info" in line) for line in demo.lines)
        assert said, f"{who} was to say everything"
    exported = b"\n".join(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body for _, body in collector.posted)
    for role in (b"signer-flow-signer", b"signer-flow-rest-api"):
        assert role in exported
    for shown in (printed, exported, pages):
        assert found_in(secrets, shown) == []
        # Nor what was signed: that is the caller's.
        assert MESSAGE.encode() not in shown
        assert base64.b64encode(MESSAGE.encode()) not in shown


def _until_ready(demo: RunningDemo) -> dict[str, bytes]:
    """Wait, and collect meanwhile what the ceremony keeps for a moment only."""
    secrets: dict[str, bytes] = {}
    end = time.monotonic() + READY_WITHIN_S
    while not any(line.startswith("ready:") for line in list(demo.lines)):
        assert time.monotonic() < end, "\n".join(demo.lines)
        for root in demo.temporary.glob("signer-flow-demo-*"):
            if (root / "keys" / "roster.avro").exists():
                secrets |= of_files(root / "keys")
                secrets |= of_state(root / "keys", root / "state")
        time.sleep(0.02)
    return secrets


def _use(demo: RunningDemo) -> bytes:
    """Ask for everything that there is, rightly and wrongly. Returns what the admin pages and the command line show."""
    with httpx.Client(base_url=demo.url, timeout=20) as http:
        signed = http.post("/v1/sign", json={"text": MESSAGE}).json()
        http.post("/v1/sign/batch", json={"items": [{"text": MESSAGE + str(n)} for n in range(64)] + [{"data": "?"}]})
        http.post("/v1/verify", json={"text": MESSAGE, "signature": signed["signature"]})
        http.post("/sign", data={"text": MESSAGE}, headers={"Accept": "text/plain"})
        for wrong in (b"", b"{", b'{"text": 1}', b'{"data": "!"}', b'{"text": "a", "key_id": "none"}', b"\xff" * 999):
            http.post("/v1/sign", content=wrong, headers={"Content-Type": "application/json"})
        http.post("/v1/sign", json={"text": MESSAGE}, headers={"Request-Timeout-Ms": "1"})
        http.post("/v1/keys/default/refresh")
        for path in ("/v1/keys", "/v1/cluster", "/.well-known/jwks.json", "/sign", "/docs", "/openapi.json", "/none"):
            http.get(path)
    commands = (("sign", "-"), ("status",))
    told = [asyncio.run(cli(*command, "--url", demo.url, stdin=MESSAGE.encode())) for command in commands]
    assert [done.code for done in told] == [0, 0], told
    assert PLAIN.post(f"http://127.0.0.1:{demo.port + 1}/v1/sign", json={"text": MESSAGE}).status_code == 200
    ports = [demo.admin_port + seat for seat in (1, 2, 3)] + [demo.admin_port + 100 + pod for pod in (0, 1)]
    pages = [PLAIN.get(f"http://127.0.0.1:{port}{path}").content for port in ports for path in ("/metrics", "/readyz")]
    assert all(pages)
    return b"\n".join([*pages, *(done.out + done.err.encode() for done in told)])


def _lose_a_signer(demo: RunningDemo) -> None:
    before = demo.children()["signer 3"]
    os.kill(before, signal.SIGKILL)
    with httpx.Client(base_url=demo.url, timeout=20) as http:
        assert http.post("/v1/sign", json={"text": MESSAGE}).status_code == 200
    wait_until(lambda: demo.children().get("signer 3", before) != before, 20, "signer 3 is started again")
    port = demo.admin_port + 3

    def back() -> bool:
        try:
            return PLAIN.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(back, 40, "signer 3 serves again")
