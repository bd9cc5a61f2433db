"""One value of every record, with something in every field; and records as other software would write them."""

import io
from typing import Any

import fastavro

import schemas
from common.ids import BootId, EdgeKeyId, Epoch, Index, Instant, KeyId, Offset, OpenId, RecordId, RequestId
from common.wire import codec
from common.wire import messages as m

BOOT = BootId("6f9619ff-8b86-4011-b42d-00c04fc964ff")
OTHER_BOOT = BootId("0f8fad5b-d9cb-469f-a165-70867728950e")
REQUEST = RequestId("7d444840-9dc0-41d1-b245-5ffdce74fad2")
RECORD = RecordId("e902893a-9d22-4c7e-a7b8-d6e313b71d9f")
NOW = Instant(1_760_000_000_000)
KEY = KeyId("default")
OPEN = OpenId(bytes(range(64)))
SCOPE = m.NonceScope(KEY, Offset(17))


def fill(byte: int, size: int) -> bytes:
    return bytes([byte]) * size


ITEM = m.SignItem(REQUEST, KEY, m.Mode.SIGN, b"a message", "anonymous", NOW, Instant(NOW + 5000))
MSG_TO_SIGN = m.MsgToSign(
    RECORD,
    (
        ITEM,
        m.SignItem(RequestId(OTHER_BOOT), KeyId("k-2"), m.Mode.REFRESH, b"", "Zoë, büro", NOW, Instant(NOW + 1)),
    ),
    "signer.v1.resp0",
    BOOT,
    EdgeKeyId("0123456789abcdef"),
    fill(7, 64),
)
SAMPLES: dict[type[Any], Any] = {
    type(value): value
    for value in (
        MSG_TO_SIGN,
        m.MsgSigned(
            RECORD,
            BOOT,
            (
                m.Outcome(REQUEST, m.Signed(fill(1, 64), KEY, Epoch(1), (Index(1), Index(3)))),
                m.Outcome(RequestId(OTHER_BOOT), m.Refused(m.RefusalCode.QUORUM_LOST, "1 of 2 seats is live", True)),
                m.Outcome(RequestId(RECORD), m.Accepted(KEY, Epoch(1))),
            ),
        ),
        m.NonceRequest((m.NonceWant(SCOPE, 256), m.NonceWant(m.NonceScope(KEY, Offset(-1), OPEN), 1))),
        m.NonceBatch((m.NonceGrant(SCOPE, Index(2), BOOT, 4096, (fill(2, 64), fill(3, 64))),)),
        m.SignPackage(
            (
                m.SignGroup(
                    SCOPE,
                    Epoch(1),
                    b"MsgToSign as received",
                    (Index(1), Index(2)),
                    (BOOT, OTHER_BOOT),
                    (m.SignSession(70_000, 1, (5, 300), (fill(4, 64), fill(5, 64))),),
                ),
                m.SignGroup(
                    m.NonceScope(KEY, Offset(-1), OPEN),
                    Epoch(2),
                    b"",
                    (Index(2), Index(3)),
                    (BOOT, OTHER_BOOT),
                    (m.SignSession(70_001, 0, (0, 0), (fill(4, 64), fill(5, 64))),),
                ),
            )
        ),
        m.SignatureShares((m.Share(1, fill(6, 32), fill(7, 32)), m.Declined(2, m.DeclineReason.NO_NONCE))),
        m.Presence(
            NOW,
            12,
            Instant(NOW + 6000),
            m.ReplicaState.READY,
            False,
            1,
            (0, 4, 8),
            3,
            2,
            512,
            (m.KeyPresence(KEY, Epoch(1), True, "deal", 1, (Index(3),), NOW, Instant(0), Offset(9), fill(8, 64)),),
            -3,
        ),
        m.Envelope(
            m.Role.SIGNER,
            1,
            BOOT,
            "demo.signer.v1.ceremony",
            Offset(4),
            fill(9, 64),
            b"an encoded record",
            fill(10, 64),
        ),
        m.Roster(
            2,
            1,
            0,
            (m.Seat(Index(1), fill(11, 32)), m.Seat(Index(2), fill(12, 32))),
            (m.RosterKey(KEY, 2, fill(13, 32)), m.RosterKey(KeyId("next"), 2, b"")),
            (fill(14, 32),),
            (b"an encoded key record",),
            fill(15, 64),
        ),
        m.KeyRecord(
            KEY,
            Epoch(1),
            OPEN,
            2,
            fill(16, 32),
            (m.VerificationShare(Index(1), fill(17, 32)), m.VerificationShare(Index(2), fill(18, 32))),
            b"an encoded roster",
            Offset(12),
            fill(19, 64),
            (b"an envelope", b"another"),
            fill(20, 64),
        ),
        m.Open(KEY, m.CeremonyKind.RESHARE, Epoch(1), 1, 2, m.OpenReason.REQUEST, fill(21, 32), b"a MsgToSign"),
        m.Announce(OPEN, fill(22, 32), fill(23, 64), fill(24, 64)),
        m.Deal(
            OPEN,
            (fill(25, 32), fill(26, 32)),
            fill(27, 64),
            fill(28, 32),
            fill(29, 64),
            (m.SealedSubShare(Index(1), fill(30, 48)), m.SealedSubShare(Index(2), fill(31, 48))),
        ),
        m.Verdict(OPEN, (m.Complaint(Index(2), fill(32, 32), fill(33, 64)),)),
        m.Ready(OPEN, KEY, Epoch(2), fill(34, 64), (Index(1), Index(2)), fill(35, 32), fill(36, 64), fill(37, 64)),
        m.PhaseVote(OPEN, m.Phase.COMMIT),
        m.Erased(KEY, Epoch(1)),
        m.HealRequest(KEY, Epoch(2)),
        m.AuditEvent(
            RECORD,
            (
                m.AuditEntry(
                    m.AuditKind.BLAME,
                    NOW,
                    REQUEST,
                    "anonymous",
                    KEY,
                    Epoch(1),
                    fill(38, 32),
                    (Index(2),),
                    "bad-share",
                    "seat 2 sent a share that does not verify",
                    (b"its nonce batch", b"the package", b"the share"),
                ),
            ),
        ),
        m.DeadLetter(
            "signer.v1",
            3,
            Offset(99),
            NOW,
            "truncated",
            "the bytes end inside a value",
            "signer-1",
            b"k",
            b"v",
            1,
            fill(39, 32),
        ),
    )
}

PLAIN = {name: codec._parse(schemas.current(name)) for name in schemas.names()}


def fastavro_read(name: str, body: bytes) -> Any:
    stream = io.BytesIO(body)
    value = fastavro.schemaless_reader(stream, PLAIN[name], None, return_record_name=True)
    assert stream.read() == b""
    return value


def fastavro_write(name: str, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, PLAIN[name], value)
    return out.getvalue()


def long(value: int) -> bytes:
    """An Avro ``long``: how numbers, lengths and counts are written."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", value)
    return out.getvalue()


def header(name: str) -> bytes:
    return b"\xc3\x01" + codec.fingerprint(schemas.current(name))


def forged(kind: type[Any], path: str, value: Any) -> bytes:
    """The sample of ``kind`` with another value at ``path``, written by software that knows Avro but no bounds."""
    name = kind.__name__
    whole = fastavro_read(name, codec.encode(SAMPLES[kind])[10:])
    *parents, last = path.split(".")
    place = whole
    for step in parents:
        place = place[int(step)] if step.isdigit() else place[step]
        if isinstance(place, tuple):
            place = place[1]
    place[last] = value(place[last]) if callable(value) else value
    return header(name) + fastavro_write(name, whole)
