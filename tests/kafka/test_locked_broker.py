"""A broker with an authorizer: each role can do its work there and nothing else, and who is kept out is told why.

One broker for the file, and its tests are as one day of an operator: nobody has rules yet, and everybody waits; the
rules are added, and the system signs; then everything that no role may do is tried.
"""

import asyncio
import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from common.errors import Unavailable
from common.kafka.client import KafkaClient
from common.kafka.port import End, Hooks, Record
from common.kafka.settings import KafkaSettings
from common.wire import access, topics
from common.wire.access import Acl, Operation, Principals
from rest_api.topics_command import Cluster, System, compare_rules, create_topics
from tests.brokers import require_tools, until
from tests.kafka import members
from tests.kafka.locked import Authority, Locked, start
from tests.kafka.locked_system import APIS, SIGNERS, LockedSystem
from tests.kafka.members import Client, Member, failures_of

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

PODS = ("rest-api-0", "rest-api-1")
SEATS = ("signer-1", "signer-2", "signer-3")
EVERYBODY = ("admin", *PODS, *SEATS, "auditor", "operator", "stranger")
BY_CERTIFICATE = ("rest-api-1", "signer-3", "stranger")
"""These log in with mutual TLS, all others with SCRAM."""
WAIT_S = 60.0

TOPICS = tuple(spec.name for spec in topics.all_topics("", APIS, SIGNERS))
WANTED = access.all_rules("", APIS, SIGNERS, Principals())

MAY_WRITE = {
    **{pod: {"signer.v1", "signer.v1.presence", "signer.v1.dlq"} for pod in PODS},
    **{
        seat: {
            *("signer.v1.resp0", "signer.v1.resp1", "signer.v1.peer1", "signer.v1.peer2", "signer.v1.peer3"),
            *("signer.v1.presence", "signer.v1.ceremony", "signer.v1.keys", "signer.v1.audit", "signer.v1.dlq"),
        }
        for seat in SEATS
    },
    **{other: set[str]() for other in ("auditor", "operator", "stranger")},
}
MAY_READ = {
    **{f"rest-api-{n}": {f"signer.v1.resp{n}", "signer.v1.presence", "signer.v1.keys"} for n in range(APIS)},
    **{
        f"signer-{m}": {
            *("signer.v1", f"signer.v1.peer{m}", "signer.v1.presence"),
            *("signer.v1.ceremony", "signer.v1.keys"),
        }
        for m in (1, 2, 3)
    },
    "auditor": {"signer.v1.ceremony", "signer.v1.keys", "signer.v1.audit", "signer.v1.presence"},
    "operator": {"signer.v1.dlq"},
    "stranger": set[str](),
}
"""Both written by hand, apart from the declaration that the rules are made of."""


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    require_tools()
    instance: Any
    instance, broker = start(tmp_path_factory.mktemp("locked"), EVERYBODY, BY_CERTIFICATE)
    try:
        yield broker
    finally:
        instance.stop()
        shutil.rmtree(instance.folder, ignore_errors=True)


def command(locked: Locked, user: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run ``signer-flow topics``, logged in as somebody."""
    where = ("--kafka", locked.bootstrap, "--kafka-security-file", str(locked.file(locked.options(user))))
    call = [sys.executable, "-m", "rest_api.cli", "topics", *where, *arguments]
    return subprocess.run(call, capture_output=True, text=True, check=False, timeout=WAIT_S)


def cluster(locked: Locked, user: str) -> Cluster:
    return Cluster(locked.bootstrap, locked.file(locked.options(user)))


def allow(locked: Locked, rules: tuple[Acl, ...]) -> None:
    """Add some of the rules."""
    asyncio.run(compare_rules(cluster(locked, "admin"), System(APIS, SIGNERS), rules, apply=True))


def config(locked: Locked, user: str) -> dict[str, Any]:
    """Configuration of a librdkafka client."""
    bootstrap, options = locked.login(user)
    return {"bootstrap.servers": bootstrap, "log_level": 0, **options}


def test_who_may_not_write_ends_who_may_not_read_waits_and_with_all_rules_the_system_signs(
    locked: Locked, tmp_path: Path
) -> None:
    refused = command(locked, "operator", "--create")
    assert refused.returncode == 4
    assert "signer.v1 is missing" in refused.stderr
    assert refused.stderr.count("\n") == 1

    # Rules to write, and the operator's.
    allow(locked, tuple(rule for rule in WANTED if rule.principal == "User:operator"))
    made = command(locked, "operator", "--create", "--replication", "1")
    assert made.returncode == 0, made.stderr
    allow(locked, tuple(rule for rule in WANTED if rule.operation == Operation.WRITE.value))

    with LockedSystem(locked, tmp_path) as system:
        for name in system.names:
            # They go on trying, and are sent nothing.
            system.until(name, lambda log: "does not allow us topic signer.v1." in log, "it says what it may not")
            assert "add the rules of our principal (`signer-flow topics --acls` prints them)" in system.log(name)
            assert not system.ready(name)

        # To read, too; but no seat may be a member of the group.
        group = tuple(rule for rule in WANTED if rule.resource == access.Resource(access.Kind.GROUP, "signer"))
        allow(locked, tuple(rule for rule in WANTED if rule not in group))
        for seat in SEATS:
            system.until(seat, lambda log: "does not allow us group signer:" in log, "it says which group")
            assert not system.ready(seat)
        check = command(locked, "admin", "--acls", "--check")
        assert check.returncode == 1
        assert check.stderr.splitlines() == [
            f"signer-flow: missing: User:{seat} may Read group signer" for seat in SEATS
        ]

        added = command(locked, "admin", "--acls", "--apply", "--json")
        assert added.returncode == 0, added.stderr
        assert len(json.loads(added.stdout)["added"]) == len(SEATS)
        system.until_all_ready()
        for pod in range(APIS):
            text = f"asked of pod {pod}"
            answer = httpx.post(f"{system.url(pod)}/v1/sign", json={"text": text}, timeout=30)
            assert answer.status_code == 200, answer.text
            asked = {"text": text, "signature": answer.json()["signature"], "key_id": "default"}
            assert httpx.post(f"{system.url(pod)}/v1/verify", json=asked, timeout=30).json() == {"valid": True}
        audit = [
            *(sys.executable, "-m", "signer_service", "audit", "--operator-pub", str(system.keys / "operator.pub")),
            *("--kafka", locked.bootstrap),
            *("--kafka-security-file", str(locked.file(locked.options("auditor")))),
        ]
        audited = subprocess.run(audit, capture_output=True, text=True, check=False, timeout=WAIT_S)
        assert audited.returncode == 0, audited.stdout + audited.stderr
        assert "everything holds" in audited.stdout
        for name in system.names:
            assert not any(password in system.log(name) for password in locked.users.values())


@pytest.fixture(scope="module")
def with_rules(locked: Locked) -> Locked:
    """The broker with all topics and rules, also when the test above was not run."""
    allow(locked, WANTED)
    asyncio.run(create_topics(cluster(locked, "operator"), System(APIS, SIGNERS), 1, create=True))
    return locked


def written(client: Mapping[str, Any]) -> dict[str, str | None]:
    """Try to write to each topic: None for done, else the error's name."""
    outcomes: dict[str, str | None] = {}

    def report(error: KafkaError | None, message: Any) -> None:
        outcomes[message.topic()] = None if error is None else error.name()

    producer = Producer({**client, "message.timeout.ms": 60_000})
    for name in TOPICS:
        try:
            producer.produce(name, b"not one of our records", b"key", partition=0, on_delivery=report)
        except KafkaException as refused:
            outcomes[name] = refused.args[0].name()
    assert producer.flush(WAIT_S) == 0
    return outcomes


def read(client: Mapping[str, Any]) -> dict[str, str | None]:
    """Try to read each topic: None for a record or the end, else the error's name."""
    outcomes: dict[str, str | None] = {}
    consumer = Consumer({**client, "group.id": "signer-tail", "enable.partition.eof": True})
    try:
        for name in TOPICS:
            # A topic that may not even be looked at: of those librdkafka says nothing to who assigns them to himself.
            if (denied := consumer.list_topics(name, WAIT_S).topics[name].error) is not None:
                outcomes[name] = denied.name()
        consumer.assign([TopicPartition(name, 0, 0) for name in TOPICS if name not in outcomes])
        end = time.monotonic() + WAIT_S
        while len(outcomes) < len(TOPICS) and time.monotonic() < end:
            message = consumer.poll(0.5)
            if message is None or not (topic := message.topic()):
                continue
            error = message.error()
            reached = error is None or error.code() == KafkaError._PARTITION_EOF
            outcomes.setdefault(topic, None if reached or error is None else error.name())
    finally:
        consumer.close()
    return outcomes


@pytest.mark.parametrize("user", [*PODS, *SEATS, "auditor", "operator", "stranger"])
def test_each_principal_writes_and_reads_what_its_role_does_and_nothing_else(with_rules: Locked, user: str) -> None:
    client = config(with_rules, user)
    wrote, got = written(client), read(client)
    assert {name for name, error in wrote.items() if error is None} == MAY_WRITE[user]
    assert {name for name, error in got.items() if error is None} == MAY_READ[user]
    # All were asked, and denied rather than late or missing.
    assert set(wrote) == set(got) == set(TOPICS)
    assert {error for error in [*wrote.values(), *got.values()] if error} == {"TOPIC_AUTHORIZATION_FAILED"}


@pytest.mark.parametrize(
    ("user", "group"),
    [("rest-api-0", "signer"), ("auditor", "signer"), ("signer-1", "signer-tail"), ("rest-api-0", "signer-tail")],
)
def test_nobody_but_a_seat_is_a_member_of_the_group_and_of_the_other_nobody(
    with_rules: Locked, user: str, group: str
) -> None:
    """Whoever could be one could commit offsets, by the same rule, and have requests passed over."""
    consumer = Consumer({**config(with_rules, user), "group.id": group})
    try:
        consumer.subscribe(["signer.v1.keys"])
        end = time.monotonic() + WAIT_S
        while (message := consumer.poll(0.5)) is None or (error := message.error()) is None:
            assert not consumer.assignment()
            assert time.monotonic() < end
        assert error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED
    finally:
        consumer.close()


@pytest.mark.parametrize("user", ["rest-api-0", "signer-1", "auditor", "operator", "stranger"])
def test_only_the_operator_makes_topics_and_nobody_deletes_one_or_adds_a_rule(with_rules: Locked, user: str) -> None:
    client = AdminClient(config(with_rules, user))

    def outcome(futures: Mapping[Any, Any]) -> str | None:
        (future,) = futures.values()
        try:
            future.result(WAIT_S)
        except KafkaException as refused:
            name: str = refused.args[0].name()
            return name
        return None

    # Only asked whether it could.
    makes = outcome(client.create_topics([NewTopic("signer.v1.resp7", 1, 1)], validate_only=True))
    assert makes == (None if user == "operator" else "TOPIC_AUTHORIZATION_FAILED")
    assert outcome(client.create_topics([NewTopic("other", 1, 1)], validate_only=True)) == "TOPIC_AUTHORIZATION_FAILED"
    assert outcome(client.delete_topics(["signer.v1.dlq"])) == "TOPIC_AUTHORIZATION_FAILED"
    mine = AclBinding(
        *(ResourceType.TOPIC, "signer.v1", ResourcePatternType.LITERAL, f"User:{user}", "*"),
        *(AclOperation.WRITE, AclPermissionType.ALLOW),
    )
    assert outcome(client.create_acls([mine])) == "CLUSTER_AUTHORIZATION_FAILED"


def test_rules_that_should_not_be_there_are_named_and_left_alone(with_rules: Locked) -> None:
    made = AdminClient(config(with_rules, "admin"))
    too_much = AclBinding(
        *(ResourceType.TOPIC, "*", ResourcePatternType.LITERAL, "User:stranger", "*"),
        *(AclOperation.DESCRIBE, AclPermissionType.ALLOW),
    )
    elsewhere = AclBinding(
        *(ResourceType.TOPIC, "orders", ResourcePatternType.LITERAL, "User:stranger", "*"),
        *(AclOperation.READ, AclPermissionType.ALLOW),
    )
    for future in made.create_acls([too_much, elsewhere]).values():
        future.result(WAIT_S)
    for _ in range(2):
        report = asyncio.run(compare_rules(cluster(with_rules, "admin"), System(APIS, SIGNERS), WANTED, apply=True))
        assert report.added == report.differences.missing == ()
        (superfluous,) = report.differences.superfluous
        assert (superfluous.principal, superfluous.resource.name) == ("User:stranger", "*")


@pytest.mark.anyio
async def test_a_member_that_may_read_again_is_no_longer_kept_out(with_rules: Locked) -> None:
    """It mostly keeps its partitions all the while, and then no rebalance tells of it."""
    settings = KafkaSettings(with_rules.bootstrap, "test", security=with_rules.options("signer-1"))
    client, member = Client(settings), Member()
    writer = KafkaClient(KafkaSettings(with_rules.bootstrap, "test", security=with_rules.options("admin"))).producer()
    try:
        await client.member("signer.v1", member)
        await until(lambda: len(member.held) == topics.REQUEST_PARTITIONS, "it holds all", WAIT_S)
        read = AclBindingFilter(
            *(ResourceType.TOPIC, "signer.v1", ResourcePatternType.LITERAL, "User:signer-1", "*"),
            *(AclOperation.READ, AclPermissionType.ALLOW),
        )
        admin = AdminClient(config(with_rules, "admin"))
        for future in admin.delete_acls([read]).values():
            assert len(future.result(WAIT_S)) == 1
        await until(member.consumer.kept_out, "it is denied", WAIT_S)
        await compare_rules(cluster(with_rules, "admin"), System(APIS, SIGNERS), WANTED, apply=True)
        writer.start()
        await members.written(writer, "signer.v1", [b"again"])
        await until(lambda: member.records and not member.consumer.kept_out(), "it reads again", WAIT_S)
    finally:
        await writer.close()
        await client.close()


@pytest.mark.anyio
async def test_a_wrong_password_is_one_line_with_the_setting_and_goes_on_trying(
    locked: Locked, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "common.kafka")
    options = locked.options("signer-1", "not it")
    states: list[bool] = []
    settings = KafkaSettings(locked.bootstrap, "test", security=options, variables="SIGNER_SERVICE_")
    kafka = KafkaClient(settings, Hooks(on_state=states.append))
    attempts = failures_of(kafka)
    producer = kafka.producer()
    producer.start()
    try:
        await until(lambda: len(attempts) >= 3, "attempts to log in", WAIT_S)
    finally:
        await producer.close()
    lines = [record.getMessage() for record in caplog.records if "refuses who we say we are" in record.getMessage()]
    (line,) = lines
    assert "correct sasl.* in the file named by SIGNER_SERVICE_KAFKA_SECURITY_FILE" in line
    assert True not in states
    admin = KafkaClient(settings).admin()
    try:
        with pytest.raises(Unavailable) as refused:
            await admin.topics()
    finally:
        await admin.close()
    assert "correct sasl.* in the file named by SIGNER_SERVICE_KAFKA_SECURITY_FILE" in refused.value.detail
    assert "not it" not in caplog.text + refused.value.detail


@pytest.mark.anyio
async def test_with_a_password_over_tls_a_pod_does_its_work_and_a_broker_of_another_authority_is_not_told_it(
    with_rules: Locked, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = with_rules.options_with_tls("rest-api-0")
    client = Client(KafkaSettings(with_rules.sasl_tls, "test", security=options))
    got: list[Record] = []
    try:
        await client.tail({"signer.v1.presence": End()}, got.extend)
        await members.written(client.producer(), "signer.v1.presence", [b"x"])
        await until(lambda: any(record.value == b"x" for record in got), "the record", WAIT_S)
    finally:
        await client.close()

    caplog.set_level(logging.INFO, "common.kafka")
    Authority(tmp_path)
    foreign = options | {"ssl.ca.location": str(tmp_path / "ca.pem")}
    kafka = KafkaClient(KafkaSettings(with_rules.sasl_tls, "test", security=foreign, variables="SIGNER_REST_API_"))
    attempts = failures_of(kafka)
    producer = kafka.producer()
    producer.start()
    try:
        await until(lambda: len(attempts) >= 2, "attempts to connect", WAIT_S)
    finally:
        await producer.close()
    assert "_SSL" in attempts
    assert "correct security.protocol and ssl.* in the file named by SIGNER_REST_API_KAFKA_SECURITY_FILE" in caplog.text
    assert with_rules.users["rest-api-0"] not in caplog.text


@pytest.mark.anyio
async def test_without_any_rule_a_writer_ends_with_the_remedy(locked: Locked) -> None:
    """librdkafka asks for an idempotent producer's id once: then only a new process helps."""
    bootstrap, options = locked.login("stranger")
    ended: list[str] = []
    settings = KafkaSettings(bootstrap, "test", security=options, variables="SIGNER_REST_API_")
    producer = KafkaClient(settings, Hooks(on_fatal=ended.append)).producer()
    producer.start()
    try:
        await until(lambda: ended, "the end", WAIT_S)
    finally:
        await producer.close()
    assert "does not allow us to write to any topic: add the rules of our principal" in ended[0]
    assert "SIGNER_REST_API_KAFKA_SECURITY_FILE" in ended[0]
