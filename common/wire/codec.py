"""Records to bytes and back: Avro single-object encoding (Avro 1.12, "Single-object encoding").

    C3 01 | CRC-64-AVRO fingerprint of the writer's schema, 8 bytes little-endian | body

``decode`` takes what anybody may have sent. It compares the size with the record's cap before it looks inside, reads
by ``common.wire.shapes`` (each value has one encoding, each length a bound), and wants every byte used. Only
``BadInput`` leaves it. ``encode`` holds our own values against the same bounds: what it lets out, ``decode`` takes.

The one importer of fastavro, which gives the fingerprints and reads what older versions wrote.
"""

import io
import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar, get_args

import fastavro
from fastavro.schema import fingerprint as fastavro_fingerprint
from fastavro.schema import parse_schema, to_parsing_canonical_form

import schemas
from common.errors import BadInput
from common.ids import BootId, RecordId, RequestId
from common.wire import messages as m
from common.wire.avro import Shape
from common.wire.shapes import CAPS, LOOSE_REQUEST, SHAPES

T = TypeVar("T")

SCHEMA_LEVEL: Final = schemas.LEVEL
"""Goes into ``Presence.schema_level``."""

_MARK: Final = b"\xc3\x01"
_HEADER_BYTES: Final = 10


@dataclass(frozen=True, slots=True)
class _Format:
    kind: type[Any]
    header: bytes
    shape: Shape[Any]
    cap: int


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
    header = _MARK + fingerprint(schemas.current(kind.__name__))
    return _Format(kind, header, SHAPES[kind], CAPS[kind])


_BY_KIND: Final[dict[type[Any], _Format]] = {kind: _format(kind) for kind in SHAPES}
_BY_HEADER: Final[dict[bytes, _Format]] = {entry.header: entry for entry in _BY_KIND.values()}
_BY_NAME: Final[dict[str, _Format]] = {kind.__name__: entry for kind, entry in _BY_KIND.items()}
_CEREMONY: Final[tuple[type[Any], ...]] = get_args(m.CeremonyRecord)
_PEER: Final[tuple[type[Any], ...]] = get_args(m.PeerMessage)


def encode(message: m.Message) -> bytes:
    """Return the bytes of ``message``.

    Raises:
        BadInput: ``out-of-bounds`` with the field, or ``too-large``: nobody would take it.
    """
    entry = _BY_KIND[type(message)]
    out = [entry.header]
    entry.shape.write(message, out)
    data = b"".join(out)
    if len(data) > entry.cap:
        raise BadInput("too-large", f"{entry.kind.__name__} has {len(data)} bytes, at most {entry.cap} are allowed")
    return data


def decode(data: bytes, *expected: type[T]) -> T:
    """Return the record in ``data``, which is one of the ``expected`` classes.

    Raises:
        BadInput: ``not-single-object``, ``unknown-schema``, ``unexpected-record``, ``too-large``, ``truncated``,
            ``trailing-bytes``, ``not-canonical``, or ``out-of-bounds``; the last two with the field where known.
    """
    if len(data) > m.MAX_RECORD_BYTES:
        raise BadInput("too-large", f"{len(data)} bytes, at most {m.MAX_RECORD_BYTES} are allowed")
    entry = _BY_HEADER.get(data[:_HEADER_BYTES])
    at = _HEADER_BYTES
    if entry is None:
        entry, data = _translate(data, expected)
        at = 0
    kind = entry.kind
    if kind not in expected:
        raise _unexpected(kind, expected)
    if len(data) > entry.cap:
        raise BadInput("too-large", f"{kind.__name__} has {len(data)} bytes, at most {entry.cap} are allowed")
    value, at = entry.shape.read(data, at)
    if at != len(data):
        raise BadInput("trailing-bytes", f"{len(data) - at} bytes after the end of {kind.__name__}")
    return value  # type: ignore[no-any-return]


def decode_ceremony(data: bytes) -> m.CeremonyRecord:
    """Return the ceremony record in ``data`` (the payload of an envelope). Raises as ``decode``."""
    record: m.CeremonyRecord = decode(data, *_CEREMONY)
    return record


def decode_peer(data: bytes) -> m.PeerMessage:
    """Return the record of a signing session in ``data`` (the payload of an envelope). Raises as ``decode``."""
    record: m.PeerMessage = decode(data, *_PEER)
    return record


def _unexpected(kind: type[Any], expected: tuple[type[Any], ...]) -> BadInput:
    names = ", ".join(sorted(one.__name__ for one in expected))
    return BadInput("unexpected-record", f"{kind.__name__} does not belong here; expected {names}")


def _translate(data: bytes, expected: tuple[type[Any], ...]) -> tuple[_Format, bytes]:
    """Rewrite a record of an older schema as the current one's body, by Avro's schema resolution."""
    if data[:2] != _MARK or len(data) < _HEADER_BYTES:
        raise BadInput("not-single-object", "does not begin as an Avro single object")
    text = schemas.history().get(data[2:_HEADER_BYTES])
    if text is None:
        raise BadInput("unknown-schema", f"no schema has the fingerprint {data[2:_HEADER_BYTES].hex()}")
    name = json.loads(text)["name"]
    entry = _BY_NAME.get(name)
    if entry is None or entry.kind not in expected:
        raise BadInput("unexpected-record", f"{name} does not belong here")
    if len(data) > entry.cap:
        raise BadInput("too-large", f"{name} has {len(data)} bytes, at most {entry.cap} are allowed")
    writer, reader = _parse(text), _parse(schemas.current(name))
    body = data[_HEADER_BYTES:]
    # fastavro raises what it happens upon: IndexError, KeyError, EOFError, its own.
    try:
        old = _read(body, writer, None)
        again = _write(writer, old)
        current = _write(reader, _read(body, writer, reader))
    except Exception as bad:
        raise BadInput("truncated", f"not a {name} of the schema that it names") from bad
    if again != body:
        code = "trailing-bytes" if body.startswith(again) else "not-canonical"
        raise BadInput(code, f"{name}: re-encoding gives other bytes")
    return entry, current


def _read(body: bytes, writer: Any, reader: Any) -> Any:
    return fastavro.schemaless_reader(io.BytesIO(body), writer, reader, return_record_name=True)


def _write(schema: Any, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    return out.getvalue()


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
    if len(data) > m.MAX_RECORD_BYTES or data[:_HEADER_BYTES] != _BY_KIND[m.MsgToSign].header:
        return None
    try:
        request, _ = LOOSE_REQUEST.read(data, _HEADER_BYTES)
    except BadInput:
        return None
    ids = tuple(dict.fromkeys(item.request_id for item in request.items))
    return Addressee(request.record_id, request.instance_id, request.reply_to, ids)
