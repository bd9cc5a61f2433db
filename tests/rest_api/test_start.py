"""What stops a start, each with one readable line; and a pod as a process, from its start to SIGTERM."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from common import ed25519
from common.errors import BadInput
from common.kafka.embedded import EmbeddedBroker
from common.wire import codec, envelope
from common.wire.messages import Roster
from rest_api.settings import Settings, index_of, load
from rest_api.trust_files import read_trust_files
from tests.ports import free_ports
from tests.rest_api.world import Trust, World, keypair


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    made = Trust("")
    made.write(tmp_path)
    return made


def refused(folder: Path, **more: object) -> str:
    with pytest.raises(BadInput) as caught:
        read_trust_files(Settings(index=0, secrets_dir=folder, **more))  # type: ignore[arg-type]
    assert "\n" not in caught.value.detail
    return caught.value.detail


def test_good_files_are_read(trust: Trust, tmp_path: Path) -> None:
    files = read_trust_files(Settings(index=0, secrets_dir=tmp_path))
    assert files.operator_key == trust.operator_pub
    assert ed25519.public_key(files.edge_key) == trust.edge_pub
    assert trust.edge.expose().hex() not in repr(files)


@pytest.mark.parametrize("name", ["operator.pub", "roster.avro", "edge.key"])
def test_a_missing_file_is_named_with_what_to_do(trust: Trust, tmp_path: Path, name: str) -> None:
    (tmp_path / name).unlink()
    detail = refused(tmp_path)
    assert str(tmp_path / name) in detail
    assert "provision" in detail


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_an_edge_key_that_others_may_read_is_refused(trust: Trust, tmp_path: Path, mode: int) -> None:
    (tmp_path / "edge.key").chmod(mode)
    detail = refused(tmp_path)
    assert f"chmod 600 {tmp_path / 'edge.key'}" in detail


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_an_edge_key_of_another_length_is_refused_and_not_shown(trust: Trust, tmp_path: Path, size: int) -> None:
    (tmp_path / "edge.key").write_bytes(b"\xab" * size)
    assert "abab" not in refused(tmp_path)


def test_an_edge_key_that_the_roster_does_not_have_is_refused(trust: Trust, tmp_path: Path) -> None:
    (tmp_path / "edge.key").write_bytes(keypair()[0].expose())
    assert "not an edge key" in refused(tmp_path)


def test_a_folder_in_the_place_of_a_key_is_refused(trust: Trust, tmp_path: Path) -> None:
    (tmp_path / "edge.key").unlink()
    (tmp_path / "edge.key").mkdir()
    refused(tmp_path)


def test_a_roster_of_another_operator_is_refused(trust: Trust, tmp_path: Path) -> None:
    (tmp_path / "roster.avro").write_bytes(Trust("").roster)
    assert "not signed by" in refused(tmp_path)


def test_a_roster_that_was_cut_or_flipped_is_refused(trust: Trust, tmp_path: Path) -> None:
    for raw in (trust.roster[:-1], bytes([trust.roster[0] ^ 1]) + trust.roster[1:], b""):
        (tmp_path / "roster.avro").write_bytes(raw)
        assert "roster.avro" in refused(tmp_path)


def test_settings_and_roster_that_pin_different_keys_are_refused(trust: Trust, tmp_path: Path) -> None:
    import base64

    roster = codec.decode(trust.roster, Roster)
    keys = (replace(roster.keys[0], public_key=keypair()[1]), *roster.keys[1:])
    (tmp_path / "roster.avro").write_bytes(envelope.sign_roster(replace(roster, keys=keys), trust.operator))
    pinned = {"default": base64.b64encode(keypair()[1]).decode()}
    assert "default" in refused(tmp_path, pinned_keys=pinned)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PORT", "eighty", "SIGNER_REST_API_PORT"),
        ("PORT", "70000", "SIGNER_REST_API_PORT"),
        ("INDEX", "-1", "SIGNER_REST_API_INDEX"),
        ("DEADLINE_MS", "60000", "SIGNER_REST_API_DEADLINE_MS"),
        ("HOST", "192.0.2.1", "SIGNER_REST_API_AUTH=none"),
        ("HOST", "example.org", "SIGNER_REST_API_AUTH=none"),
        ("HOST", "::", "SIGNER_REST_API_AUTH=none"),
        ("TOPIC_PREFIX", "no spaces", "SIGNER_REST_API_TOPIC_PREFIX"),
        ("PINNED_KEYS", "{", "SIGNER_REST_API_PINNED_KEYS"),
        ("PINNED_KEYS", '{"default": "short"}', "SIGNER_REST_API_PINNED_KEYS"),
        ("KAFKA_SECURITY_FILE", "/nowhere", "SIGNER_REST_API_KAFKA_SECURITY_FILE: /nowhere: there is no such file"),
        ("LOG_LEVEL", "loud", "SIGNER_REST_API_LOG_LEVEL"),
        ("AUTH", "maybe", "SIGNER_REST_API_AUTH"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv("SIGNER_REST_API_INDEX", "0")
    monkeypatch.setenv(f"SIGNER_REST_API_{name}", value)
    with pytest.raises(BadInput) as caught:
        load()
    assert said in caught.value.detail
    assert "\n" not in caught.value.detail


def test_without_tokens_only_loopback_is_bound_unless_that_is_meant() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        assert load(host=host, index=0).hosts is not None
    assert load(host="0.0.0.0", auth="none", index=0).hosts is None  # noqa: S104


def test_a_secret_of_the_broker_stays_out_of_sight(tmp_path: Path) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text("sasl.username=pod\nsasl.password=hunter2\n")
    path.chmod(0o600)
    settings = load(index=0, kafka_security_file=path)
    assert "hunter2" not in repr(settings)
    assert settings.kafka().security["sasl.password"] == "hunter2"
    assert "hunter2" not in repr(settings.kafka())
    path.write_text("acks=0\n")
    with pytest.raises(BadInput, match="SIGNER_REST_API_KAFKA_SECURITY_FILE: acks is not an option"):
        load(index=0, kafka_security_file=path)


@pytest.mark.parametrize(("name", "index"), [("rest-api-0", 0), ("rest-api-12", 12), ("pod7.svc.local", 7)])
def test_the_pods_ordinal_is_its_index(name: str, index: int) -> None:
    assert index_of(name) == index


def test_a_host_name_without_a_number_is_no_index() -> None:
    with pytest.raises(BadInput, match="does not end in a number"):
        index_of("laptop")


def run(env: dict[str, str]) -> "subprocess.Popen[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SIGNER_")}
    return subprocess.Popen(
        [sys.executable, "-m", "rest_api"],
        env={**kept, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_wrong_setting_ends_the_process_with_one_line_and_code_2() -> None:
    child = run({"SIGNER_REST_API_INDEX": "0", "SIGNER_REST_API_PORT": "eighty"})
    out, _ = child.communicate(timeout=30)
    assert child.returncode == 2
    assert out.count("\n") == 1
    assert out.startswith("rest_api: SIGNER_REST_API_PORT")


@pytest.mark.anyio
async def test_a_pod_as_a_process_serves_and_ends_in_order_when_told(own_world: World, cluster: EmbeddedBroker) -> None:
    import asyncio

    port = free_ports()
    child = run(
        {
            "SIGNER_REST_API_INDEX": "1",
            "SIGNER_REST_API_PORT": str(port),
            "SIGNER_REST_API_ADMIN_PORT": "0",
            "SIGNER_REST_API_KAFKA_BOOTSTRAP": cluster.bootstrap,
            "SIGNER_REST_API_KAFKA_EMBEDDED": "true",
            "SIGNER_REST_API_TOPIC_PREFIX": own_world.trust.prefix,
            "SIGNER_REST_API_SECRETS_DIR": str(own_world.folder),
        }
    )
    try:
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 20
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            status = 0
            while status != 200:
                assert child.poll() is None, child.communicate()[0]
                assert time.monotonic() < end, "the process is not ready in 20 s"
                try:
                    status = (await http.post("/v1/sign", json={"text": "a"})).status_code
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
            own_world.committee.all_do(
                lambda asked: (asyncio.get_running_loop().call_later(0.5, asked.seat.sign, asked), None)[1]
            )
            pending = asyncio.create_task(http.post("/v1/sign", json={"text": "under way"}))
            before = len(own_world.committee.asked_items())
            while len(own_world.committee.asked_items()) == before:
                assert time.monotonic() < end
                await asyncio.sleep(0.01)
            child.send_signal(signal.SIGTERM)
            assert (await pending).status_code == 200
        began = time.monotonic()
        code = await asyncio.to_thread(child.wait, 10)
        assert code == 0
        assert time.monotonic() - began < 8
        second = run({"SIGNER_REST_API_INDEX": "1", "SIGNER_REST_API_PORT": str(port)})
        out, _ = await asyncio.to_thread(second.communicate, None, 30)
        assert second.returncode == 2
        assert "SECRETS_DIR" in out
    finally:
        if child.poll() is None:
            child.kill()
        assert child.stdout is not None
        child.stdout.close()
        child.wait(10)
