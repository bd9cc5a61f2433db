"""The topic table, and the one name in it that strangers may choose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import BadInput
from common.wire import messages, topics


def test_the_table_holds_every_topic_once() -> None:
    table = {spec.name: spec for spec in topics.all_topics("demo-ab12.", apis=2, signers=3, replication=3)}
    assert {name: (spec.partitions, spec.retention_ms, spec.cleanup) for name, spec in table.items()} == {
        "demo-ab12.signer.v1": (12, 600_000, "delete"),
        "demo-ab12.signer.v1.resp0": (1, 300_000, "delete"),
        "demo-ab12.signer.v1.resp1": (1, 300_000, "delete"),
        "demo-ab12.signer.v1.peer1": (1, 300_000, "delete"),
        "demo-ab12.signer.v1.peer2": (1, 300_000, "delete"),
        "demo-ab12.signer.v1.peer3": (1, 300_000, "delete"),
        "demo-ab12.signer.v1.presence": (1, 300_000, "delete"),
        "demo-ab12.signer.v1.ceremony": (1, -1, "delete"),
        "demo-ab12.signer.v1.keys": (1, -1, "compact"),
        "demo-ab12.signer.v1.audit": (3, 2_592_000_000, "delete"),
        "demo-ab12.signer.v1.dlq": (1, 604_800_000, "delete"),
    }
    assert {spec.replication for spec in table.values()} == {3}
    assert table["demo-ab12.signer.v1.ceremony"].config["min.insync.replicas"] == "2"


def test_what_is_short_lived_closes_its_segments_in_time() -> None:
    for spec in topics.all_topics("", 1, 1):
        short = spec.retention_ms in range(1, 600_001)
        assert (spec.config.get("segment.ms") == "60000") == short, spec.name
        assert (spec.config.get("segment.bytes") == "67108864") == short, spec.name


def test_every_topic_uses_the_broker_clock_and_never_an_unclean_leader() -> None:
    for spec in topics.all_topics("", 1, 1):
        assert spec.config["message.timestamp.type"] == "LogAppendTime"
        assert spec.config["unclean.leader.election.enable"] == "false"
        assert spec.config["max.message.bytes"] == "1048576"


def test_one_node_needs_one_copy() -> None:
    assert "min.insync.replicas" not in topics.ceremony("", 1).config


def test_the_table_names_records_that_exist() -> None:
    for spec in topics.all_topics("", 1, 1):
        for record in spec.records:
            assert isinstance(getattr(messages, record), type), record


@pytest.mark.parametrize("name", ["signer.v1.resp0", "signer.v1.resp9999"])
def test_a_response_topic_can_be_answered_to(name: str) -> None:
    assert topics.is_reply_topic("", name)
    assert topics.is_reply_topic("demo-ab12.", f"demo-ab12.{name}")
    assert topics.is_reply_topic("", topics.responses("", 17).name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "signer.v1",
        "signer.v1.ceremony",
        "signer.v1.peer1",
        "signer.v1.resp",
        "signer.v1.resp10000",
        "signer.v1.resp-1",
        "signer.v1.resp1\n",
        "signer.v1.resp1 ",
        "signer.v1.resp\u0661",  # a digit, but not one of ours
        "signerxv1.resp1",
        "xsigner.v1.resp1",
        "other.signer.v1.resp1",
    ],
)
def test_no_other_topic_can_be_answered_to(name: str) -> None:
    assert not topics.is_reply_topic("", name)


def test_a_prefix_is_taken_literally() -> None:
    assert not topics.is_reply_topic("demo.", "demoxsigner.v1.resp1")
    assert not topics.is_reply_topic("demo.", "signer.v1.resp1")


@given(st.text(max_size=40))
def test_a_reply_topic_is_always_the_name_of_some_pod(name: str) -> None:
    known = {topics.responses("", n).name for n in range(20)}
    if topics.is_reply_topic("", name):
        assert name.removeprefix("signer.v1.resp").isascii()
        assert 0 <= int(name.removeprefix("signer.v1.resp")) <= topics.MAX_POD_INDEX
    assert (name in known) <= topics.is_reply_topic("", name)


@pytest.mark.parametrize("prefix", ["a b", "ä", "a/b", "x" * 101, "a\n"])
def test_a_prefix_that_kafka_would_refuse_is_refused(prefix: str) -> None:
    with pytest.raises(BadInput) as refused:
        topics.requests(prefix)
    assert refused.value.code == "topic-prefix"


@pytest.mark.parametrize("index", [-1, 10_000])
def test_a_pod_beyond_the_pattern_is_refused(index: int) -> None:
    with pytest.raises(BadInput):
        topics.responses("", index)


@pytest.mark.parametrize("seat", [0, 65_536])
def test_a_seat_beyond_the_roster_is_refused(seat: int) -> None:
    with pytest.raises(BadInput):
        topics.peer("", seat)
