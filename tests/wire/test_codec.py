"""Records to bytes and back, and what happens to bytes that somebody else made."""

import json
import time
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import schemas
from common.errors import BadInput
from common.ids import EdgeKeyId, Epoch, Index, KeyId, RecordId, RequestId
from common.wire import codec
from common.wire import messages as m
from common.wire.shapes import CAPS, SHAPES
from tests.wire.plain import named_types
from tests.wire.samples import (
    BOOT,
    ITEM,
    KEY,
    MSG_TO_SIGN,
    NOW,
    OPEN,
    RECORD,
    REQUEST,
    SAMPLES,
    SCOPE,
    fastavro_read,
    fill,
    forged,
    header,
    long,
)

KINDS = list(SHAPES)
CANONICAL = frozenset(get_args(m.CeremonyRecord))
EVERY = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def refusal(data: bytes, *expected: type[Any]) -> BadInput:
    with pytest.raises(BadInput) as caught:
        codec.decode(data, *expected)
    return caught.value


# --- there and back ---------------------------------------------------------------------------------------------------


@EVERY
def test_what_is_encoded_is_decoded(kind: type[Any]) -> None:
    assert codec.decode(codec.encode(SAMPLES[kind]), kind) == SAMPLES[kind]


def test_the_fingerprint_is_little_endian_crc_64_avro() -> None:
    # Avro 1.12, "Schema fingerprints": the CRC-64-AVRO of "null" is 0x63dd24e7cc258f8a.
    assert codec.fingerprint('"null"') == 0x63DD24E7CC258F8A.to_bytes(8, "little")


@given(st.integers(0, 2**53 - 1))
@settings(max_examples=100)
def test_every_number_comes_back(value: int) -> None:
    message = m.SignatureShares((m.Share(value, fill(1, 32), fill(2, 32)),))

    assert codec.decode(codec.encode(message), m.SignatureShares) == message


# --- bytes of strangers -----------------------------------------------------------------------------------------------


def holds(kind: type[Any], data: bytes) -> None:
    """``data`` is refused, or a value inside all bounds; and of what is kept for ever, its one encoding."""
    try:
        value = codec.decode(data, kind)
    except BadInput:
        return
    again = codec.encode(value)
    assert codec.decode(again, kind) == value
    if kind in CANONICAL:
        assert again == data


@given(st.sampled_from(KINDS), st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_no_bytes_make_the_decoder_raise_anything_but_bad_input(kind: type[Any], body: bytes) -> None:
    holds(kind, body)
    holds(kind, header(kind.__name__) + body)


@given(st.data(), st.sampled_from(KINDS))
@settings(max_examples=200, deadline=None)
def test_a_damaged_record_is_refused_or_another_value_inside_the_bounds(data: st.DataObject, kind: type[Any]) -> None:
    raw = bytearray(codec.encode(SAMPLES[kind]))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(10, len(raw) - 1))
        what = data.draw(st.sampled_from(("set", "insert", "cut")))
        if what == "set":
            raw[at] = data.draw(st.integers(0, 255))
        elif what == "insert":
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        else:
            del raw[at:]
            break
    holds(kind, bytes(raw))


@EVERY
def test_no_byte_of_a_record_can_be_set_to_raise_anything_but_bad_input(kind: type[Any]) -> None:
    raw = codec.encode(SAMPLES[kind])

    for at in range(10, len(raw)):
        for byte in (0x00, 0x01, 0x03, 0x7F, 0x80, 0xFF):
            holds(kind, raw[:at] + bytes([byte]) + raw[at + 1 :])


@EVERY
def test_every_cut_is_refused(kind: type[Any]) -> None:
    raw = codec.encode(SAMPLES[kind])

    for size in range(10, len(raw)):
        assert refusal(raw[:size], kind).code == "truncated"
    for size in range(10):
        assert refusal(raw[:size], kind).code == "not-single-object"


@EVERY
def test_bytes_after_the_end_are_refused(kind: type[Any]) -> None:
    assert refusal(codec.encode(SAMPLES[kind]) + b"\x00", kind).code == "trailing-bytes"


def test_a_schema_that_nobody_wrote_is_refused() -> None:
    assert refusal(b"\xc3\x01" + bytes(8) + b"anything", m.Erased).code == "unknown-schema"


def test_a_record_that_does_not_belong_here_is_refused() -> None:
    raw = codec.encode(SAMPLES[m.Erased])

    assert refusal(raw, m.HealRequest, m.Open).code == "unexpected-record"
    assert codec.decode(raw, m.HealRequest, m.Erased) == SAMPLES[m.Erased]


def test_ceremony_and_peer_records_are_told_apart() -> None:
    assert codec.decode_ceremony(codec.encode(SAMPLES[m.Deal])) == SAMPLES[m.Deal]
    assert codec.decode_peer(codec.encode(SAMPLES[m.NonceBatch])) == SAMPLES[m.NonceBatch]
    with pytest.raises(BadInput, match="unexpected-record"):
        codec.decode_ceremony(codec.encode(SAMPLES[m.NonceBatch]))
    with pytest.raises(BadInput, match="unexpected-record"):
        codec.decode_peer(codec.encode(SAMPLES[m.Deal]))


@EVERY
def test_size_is_capped_before_anything_is_read(kind: type[Any]) -> None:
    assert refusal(header(kind.__name__) + b"\xff" * (CAPS[kind] - 9), kind).code == "too-large"
    assert refusal(bytes(m.MAX_RECORD_BYTES + 1), kind).code == "too-large"


def test_we_do_not_send_what_nobody_would_take() -> None:
    items = tuple(
        replace(ITEM, request_id=RequestId(f"00000000-0000-0000-0000-{n:012x}"), message=bytes(m.MAX_MESSAGE_BYTES))
        for n in range(8)
    )
    with pytest.raises(BadInput, match="too-large"):
        codec.encode(replace(MSG_TO_SIGN, items=items))
    assert codec.encode(replace(MSG_TO_SIGN, items=items[:7]))


# --- what is malformed, and what is a second way to say the same ------------------------------------------------------

assert codec.encode(SAMPLES[m.Erased])[10:] == b"\x0edefault\x02"
DECLINED = b"\x02\x02\x02\x02"  # one block of one: branch 1, session 1, symbol 1


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        (m.Erased, b"\x0edefault" + b"\xff" * 9 + b"\x7f", "out-of-bounds"),  # more than 64 bits
        (m.Erased, b"\x0edefault" + b"\xff" * 9, "truncated"),
        (m.Erased, b"\x0edefault" + b"\xff" * 10_000, "truncated"),  # no end in sight
        (m.Erased, b"\x0edefault" + b"\xff" * 200_000, "out-of-bounds"),  # given up before the end comes in sight
        (m.Erased, b"\x0ddefault\x02", "truncated"),  # a negative length
        (m.Erased, b"\xfe\xff\xff\xff\x0fdefault\x02", "truncated"),  # 2**31 - 1 bytes
        (m.Erased, b"\x0edefa\xfflt\x02", "out-of-bounds"),  # not UTF-8
        (m.PhaseVote, OPEN + b"\x0a", "out-of-bounds"),  # symbol 5 of 0..4
        (m.PhaseVote, OPEN + b"\x0b", "out-of-bounds"),  # symbol -6
        (m.PhaseVote, OPEN + b"\x80", "truncated"),
        (m.SignatureShares, b"\x02\x04\x02\x02\x00", "out-of-bounds"),  # branch 2 of 0..1
        (m.SignatureShares, b"\x02\x05\x02\x02\x00", "out-of-bounds"),  # branch -3
        (m.SignatureShares, b"\x04" + DECLINED[1:] + b"\x00", "truncated"),  # two, says the count
        (m.SignatureShares, b"\x00", "out-of-bounds"),  # no answer at all
        (m.SignatureShares, DECLINED * 2 + b"\x00", "out-of-bounds"),  # one answer twice, over two blocks
    ],
)
def test_what_is_malformed_is_refused(kind: type[Any], body: bytes, code: str) -> None:
    assert refusal(header(kind.__name__) + body, kind).code == code


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (m.Erased, b"\x8e\x00default\x02"),  # a padded length
        (m.Erased, b"\x0edefault\x82\x80\x00"),  # a padded epoch
        (m.Erased, b"\x0edefault\x82" + b"\x80" * 9 + b"\x02"),  # bits beyond the 64th
        (m.PhaseVote, OPEN + b"\x01"),  # symbol -1
        (m.Verdict, OPEN + b"\x01\x08" + b"\x04" + fill(1, 96) + b"\x00"),  # a block with a size, and a wrong one
        (m.Verdict, OPEN + b"\x02\x04" + fill(1, 96) + b"\x02\x06" + fill(1, 96) + b"\x00"),  # two blocks
        (m.Verdict, OPEN + b"\xff" * 9 + b"\x01" + b"\x00\x00"),  # -2**63 items, of size 0
    ],
)
def test_a_second_way_to_write_what_is_kept_for_ever_is_refused(kind: type[Any], body: bytes) -> None:
    assert refusal(header(kind.__name__) + body, kind).code == "not-canonical"


def test_rosters_ceremony_and_key_records_have_one_encoding_and_no_others_need_it() -> None:
    for kind in KINDS:
        name = kind.__name__
        raw = codec.encode(SAMPLES[kind])
        padded = [
            data
            for at in range(10, len(raw))
            if raw[at] < 128 and fastavro_equal(name, raw, data := raw[:at] + bytes([raw[at] | 128, 0]) + raw[at + 1 :])
        ]
        for data in padded:
            if kind in CANONICAL:
                assert refusal(data, kind).code == "not-canonical"
            else:
                assert codec.decode(data, kind) == SAMPLES[kind]
        assert padded, "every record has a length or a number somewhere"


def fastavro_equal(name: str, raw: bytes, data: bytes) -> bool:
    """Whether another reader finds the same in ``data`` as in ``raw``."""
    try:
        return bool(fastavro_read(name, raw[10:]) == fastavro_read(name, data[10:]))
    except Exception:  # noqa: BLE001 - whatever it happens upon
        return False


def test_every_byte_but_zero_is_true_and_signed_as_it_came() -> None:
    message = m.MsgSigned(RECORD, BOOT, (m.Outcome(REQUEST, m.Refused(m.RefusalCode.EXPIRED, "", True)),))
    raw = codec.encode(message)
    assert raw[-2:] == b"\x01\x00"

    assert codec.decode(raw[:-2] + b"\xff\x00", m.MsgSigned) == message


def test_a_signature_is_the_last_64_bytes_of_whatever_was_accepted() -> None:
    # Padding, blocks and bits beyond the 64th move everything before it, never its place: ``signatures`` relies on it.
    for kind, name in ((m.MsgToSign, "edge_signature"), (m.Envelope, "signature"), (m.Roster, "signature")):
        raw = codec.encode(SAMPLES[kind])
        assert getattr(codec.decode(raw, kind), name) == raw[-64:]
    raw = codec.encode(replace(MSG_TO_SIGN, items=(ITEM,)))
    block = raw[:26] + b"\x01\x00" + raw[27:]
    assert codec.decode(block, m.MsgToSign).edge_signature == block[-64:]


# --- a lie about a length costs nothing -------------------------------------------------------------------------------


@EVERY
def test_a_lying_length_or_count_allocates_nothing(kind: type[Any]) -> None:
    raw = codec.encode(SAMPLES[kind])
    schemas.history()
    tracemalloc.start()
    started = time.process_time()
    for lie in (2**20, 2**30, 2**40, 2**62, -(2**62), -(2**63)):
        for at in range(10, min(len(raw), 110)):
            data = raw[:at] + long(lie) + raw[at + 1 :][:100]
            with suppress(BadInput):  # inside a hash or a counter it is no lie
                codec.decode(data, kind)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2_000_000
    assert time.process_time() - started < 5


def test_no_array_has_items_of_no_bytes() -> None:
    # A count of 2**62 ends with the bytes only if each item takes some.
    for name in schemas.names():
        named = named_types(json.loads(schemas.current(name)))
        for one in list(named.values()):
            for field in one.get("fields", ()):
                kind = field["type"]
                if isinstance(kind, dict) and kind["type"] == "array":
                    assert smallest(kind["items"], named) > 0


def smallest(schema: Any, named: dict[str, Any]) -> int:
    """The fewest bytes that a value of ``schema`` takes."""
    if isinstance(schema, list):
        return 1 + min(smallest(one, named) for one in schema)
    if isinstance(schema, str):
        return smallest(named[schema], named) if schema in named else int(schema != "null")
    if schema["type"] == "record":
        return sum(smallest(field["type"], named) for field in schema["fields"])
    return int(schema.get("size", 1))


CROWD_BYTES = 64 * 1024
"""Less than any cap, and far more than what is there once for a record: what each byte costs is the same in larger."""


def crowded(kind: type[Any], before: bytes, item: bytes, after: bytes, size: int) -> bytes:
    """A record of about that size, in which as many small items stand as there is place for."""
    count = (size - 10 - len(before) - len(after) - 6) // len(item)
    return header(kind.__name__) + before + long(count) + item * count + b"\x00" + after


CROWDS = [
    (m.MsgToSign, bytes(16), bytes(22), bytes(1 + 16 + 8 + 64)),
    (m.NonceRequest, b"", bytes(4), b""),
    (m.SignPackage, b"", bytes(8), b""),
    (m.SignatureShares, b"", b"\x02\x00\x00", b""),
    (m.Presence, long(NOW) + b"\x00" + long(NOW) + bytes(7), bytes(10), b"\x00"),
    (m.Roster, b"\x02\x02\x00\x00", bytes(3), bytes(2 + 64)),
    (m.AuditEvent, b"\x00", bytes(11), b""),
    (m.KeyRecord, b"\x02k\x02" + bytes(64 + 1 + 32 + 1 + 1 + 1 + 64), b"\x04kk", bytes(64)),
]
CROWDED = pytest.mark.parametrize(
    ("kind", "before", "item", "after"), CROWDS, ids=lambda value: value.__name__ if isinstance(value, type) else ""
)


@CROWDED
def test_many_small_items_cost_in_proportion_to_their_bytes(
    kind: type[Any], before: bytes, item: bytes, after: bytes
) -> None:
    data = crowded(kind, before, item, after, CROWD_BYTES)
    tracemalloc.start()
    error = refusal(data, kind)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert error.code == "out-of-bounds"
    assert peak < 128 * len(data)


@CROWDED
def test_no_more_values_are_read_than_a_record_of_its_kind_may_have(
    kind: type[Any], before: bytes, item: bytes, after: bytes
) -> None:
    data = crowded(kind, before, item, after, CAPS[kind])
    assert len(data) > codec.READS[kind]
    assert "more values than" in str(refusal(data, kind).detail)


def test_values_in_many_blocks_are_counted_together() -> None:
    block = long(200) + bytes(4) * 200
    error = refusal(header("NonceRequest") + block * 300 + b"\x00", m.NonceRequest)
    assert "more values than" in str(error.detail)


def test_the_records_with_the_most_values_are_taken() -> None:
    big, many = 2**53 - 1, range(1, 256)
    package = SAMPLES[m.SignPackage]
    for n, count in ((2, 4096), (3, 3400)):
        sessions = tuple(m.SignSession(big - k, 63, (big,) * n, (fill(1, 64),) * n) for k in range(count))
        group = replace(
            next(group for group in package.groups if group.request),
            epoch=Epoch(big),
            signers=tuple(Index(seat) for seat in range(65536 - n, 65536)),
            boots=(BOOT,) * n,
            sessions=sessions,
        )
        taken(replace(package, groups=(group,)))
    taken(m.SignatureShares(tuple(m.Share(big - k, fill(1, 32), fill(2, 32)) for k in range(3500))))
    seats = tuple(Index(65535 - k) for k in reversed(many))
    record, presence = SAMPLES[m.KeyRecord], SAMPLES[m.Presence]
    shares = tuple(m.VerificationShare(seat, fill(1, 32)) for seat in seats)
    taken(replace(record, verification_shares=shares, attestations=tuple(bytes([k]) * 800 for k in many)))
    taken(replace(SAMPLES[m.Roster], seats=tuple(m.Seat(seat, fill(1, 32)) for seat in seats)))
    taken(replace(presence, keys=(replace(presence.keys[0], awaited=seats),) * 64))
    signed = next(each for each in SAMPLES[m.MsgSigned].outcomes if isinstance(each.result, m.Signed))
    ids = [RequestId(f"00000000-0000-0000-0000-{n:012x}") for n in range(64)]
    outcomes = tuple(replace(signed, request_id=each, result=replace(signed.result, signers=seats)) for each in ids)
    taken(replace(SAMPLES[m.MsgSigned], outcomes=outcomes))


def taken(message: Any) -> None:
    assert codec.decode(codec.encode(message), type(message)) == message


# --- bounds -----------------------------------------------------------------------------------------------------------


def twice(values: list[Any]) -> list[Any]:
    return [values[0], values[0]]


@pytest.mark.parametrize(
    ("kind", "path", "value", "field"),
    [
        (m.MsgToSign, "items", [], "items"),
        (m.MsgToSign, "items", lambda items: items[:1] * 65, "items"),
        (m.MsgToSign, "items", twice, "items.request_id"),
        (m.MsgToSign, "items.0.message", bytes(m.MAX_MESSAGE_BYTES + 1), "items.message"),
        (m.MsgToSign, "items.1.message", b"with a refresh", "items.message"),
        (m.MsgToSign, "items.0.key_id", "Upper", "items.key_id"),
        (m.MsgToSign, "items.0.key_id", "", "items.key_id"),
        (m.MsgToSign, "items.0.key_id", "k" * 64, "items.key_id"),
        (m.MsgToSign, "items.0.key_id", "default\n", "items.key_id"),
        (m.MsgToSign, "items.0.principal", "", "items.principal"),
        (m.MsgToSign, "items.0.principal", "p" * 129, "items.principal"),
        (m.MsgToSign, "items.0.principal", "p\nforged log line", "items.principal"),
        (m.MsgToSign, "items.0.principal", "\x1b[31m", "items.principal"),
        (m.MsgToSign, "items.0.created_ms", 0, "items.created_ms"),
        (m.MsgToSign, "items.0.deadline_ms", -1, "items.deadline_ms"),
        (m.MsgToSign, "items.0.deadline_ms", -1_760_000_000_000, "items.deadline_ms"),
        (m.MsgToSign, "items.0.deadline_ms", 2**53, "items.deadline_ms"),
        (m.MsgToSign, "reply_to", "", "reply_to"),
        (m.MsgToSign, "reply_to", "a topic", "reply_to"),
        (m.MsgToSign, "reply_to", "t" * 250, "reply_to"),
        (m.MsgSigned, "outcomes", [], "outcomes"),
        (m.MsgSigned, "outcomes", twice, "outcomes.request_id"),
        (m.MsgSigned, "outcomes.0.result.epoch", 0, "outcomes.result.epoch"),
        (m.MsgSigned, "outcomes.0.result.signers", [], "outcomes.result.signers"),
        (m.MsgSigned, "outcomes.0.result.signers", [0, 1], "outcomes.result.signers"),
        (m.MsgSigned, "outcomes.0.result.signers", [2, 1], "outcomes.result.signers"),
        (m.MsgSigned, "outcomes.0.result.signers", [1, 1], "outcomes.result.signers"),
        (m.MsgSigned, "outcomes.0.result.signers", [65536], "outcomes.result.signers"),
        (m.MsgSigned, "outcomes.1.result.detail", "d" * 513, "outcomes.result.detail"),
        (m.NonceRequest, "wants", [], "wants"),
        (m.NonceRequest, "wants.0.count", 0, "wants.count"),
        (m.NonceRequest, "wants.0.count", 257, "wants.count"),
        (m.NonceRequest, "wants.0.scope.commit_offset", -1, "wants.scope.open_id"),
        (m.NonceRequest, "wants.1.scope.commit_offset", 5, "wants.scope.open_id"),
        (m.NonceRequest, "wants.0.scope.commit_offset", -2, "wants.scope.commit_offset"),
        (m.NonceRequest, "wants.1.scope.open_id", bytes(63), "wants.scope.open_id"),
        (m.NonceBatch, "grants.0.coordinator", 0, "grants.coordinator"),
        (m.NonceBatch, "grants.0.first_counter", -1, "grants.first_counter"),
        (m.NonceBatch, "grants.0.commitments", [], "grants.commitments"),
        (m.NonceBatch, "grants.0.commitments", lambda c: c[:1] * 257, "grants.commitments"),
        (m.SignPackage, "groups", [], "groups"),
        (m.SignPackage, "groups", twice, "groups.sessions.session_id"),
        (m.SignPackage, "groups.0.request", b"", "groups.request"),
        (m.SignPackage, "groups.1.request", b"a request", "groups.request"),
        (m.SignPackage, "groups.0.request", bytes(m.MAX_MSG_TO_SIGN_BYTES + 1), "groups.request"),
        (m.SignPackage, "groups.0.signers", [2, 1], "groups.signers"),
        (m.SignPackage, "groups.0.boots", lambda b: b[:1], "groups.boots"),
        (m.SignPackage, "groups.0.sessions.0.item", 64, "groups.sessions.item"),
        (m.SignPackage, "groups.0.sessions.0.counters", [1], "groups.sessions.counters"),
        (m.SignPackage, "groups.0.sessions.0.commitments", lambda c: c * 2, "groups.sessions.commitments"),
        (m.SignatureShares, "answers", [], "answers"),
        (m.SignatureShares, "answers", twice, "answers.session_id"),
        (m.Presence, "partitions", [4, 0], "partitions"),
        (m.Presence, "schema_level", 0, "schema_level"),
        (m.Presence, "in_flight", -1, "in_flight"),
        (m.Presence, "keys.0.phase", "no such Phase!", "keys.phase"),
        (m.Presence, "keys.0.fold_hash", bytes(32), "keys.fold_hash"),
        (m.Presence, "keys.0.awaited", [0], "keys.awaited"),
        (m.Envelope, "index", 0, "index"),
        (m.Envelope, "index", 65536, "index"),
        (m.Envelope, "topic", "", "topic"),
        (m.Envelope, "seen_offset", -2, "seen_offset"),
        (m.Envelope, "seen_hash", b"", "seen_hash"),
        (m.Envelope, "seen_hash", bytes(32), "seen_hash"),
        (m.Envelope, "payload", b"", "payload"),
        (m.Roster, "version", 0, "version"),
        (m.Roster, "protocol_version", 0, "protocol_version"),
        (m.Roster, "seats", [], "seats"),
        (m.Roster, "seats.0.index", 0, "seats.index"),
        (m.Roster, "keys.0.public_key", bytes(31), "keys.public_key"),
        (m.KeyRecord, "epoch", 0, "epoch"),
        (m.KeyRecord, "verification_shares", [], "verification_shares"),
        (m.KeyRecord, "verification_shares.0.index", 0, "verification_shares.index"),
        (m.KeyRecord, "attestations", [], "attestations"),
        (m.KeyRecord, "log_offset", -1, "log_offset"),
        (m.Open, "from_epoch", -1, "from_epoch"),
        (m.Open, "evidence", b"", "evidence"),
        (m.Open, "reason", "SCHEDULE", "evidence"),
        (m.Announce, "share_proof", bytes(63), "share_proof"),
        (m.Deal, "commitments", [], "commitments"),
        (m.Deal, "constant_proof", bytes(1), "constant_proof"),
        (m.Deal, "sealed", twice, "sealed"),
        (m.Deal, "sealed.0.recipient", 0, "sealed.recipient"),
        (m.Verdict, "complaints", twice, "complaints"),
        (m.Ready, "qualified", [], "qualified"),
        (m.Ready, "epoch", 0, "epoch"),
        (m.Erased, "epoch", 0, "epoch"),
        (m.HealRequest, "epoch", 2**53, "epoch"),
        (m.AuditEvent, "entries", [], "entries"),
        (m.AuditEvent, "entries.0.message_sha256", bytes(31), "entries.message_sha256"),
        (m.AuditEvent, "entries.0.detail", "two\nlines", "entries.detail"),
        (m.DeadLetter, "detail", "d" * 513, "detail"),
        (m.DeadLetter, "partition", -1, "partition"),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_the_field(kind: type[Any], path: str, value: Any, field: str) -> None:
    error = refusal(forged(kind, path, value), kind)

    assert (error.code, error.field) == ("out-of-bounds", field)


@pytest.mark.parametrize(
    "message",
    [
        replace(MSG_TO_SIGN, record_id=RecordId(RECORD.upper())),
        replace(MSG_TO_SIGN, record_id=RecordId(RECORD + "\n")),
        replace(MSG_TO_SIGN, edge_key_id=EdgeKeyId("0123456789ABCDEF")),
        replace(MSG_TO_SIGN, items=(replace(ITEM, principal="\ud800"),)),
        replace(MSG_TO_SIGN, edge_signature=bytes(63)),
        m.NonceBatch((m.NonceGrant(SCOPE, Index(2), BOOT, 0, (fill(2, 64), fill(3, 63))),)),
        m.Erased(KeyId("no spaces"), Epoch(1)),
        m.Ready(OPEN, KEY, Epoch(1), fill(1, 64), (Index(2), Index(1)), fill(1, 32), fill(1, 64), fill(1, 64)),
    ],
)
def test_we_hold_our_own_values_to_the_same_bounds(message: Any) -> None:
    with pytest.raises(BadInput) as caught:
        codec.encode(message)
    assert caught.value.code == "out-of-bounds"
    assert caught.value.field is not None


# --- what older versions wrote ----------------------------------------------------------------------------------------


def test_every_schema_of_the_past_is_read_by_todays_reader() -> None:
    kinds = {kind.__name__: kind for kind in KINDS}
    for fingerprint, text in schemas.history().items():
        name = json.loads(text)["name"]
        # Today's value, as far as the old schema had it.
        body = fastavro_write_by(text, fastavro_read(name, codec.encode(SAMPLES[kinds[name]])[10:]))
        value = codec.decode(b"\xc3\x01" + fingerprint + body, kinds[name])
        assert type(value) is kinds[name]
        assert codec.encode(value)


def fastavro_write_by(text: str, value: Any) -> bytes:
    return codec._write(b"", codec._parse(text), value)


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A schema of Erased as it might have been: the epoch an int, and a note that went. Returns its header."""
    schema = json.loads(schemas.current("Erased"))
    schema["fields"][1]["type"] = "int"
    schema["fields"].append({"name": "note", "type": "string", "default": "", "doc": "Why."})
    text = json.dumps(schema)
    fingerprint = codec.fingerprint(text)
    monkeypatch.setattr(schemas, "history", lambda: {fingerprint: text})
    return b"\xc3\x01" + fingerprint


def test_an_older_record_is_read_by_schema_resolution(older: bytes) -> None:
    assert codec.decode(older + b"\x0edefault\x06\x02x", m.Erased) == m.Erased(KEY, Epoch(3))
    assert refusal(older + b"\x0edefault\x06\x02x", m.HealRequest).code == "unexpected-record"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\x0edefault\x06\x02", "truncated"),
        (b"\x0edefault\x06\x02xy", "trailing-bytes"),
        (b"\x0edefault\x86\x00\x02x", "not-canonical"),
        (b"\x0eDEFAULT\x06\x02x", "out-of-bounds"),
        (b"\x0edefault\x00\x02x", "out-of-bounds"),
        (bytes(m.MAX_RECORD_BYTES - 9), "too-large"),
    ],
)
def test_an_older_record_is_held_to_the_same_rules(older: bytes, body: bytes, code: str) -> None:
    assert refusal(older + body, m.Erased).code == code


def test_what_a_schema_lost_is_skipped_as_it_was_read_not_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    # A block of an array may name its own size. A reader of the array ignores it; one that skips the array trusts it,
    # and would find the epoch among the items.
    schema = json.loads(schemas.current("HealRequest"))
    schema["fields"].insert(1, {"name": "gone", "type": {"type": "array", "items": "long"}, "default": [], "doc": "?"})
    text = json.dumps(schema)
    monkeypatch.setattr(schemas, "history", lambda: {codec.fingerprint(text): text})
    monkeypatch.setattr(codec, "_BY_NAME", {k: replace(v, canonical=False) for k, v in codec._BY_NAME.items()})
    block = b"\x03" + b"\x00" + b"\x00\x0a"  # two items, 0 and 5, of "0 bytes"

    value = codec.decode(b"\xc3\x01" + codec.fingerprint(text) + b"\x0edefault" + block + b"\x00\x06", m.HealRequest)

    assert value == m.HealRequest(KEY, Epoch(3))


@given(st.binary(max_size=60))
@settings(max_examples=50, deadline=None)
def test_no_bytes_of_an_older_schema_raise_anything_but_bad_input(body: bytes) -> None:
    schema = json.loads(schemas.current("MsgSigned"))
    schema["fields"].append({"name": "note", "type": "string", "default": "", "doc": "Why."})
    text = json.dumps(schema)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schemas, "history", lambda: {codec.fingerprint(text): text})
        with pytest.raises(BadInput):
            codec.decode(b"\xc3\x01" + codec.fingerprint(text) + body, m.MsgSigned)


# --- poison that can be answered --------------------------------------------------------------------------------------


def test_the_sender_of_a_request_out_of_bounds_can_be_told() -> None:
    poison = forged(m.MsgToSign, "items.0.message", bytes(m.MAX_MESSAGE_BYTES + 1))

    to = codec.addressee(poison)

    assert to == codec.Addressee(RECORD, BOOT, "signer.v1.resp0", tuple(i.request_id for i in MSG_TO_SIGN.items))


@pytest.mark.parametrize("items", [lambda items: items[:1] * 65, []])
def test_nobody_is_told_of_more_items_than_a_record_may_have(items: Any) -> None:
    assert codec.addressee(forged(m.MsgToSign, "items", items)) is None


@given(st.binary(max_size=120))
@settings(max_examples=100)
def test_garbage_has_no_addressee(body: bytes) -> None:
    assert codec.addressee(body) is None
    assert codec.addressee(header("MsgToSign") + body[:60]) is None
    assert codec.addressee(codec.encode(SAMPLES[m.Erased])) is None
