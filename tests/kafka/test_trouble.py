"""What a person reads of a broker that is away, or that will not have us: little, and the setting to correct."""

import asyncio
import logging
import time

import pytest

from common.errors import BadInput
from common.kafka.client import KafkaClient
from common.kafka.embedded import EmbeddedBroker
from common.kafka.port import Hooks
from common.kafka.settings import KafkaSettings
from common.kafka.state import SETTLE_S, Connection
from common.kafka.trouble import BRAKE_S, Trouble
from tests.brokers import until
from tests.kafka.members import failures_of
from tests.ports import free_ports

REFUSED = "h:1/bootstrap: Connect to ipv4#h:1 failed: Connection refused (after {}ms in state CONNECT)"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trouble(clock: Clock, caplog: pytest.LogCaptureFixture) -> Trouble:
    caplog.set_level(logging.INFO, "common.kafka")
    return Trouble(KafkaSettings("h:1", "test", variables="SIGNER_SERVICE_"), clock)


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return lines


def attempts(trouble: Trouble, clock: Clock, seconds: int) -> None:
    """What librdkafka tells in so many seconds without a broker: six failures a second, each also as a line."""
    for number in range(seconds * 6):
        clock.now += 1 / 6
        text = REFUSED.format(number)
        trouble.log(logging.ERROR, "%s [%s] %s", "FAIL", "signer-1-tail#consumer-2", f"[thrd:h:1]: {text}")
        trouble.failed("_TRANSPORT", text)


def test_a_lost_broker_is_one_line_with_the_remedy_and_its_return_another(
    trouble: Trouble, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    trouble.back()
    assert said(caplog) == [("INFO", "the broker at h:1 answers")]
    trouble.failed("_TRANSPORT", REFUSED.format(0))
    trouble.lost()
    attempts(trouble, clock, 20)
    ((level, line),) = said(caplog)
    assert level == "WARNING"
    assert line.startswith("no broker answers at h:1 (")
    assert "Connection refused" in line
    assert "SIGNER_SERVICE_KAFKA_BOOTSTRAP" in line
    trouble.back()
    assert said(caplog) == [("WARNING", "the broker at h:1 answers again, after 20.0 s")]


def test_an_outage_that_lasts_is_said_again_every_half_minute(
    trouble: Trouble, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    trouble.lost()
    said(caplog)
    attempts(trouble, clock, 95)
    lines = [line for _, line in said(caplog)]
    assert len(lines) == 3
    assert all(line.startswith("still no broker answers at h:1, for ") for line in lines)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("_AUTHENTICATION", "SASL authentication error: Invalid credentials", ("refuses who we say", "KAFKA_SECURITY")),
        ("_RESOLVE", "Failed to resolve 'h:1': Name or service not known", ("host name", "KAFKA_BOOTSTRAP")),
        ("_SSL", "SSL handshake failed: certificate verify failed", ("TLS", "ssl.*", "KAFKA_SECURITY_FILE")),
        ("_TRANSPORT", "Disconnected: verify that security.protocol is correctly configured", ("hangs up", "SASL")),
    ],
)
def test_what_a_person_has_to_mend_is_one_line_that_names_the_setting(
    trouble: Trouble, clock: Clock, caplog: pytest.LogCaptureFixture, name: str, text: str, words: tuple[str, ...]
) -> None:
    for _ in range(10):
        trouble.failed(name, text)
        trouble.lost()
        clock.now += 1
    ((level, line),) = said(caplog)
    assert level == "ERROR"
    for word in ("h:1", text, *words):
        assert word in line
    clock.now += BRAKE_S
    trouble.failed(name, text)
    assert "9 more like this were held back" in said(caplog)[0][1]


def test_other_lines_of_the_library_pass_once_of_a_kind(
    trouble: Trouble, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(50):
        trouble.log(logging.WARNING, "%s [%s] %s", "SESSTMOUT", "signer-1", f"session timed out after {number} ms")
    trouble.log(logging.WARNING, "%s [%s] %s", "MAXPOLL", "signer-1", "poll interval exceeded")
    assert [line.split()[0] for _, line in said(caplog)] == ["SESSTMOUT", "MAXPOLL"]


def test_kinds_are_not_kept_for_ever(trouble: Trouble, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(2000):
        trouble.log(logging.WARNING, "%s", "x" * number)
    assert len(trouble._said) <= 256


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    return f"127.0.0.1:{free_ports()}"


async def lines_of(settings: KafkaSettings, caplog: pytest.LogCaptureFixture, attempts: int) -> list[str]:
    """Everything that is said while a producer has failed to connect so many times."""
    caplog.set_level(logging.INFO, "common.kafka")
    made = KafkaClient(settings, Hooks())
    failures = failures_of(made)
    producer = made.producer()
    producer.start()
    await until(lambda: len(failures) >= attempts, "attempts to connect")
    await producer.close()
    return [line for _, line in said(caplog)]


@pytest.mark.anyio
async def test_nobody_there_is_one_line(nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    (line,) = await lines_of(KafkaSettings(nobody, "test"), caplog, 4)
    assert line.startswith(f"no broker answers at {nobody} ({nobody}/bootstrap: Connect to ")
    assert line.endswith("is Kafka running there, and is KAFKA_BOOTSTRAP right?")


@pytest.mark.anyio
async def test_an_unknown_host_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = await lines_of(KafkaSettings("kafka.invalid:9092", "test"), caplog, 4)
    assert "its host name is not known: correct KAFKA_BOOTSTRAP" in line


@pytest.mark.anyio
async def test_tls_to_a_broker_without_it_names_the_file_of_security_options(caplog: pytest.LogCaptureFixture) -> None:
    with EmbeddedBroker() as broker:
        settings = KafkaSettings(broker.bootstrap, "test", security={"security.protocol": "SSL"})
        lines = await lines_of(settings, caplog, 4)
    # How the broker hangs up is a matter of timing: as a failed handshake, or as a reset connection before it.
    assert 1 <= len(lines) <= 2
    assert all("KAFKA_SECURITY_FILE" in line and "SSL" in line.upper() for line in lines)


@pytest.mark.anyio
async def test_a_security_option_that_does_not_fit_is_refused_by_its_file() -> None:
    settings = KafkaSettings(
        "h:1",
        "test",
        security={"security.protocol": "SSL", "ssl.ca.location": "/nowhere"},
        variables="SIGNER_SERVICE_",
    )
    producer = KafkaClient(settings, Hooks()).producer()
    with pytest.raises(BadInput) as refused:
        producer.start()
    assert "SIGNER_SERVICE_KAFKA_SECURITY_FILE: " in refused.value.detail
    assert "ssl.ca.location" in refused.value.detail


@pytest.mark.anyio
async def test_what_was_fetched_before_the_broker_went_does_not_bring_it_back() -> None:
    states: list[bool] = []
    connection = Connection(asyncio.get_running_loop(), KafkaSettings("h:1", "test"), Hooks(on_state=states.append))
    witness = connection.witness("tail")
    witness.seen_up()
    witness.seen_down()
    witness.seen_up()
    await until(lambda: states == [True, False], "down")
    end = time.monotonic() + SETTLE_S
    await until(lambda: time.monotonic() > end, "some time to pass")
    witness.seen_up()
    await until(lambda: states == [True, False, True], "up")
