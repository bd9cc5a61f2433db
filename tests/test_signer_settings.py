"""The environment becomes settings, or one line that names the wrong variable."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import BadInput
from rest_api.demo.plan import Place, Plan, signer
from signer_service.settings import load, ordinal_of_host


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNER_SERVICE_KAFKA_BOOTSTRAP", "127.0.0.1:9092")
    monkeypatch.setenv("SIGNER_SERVICE_INDEX", "2")


def test_the_seat_comes_from_the_pods_ordinal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGNER_SERVICE_INDEX")
    monkeypatch.setattr("socket.gethostname", lambda: "signer-4.signers.svc")
    assert load().seat == 5
    monkeypatch.setattr("socket.gethostname", lambda: "laptop")
    with pytest.raises(BadInput, match="SIGNER_SERVICE_INDEX") as caught:
        load()
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize(("host", "ordinal"), [("signer-0", 0), ("a12", 12), ("x", None), ("", None), ("s-1.b2", 1)])
def test_the_ordinal_is_the_number_that_ends_the_host_name(host: str, ordinal: int | None) -> None:
    assert ordinal_of_host(host) == ordinal


def test_files_follow_the_folder_that_provision_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNER_SERVICE_SECRETS_DIR", "/keys")
    monkeypatch.setenv("SIGNER_SERVICE_SEALING_KEY_FILE", "/elsewhere/sealing.key")
    settings = load()
    assert settings.operator_pub == Path("/keys/operator.pub")
    assert settings.roster == Path("/keys/roster.avro")
    assert settings.identity_key == Path("/keys/seats/2/identity.key")
    assert settings.sealing_key == Path("/elsewhere/sealing.key")
    assert settings.port == 9002


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INDEX", "0"),
        ("INDEX", "two"),
        ("ADMIN_PORT", "70000"),
        ("ADMIN_HOST", "everywhere"),
        ("TOPIC_PREFIX", "a b"),
        ("LOG_LEVEL", "loud"),
        ("BEAT_MS", "0"),
        ("KAFKA_BOOTSTRAP", ""),
        ("QUEUE_HIGH_ITEMS", "-1"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"SIGNER_SERVICE_{name}", value)
    with pytest.raises(BadInput, match=f"SIGNER_SERVICE_{name}: ") as caught:
        load()
    assert "\n" not in caught.value.detail


def test_a_missing_broker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGNER_SERVICE_KAFKA_BOOTSTRAP")
    with pytest.raises(BadInput, match="SIGNER_SERVICE_KAFKA_BOOTSTRAP: not set"):
        load()


def test_suspicion_outlasts_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNER_SERVICE_BEAT_MS", "1000")
    with pytest.raises(BadInput, match="SUSPECT_AFTER_MS must be at least twice BEAT_MS"):
        load()


def test_a_demo_tells_its_signers_how_often_to_replace_the_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(Path("/keys"), Path("/state"), "127.0.0.1:9092", "", embedded=True)
    daily = Plan(8000, 2, 3, 2, None, None, 9000, "warning")
    for plan, interval_ms in ((daily, 86_400_000), (replace(daily, refresh_interval_ms=20_000), 20_000)):
        for name, value in signer(plan, place, 2).env.items():
            monkeypatch.setenv(name, value)
        settings = load()
        assert settings.refresh_interval_ms == interval_ms
        # Somebody watches: a second refresh, and a healed seat, within seconds.
        assert (settings.min_interval_ms, settings.heal_delay_ms) == (2_000, 5_000)
