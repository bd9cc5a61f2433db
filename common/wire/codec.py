"""Records to bytes and back: Avro single-object encoding (Avro 1.12, "Single-object encoding").

    C3 01 | CRC-64-AVRO fingerprint of the writer's schema, 8 bytes little-endian | body

fastavro writes and reads the bytes, and reads what older versions wrote. Ours is what it does not do for the bytes of
strangers: the size is compared with the record's cap before anything is read; every byte has to be used; every length,
count, number and name is held to its bound (``common.wire.shapes``); only ``BadInput`` leaves ``decode``. ``encode``
holds our own values to the same bounds: what it lets out, ``decode`` takes.

A length or count that lies costs nothing: fastavro reads from memory, where no read gives more than there is, and no
array has items of no bytes. Many small items that are there cost time and memory before their number is compared with
the bound: so reading ends once a record had more reads than any of its kind inside the bounds takes (``READS``), and
what was made until then stays under 128 bytes for each byte received (a test measures it).

fastavro takes more than one encoding of a value: padded integers and integers of more than 64 bits, arrays in blocks,
255 for true, -1 for the last symbol of an enum or branch of a union. That is harmless where a signature is over the
bytes as received, or where nothing compares bytes. What is kept for ever (rosters, key records, the ceremony log)
has to have one form, so there the value, encoded again, must equal the input: ``not-canonical``.

The one importer of fastavro.
"""

import json
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any, Final, TypeVar, get_args

from fastavro import schemaless_reader, schemaless_writer
from fastavro.schema import fingerprint as fastavro_fingerprint
from fastavro.schema import parse_schema, to_parsing_canonical_form

import schemas
from common.errors import BadInput
from common.ids import BootId, RecordId, RequestId
from common.wire import messages as m
from common.wire.conversion import Shape
from common.wire.names import REPEATED_UUID, UUID
from common.wire.scalars import TOPIC
from common.wire.shapes import CAPS, SHAPES

T = TypeVar("T")

SCHEMA_LEVEL: Final = schemas.LEVEL
"""Goes into ``Presence.schema_level``."""

READS: Final[dict[type[Any], int]] = {
    **dict.fromkeys(SHAPES, 2**14),
    **dict.fromkeys((m.MsgSigned, m.NonceBatch, m.SignatureShares, m.Presence), 2**17),
    **dict.fromkeys((m.SignPackage, m.AuditEvent), 2**18),
}
"""Most reads of a record: one for each byte of a number, one for each fixed, two or more for each text. More than any
inside all bounds takes; several times as many fit into the largest record, and would take most of a second."""

_MARK: Final = b"\xc3\x01"
_HEADER_BYTES: Final = 10
_CEREMONY: Final[tuple[type[Any], ...]] = get_args(m.CeremonyRecord)
_PEER: Final[tuple[type[Any], ...]] = get_args(m.PeerMessage)


@dataclass(frozen=True, slots=True)
class _Format:
    kind: type[Any]
    header: bytes
    schema: Any
    shape: Shape[Any]
    cap: int
    reads: int
    canonical: bool
    """Whether only one encoding of a value is taken: what is kept for ever."""


def _without_logical_types(schema: Any) -> Any:
    """Logical types are for people and other tools; here they would only turn plain values into others and back."""
    if isinstance(schema, dict):
        return {key: _without_logical_types(value) for key, value in schema.items() if key != "logicalType"}
    if isinstance(schema, list):
        return [_without_logical_types(value) for value in schema]
    return schema


@cache
def _parse(text: str) -> Any:
    return parse_schema(_without_logical_types(json.loads(text)))


def fingerprint(schema: str) -> bytes:
    """Return the CRC-64-AVRO fingerprint, 8 bytes little-endian, of a schema given as JSON text."""
    return bytes.fromhex(fastavro_fingerprint(to_parsing_canonical_form(json.loads(schema)), "CRC-64-AVRO"))


def _format(kind: type[Any]) -> _Format:
    text = schemas.current(kind.__name__)
    return _Format(
        kind, _MARK + fingerprint(text), _parse(text), SHAPES[kind], CAPS[kind], READS[kind], kind in _CEREMONY
    )


_BY_KIND: Final[dict[type[Any], _Format]] = {kind: _format(kind) for kind in SHAPES}
_BY_HEADER: Final[dict[bytes, _Format]] = {entry.header: entry for entry in _BY_KIND.values()}
_BY_NAME: Final[dict[str, _Format]] = {entry.schema["name"]: entry for entry in _BY_KIND.values()}


def encode(message: m.Message) -> bytes:
    """Return the bytes of ``message``.

    Raises:
        BadInput: ``out-of-bounds`` with the field, or ``too-large``: nobody would take it.
    """
    entry = _BY_KIND[type(message)]
    data = _write(entry.header, entry.schema, entry.shape.write(message))
    if len(data) > entry.cap:
        raise _too_large(entry, data)
    return data


def decode(data: bytes, *expected: type[T]) -> T:
    """Return the record in ``data``, which is one of the ``expected`` classes.

    Raises:
        BadInput: ``not-single-object``, ``unknown-schema``, ``unexpected-record``, ``too-large``, ``truncated``,
            ``trailing-bytes``, ``not-canonical``, or ``out-of-bounds``, the last with the field where known.
    """
    if len(data) > m.MAX_RECORD_BYTES:
        raise BadInput("too-large", f"{len(data)} bytes, at most {m.MAX_RECORD_BYTES} are allowed")
    entry = _BY_HEADER.get(data[:_HEADER_BYTES])
    if entry is None:
        entry, writer = _older(data)
    else:
        writer = entry.schema
    if entry.kind not in expected:
        names = ", ".join(sorted(one.__name__ for one in expected))
        raise BadInput("unexpected-record", f"{entry.kind.__name__} does not belong here; expected {names}")
    if len(data) > entry.cap:
        raise _too_large(entry, data)
    plain = _read(data, writer, entry.reads)
    value = entry.shape.read(plain if writer is entry.schema else _resolve(plain, writer, entry.schema))
    if entry.canonical and _write(data[:_HEADER_BYTES], writer, plain) != data:
        raise BadInput("not-canonical", f"{entry.kind.__name__}: encoding it again gives other bytes")
    return value  # type: ignore[no-any-return]


def decode_ceremony(data: bytes) -> m.CeremonyRecord:
    """Return the ceremony record in ``data`` (the payload of an envelope). Raises as ``decode``."""
    record: m.CeremonyRecord = decode(data, *_CEREMONY)
    return record


def decode_peer(data: bytes) -> m.PeerMessage:
    """Return the record of a signing session in ``data`` (the payload of an envelope). Raises as ``decode``."""
    record: m.PeerMessage = decode(data, *_PEER)
    return record


def _too_large(entry: _Format, data: bytes) -> BadInput:
    return BadInput("too-large", f"{entry.kind.__name__} has {len(data)} bytes, at most {entry.cap} are allowed")


def _older(data: bytes) -> tuple[_Format, Any]:
    """Return the format, and the writer's schema, of a record that names a schema of the past."""
    if data[:2] != _MARK or len(data) < _HEADER_BYTES:
        raise BadInput("not-single-object", "does not begin as an Avro single object")
    text = schemas.history().get(data[2:_HEADER_BYTES])
    if text is None:
        raise BadInput("unknown-schema", f"no schema has the fingerprint {data[2:_HEADER_BYTES].hex()}")
    writer = _parse(text)
    entry = _BY_NAME.get(writer["name"])
    if entry is None:
        raise BadInput("unexpected-record", f"{writer['name']} is not a record of today")
    return entry, writer


# --- fastavro ---------------------------------------------------------------------------------------------------------


def _write(header: bytes, schema: Any, plain: Any) -> bytes:
    out = BytesIO()
    out.write(header)
    schemaless_writer(out, schema, plain)
    return out.getvalue()


class _Counted(BytesIO):
    """Gives up after so many reads."""

    def __init__(self, data: bytes, reads: int) -> None:
        super().__init__(data)
        self.left = reads

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise BadInput("out-of-bounds", "more values than a record of its kind may have")
        return super().read(size)


def _read(data: bytes, schema: Any, reads: int) -> Any:
    """Return the plain value after the header of ``data``; all of it."""
    if len(data) > reads:
        stream: BytesIO = _Counted(data, reads)
    else:
        # So few bytes do not hold much more than that, and counting would cost as well.
        stream = BytesIO(data)
    stream.seek(_HEADER_BYTES)
    # Not chained: what fastavro says may quote the input.
    try:
        plain = schemaless_reader(stream, schema, None, True)
    except BadInput:
        raise
    except UnicodeDecodeError:
        raise BadInput("out-of-bounds", "expected UTF-8") from None
    except IndexError:
        # A byte that should go on and is the last; or the number of a symbol or branch that the schema does not have.
        if stream.tell() == len(data) and data[-1] > 127:
            raise _truncated() from None
        raise BadInput("out-of-bounds", "no such symbol or branch") from None
    except Exception:  # noqa: BLE001 - what it happens upon: EOFError, KeyError, its own
        raise _truncated() from None
    if stream.tell() != len(data):
        raise BadInput("trailing-bytes", f"{len(data) - stream.tell()} bytes after the end of the record")
    return plain


def _truncated() -> BadInput:
    return BadInput("truncated", "the bytes end inside a value")


def _resolve(plain: Any, writer: Any, reader: Any) -> Any:
    """Return what ``plain``, read by an older schema, is by today's: Avro's schema resolution.

    Over bytes that are ours: what fastavro skips (a field that went) it reads by other rules than what it keeps.
    """
    stream = BytesIO(_write(b"", writer, plain))
    try:
        return schemaless_reader(stream, writer, reader, True)
    except Exception:  # noqa: BLE001 - its own, ValueError, KeyError
        raise BadInput("out-of-bounds", "an older schema's value that today's cannot hold") from None


# --- poison that can still be answered --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Addressee:
    """Where an error answer to a refused MsgToSign may go. Nothing in it was checked by signature."""

    record_id: RecordId
    instance_id: BootId
    reply_to: str
    request_ids: tuple[RequestId, ...]


def addressee(data: bytes) -> Addressee | None:
    """Return whom to tell that ``data`` was refused, if it has the form of a MsgToSign; bounds may be broken.

    The caller must hold ``reply_to`` against the pattern of response topics: anybody may have written it.
    """
    entry = _BY_KIND[m.MsgToSign]
    if len(data) > m.MAX_RECORD_BYTES or data[:_HEADER_BYTES] != entry.header:
        return None
    try:
        plain = _read(data, entry.schema, entry.reads)
        reply_to = TOPIC.read(plain["reply_to"])
    except BadInput:
        return None
    # More answers than one record may ask for would make us somebody's amplifier.
    if not 1 <= len(plain["items"]) <= m.MAX_ITEMS:
        return None
    return Addressee(
        record_id=RecordId(UUID.read(plain["record_id"])),
        instance_id=BootId(REPEATED_UUID.read(plain["instance_id"])),
        reply_to=reply_to,
        request_ids=tuple(dict.fromkeys(RequestId(UUID.read(item["request_id"])) for item in plain["items"])),
    )
