"""What could not be understood is kept, whatever it is."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import BadInput
from common.kafka import dead_letter
from common.kafka.port import Delivery, End, Producer, Record
from common.wire import codec, topics
from common.wire.messages import MAX_RECORD_BYTES, DeadLetter, MsgToSign
from tests.brokers import Broker, until
from tests.kafka.members import Client


@given(
    value=st.binary(max_size=300),
    key=st.none() | st.binary(max_size=2000),
    detail=st.text(max_size=2000) | st.just("\udcff"),
    timestamp=st.none() | st.integers(0, 2**53),
)
def test_every_record_fits_into_a_letter(value: bytes, key: bytes | None, detail: str, timestamp: int | None) -> None:
    record = Record("signer.v1", 3, 7, timestamp, key, value, (("name", b"x"),))
    letter = codec.decode(codec.encode(dead_letter.wrap(record, "trailing-bytes", detail, "signer-1")), DeadLetter)
    assert (letter.topic, letter.partition, letter.offset) == ("signer.v1", 3, 7)
    assert letter.value == value
    assert letter.key == (key or b"")[: dead_letter.MAX_KEY_BYTES]
    assert letter.value_length == len(value)
    assert letter.timestamp_ms == (-1 if timestamp is None else timestamp)


@pytest.mark.parametrize("size", [MAX_RECORD_BYTES - 1, MAX_RECORD_BYTES, 5 * MAX_RECORD_BYTES])
def test_a_letter_of_the_largest_record_can_be_written(size: int) -> None:
    value = bytes(size)
    record = Record("t" * 249, 65535, 2**62, 2**53, bytes(MAX_RECORD_BYTES), value)
    letter = dead_letter.wrap(record, "r" * 64, "\N{GRINNING FACE}" * 10_000, "signer-65535")
    assert len(codec.encode(letter)) <= MAX_RECORD_BYTES - 1024
    assert letter.value_length == size
    assert letter.value_sha256 == hashlib.sha256(value).digest()
    assert value.startswith(letter.value)


@pytest.mark.anyio
async def test_poison_ends_as_a_letter_with_its_bytes_and_where_it_stood(
    broker: Broker, client: Client, producer: Producer
) -> None:
    requests, letters = topics.requests(broker.prefix), topics.dead_letters(broker.prefix)
    broker.create([requests, letters])
    poison: list[Record] = []
    kept: list[Record] = []
    await client.tail({requests.name: End()}, poison.extend)
    await client.tail({letters.name: End()}, kept.extend)
    producer.send(requests.name, b"\xc3\x01 no such record", key=b"k", partition=11)
    await until(lambda: poison, "the poison")
    outcomes: list[Delivery] = []
    with pytest.raises(BadInput) as reason:
        codec.decode(poison[0].value, MsgToSign)
    error = reason.value
    dead_letter.send(producer, broker.prefix, poison[0], error.code, error.detail, "signer-1", outcomes.append)
    await until(lambda: kept and outcomes, "the letter")
    letter = codec.decode(kept[0].value, DeadLetter)
    assert (letter.topic, letter.partition, letter.offset) == (requests.name, 11, 0)
    assert (letter.value, letter.key) == (b"\xc3\x01 no such record", b"k")
    assert (letter.reason, letter.found_by) == (error.code, "signer-1")
    assert outcomes[0].error is None
