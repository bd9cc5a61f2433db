"""``python -m signer_service audit`` as somebody uses it: exit codes, one line, table and JSON."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from common.kafka import tail
from common.kafka.client import KafkaClient
from common.kafka.embedded import EmbeddedBroker
from common.wire import topics
from signer_service.__main__ import cli
from signer_service.audit import log_file
from signer_service.audit.facts import Logged
from tests import playbook
from tests.audit.logs import logged, short_log

pytestmark = pytest.mark.timeout(120)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["audit", *map(str, arguments)])


@pytest.fixture
def operator(tmp_path: Path) -> Path:
    path = tmp_path / "operator.pub"
    path.write_bytes(playbook.public("operator"))
    return path


def saved(path: Path, records: Sequence[Logged], topic: str = playbook.TOPIC) -> Path:
    with log_file.saving(path, topic) as writer:
        for each in records:
            writer.add(each)
    return path


@pytest.fixture
def honest(tmp_path: Path) -> Path:
    return saved(tmp_path / "honest.jsonl", logged(short_log()))


def test_a_log_that_holds_ends_with_0_and_a_table(honest: Path, operator: Path) -> None:
    done = run("--log", honest, "--operator-pub", operator)
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "everything holds"
    assert "key default: epoch 2, 2 of 3" in done.stdout
    assert "refresh" in done.stdout


def test_json_is_one_document_for_machines(honest: Path, operator: Path) -> None:
    done = run("--log", honest, "--operator-pub", operator, "--json", "--key", "default")
    assert done.exit_code == 0
    shown = json.loads(done.stdout)
    assert shown["holds"] is True
    assert [each["epoch"] for each in shown["keys"][0]["epochs"]] == [1, 2]


def test_a_log_that_does_not_hold_ends_with_1_and_one_line_that_says_what_and_where(
    tmp_path: Path, operator: Path
) -> None:
    records = logged(short_log())
    bad = saved(tmp_path / "bad", [*records[:9], *records[10:]])
    done = run("--log", bad, "--operator-pub", operator)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line == (
        "signer_service: the log does not hold at offset 10: log-gap: offset 10 follows 8: what was between is left out"
    )
    assert "everything holds" not in done.stdout
    done = run("--log", bad, "--operator-pub", operator, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["problem"]["offset"] == 10


def test_a_file_that_is_cut_or_changed_ends_with_1(honest: Path, operator: Path) -> None:
    whole = honest.read_bytes()
    honest.write_bytes(whole[: len(whole) // 2])
    done = run("--log", honest, "--operator-pub", operator)
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "log-file-cut" in done.stderr
    honest.write_bytes(whole.replace(b'"offset": 7', b'"offset": 6'))
    done = run("--log", honest, "--operator-pub", operator)
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "log-file-changed" in done.stderr


def test_another_operators_key_and_an_empty_log_end_with_1(tmp_path: Path, honest: Path, operator: Path) -> None:
    other = tmp_path / "other.pub"
    other.write_bytes(playbook.public("somebody else"))
    done = run("--log", honest, "--operator-pub", other)
    assert done.exit_code == 1
    assert "no-roster" in done.stderr
    done = run("--log", saved(tmp_path / "empty", []), "--operator-pub", operator)
    assert done.exit_code == 1
    assert "empty-log" in done.stderr


def test_wrong_usage_ends_with_2_and_one_line(tmp_path: Path, honest: Path, operator: Path) -> None:
    missing, rubbish = tmp_path / "missing", tmp_path / "rubbish"
    rubbish.write_bytes(b"rubbish")
    foreign = saved(tmp_path / "foreign", logged(short_log()), topic="signer.v1.audit")
    for arguments, words in [
        (("--operator-pub", operator), "either --kafka HOST:PORT or --log FILE"),
        (("--operator-pub", operator, "--log", honest, "--kafka", "127.0.0.1:1"), "either --kafka"),
        (("--operator-pub", operator, "--log", honest, "--save", missing), "--save"),
        (("--operator-pub", operator, "--log", missing), "cannot be read"),
        (("--operator-pub", operator, "--log", rubbish), "is not a saved ceremony log"),
        (("--operator-pub", operator, "--log", foreign), "is the log of the topic signer.v1.audit"),
        (("--operator-pub", operator, "--log", honest, "--topic-prefix", "other."), "not other.signer.v1.ceremony"),
        (("--operator-pub", missing, "--log", honest), "operator public key"),
        (("--operator-pub", rubbish, "--log", honest), "operator public key"),
        (("--operator-pub", operator, "--log", honest, "--key", "other"), "does not know the key other"),
        (("--operator-pub", operator, "--log", honest, "--key", "No Key"), "a key id is"),
        (("--operator-pub", operator, "--kafka", "127.0.0.1:1", "--save", honest), "is there already"),
    ]:
        done = run(*arguments)
        assert done.exit_code == 2, (arguments, done.output)
        (line,) = done.stderr.splitlines()
        assert line.startswith("signer_service: ")
        assert words in line


# --- on a broker -----------------------------------------------------------------------------------------------------


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as cluster:
        yield cluster


def write(broker: EmbeddedBroker, log: Sequence[bytes]) -> None:
    broker.create_topics([topics.ceremony("")])

    async def send() -> None:
        producer = KafkaClient(broker.settings("test")).producer()
        producer.start()
        for raw in log:
            producer.send(playbook.TOPIC, raw, partition=0)
        assert await producer.flush(30) == 0
        await producer.close()

    asyncio.run(send())


def test_a_log_is_read_from_a_broker_saved_and_checked_again_without_it(
    broker: EmbeddedBroker, tmp_path: Path, operator: Path
) -> None:
    write(broker, short_log())
    path = tmp_path / "saved.jsonl"
    live = run("--kafka", broker.bootstrap, "--operator-pub", operator, "--save", path, "--json")
    assert live.exit_code == 0, live.output
    offline = run("--log", path, "--operator-pub", operator, "--json")
    assert offline.exit_code == 0
    assert json.loads(live.stdout) == json.loads(offline.stdout)
    with log_file.opened(path) as reader:
        assert [each.value for each in reader] == list(short_log())


def test_a_log_on_a_broker_that_does_not_hold_is_saved_as_evidence(
    broker: EmbeddedBroker, tmp_path: Path, operator: Path
) -> None:
    write(broker, (*short_log()[:9], *short_log()[10:]))
    path = tmp_path / "evidence.jsonl"
    done = run("--kafka", broker.bootstrap, "--operator-pub", operator, "--save", path)
    assert done.exit_code == 1
    assert "log-forked" in done.stderr
    again = run("--log", path, "--operator-pub", operator)
    assert (again.exit_code, again.stderr) == (1, done.stderr)


def test_an_empty_topic_ends_with_1_and_a_missing_one_or_no_broker_with_4(
    broker: EmbeddedBroker, tmp_path: Path, operator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "MISSING_S", 1.0)
    monkeypatch.setattr(tail, "START_S", 2.0)
    path = tmp_path / "saved"
    done = run("--kafka", broker.bootstrap, "--operator-pub", operator, "--save", path)
    assert done.exit_code == 4, done.output
    assert playbook.TOPIC in done.stderr
    assert not path.exists()
    write(broker, ())
    done = run("--kafka", broker.bootstrap, "--operator-pub", operator)
    assert done.exit_code == 1
    assert "empty-log" in done.stderr
    done = run("--kafka", "127.0.0.1:1", "--operator-pub", operator)
    assert done.exit_code == 4, done.output
    assert len(done.stderr.splitlines()) == 1
