"""Bodies as they travel over HTTP: strict in what they take, and the source of the OpenAPI document.

Answers are built as plain dictionaries where they are hot; the classes for answers say what those look like, and a
test holds real answers against them.
"""

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from common.errors import BadInput
from common.wire.messages import MAX_MESSAGE_BYTES, RESERVED_PREFIX

MAX_BATCH_ITEMS = 1_000
MAX_REFERENCE_CHARS = 256
MAX_SOCKET_ID_CHARS = 64

Text = Annotated[str | None, Field(description="The message as text; its UTF-8 bytes are signed.")]
CANONICAL_BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$"
"""What ``unbase64`` takes: padded, and no bit set beyond the last byte."""
_BASE64 = {"pattern": CANONICAL_BASE64}
Data = Annotated[
    str | None,
    Field(
        description="The message as base64 (RFC 4648, standard alphabet, padded).",
        json_schema_extra={"anyOf": [{"type": "string", **_BASE64}, {"type": "null"}]},
    ),
]
KeyName = Annotated[str | None, Field(description="Which key signs; the service's first key if not given.")]


_STRING, _NULL = {"type": "string"}, {"type": "null"}
_ONE_MESSAGE = {
    "oneOf": [
        {"required": ["text"], "properties": {"text": _STRING, "data": _NULL}},
        {"required": ["data"], "properties": {"data": _STRING, "text": _NULL}},
    ]
}
"""Exactly one of the two, in JSON Schema's words."""


def _example(*examples: dict[str, Any], **schema: Any) -> ConfigDict:
    extra = {"examples": list(examples), **schema}
    return ConfigDict(strict=True, extra="forbid", frozen=True, json_schema_extra=extra)


class SignRequest(BaseModel):
    """One message to sign: exactly one of ``text`` and ``data``, at most 64 KiB, and it may be empty."""

    model_config = _example({"text": "hello"}, {"data": "aGVsbG8=", "key_id": "default"}, **_ONE_MESSAGE)

    text: Text = None
    data: Data = None
    key_id: KeyName = None


class SocketRequest(SignRequest):
    """One message on the WebSocket: as a request to sign, and the client's own id for it, which comes back."""

    model_config = _example(
        {"id": "1", "text": "hello"}, {"id": "b-7", "data": "AAEC", "key_id": "default"}, **_ONE_MESSAGE
    )

    id: Annotated[str, Field(min_length=1, max_length=MAX_SOCKET_ID_CHARS)]


class SocketToken(BaseModel):
    """The caller's token, for every later message on the same WebSocket."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    id: Annotated[str, Field(min_length=1, max_length=MAX_SOCKET_ID_CHARS)]
    token: Annotated[str, Field(min_length=1, max_length=256)]


class BatchItem(BaseModel):
    """One message of a batch. ``reference`` is the caller's own name for it and comes back with the result."""

    model_config = _example({"text": "hello", "reference": "row-1"}, **_ONE_MESSAGE)

    text: Text = None
    data: Data = None
    reference: Annotated[str | None, Field(max_length=MAX_REFERENCE_CHARS)] = None


class BatchRequest(BaseModel):
    """1 to 1000 items; a bad item fails alone, so items are looked at one by one."""

    model_config = _example({"items": [{"text": "hello", "reference": "a"}, {"data": "AAEC"}]})

    items: Annotated[
        list[Any],
        Field(
            min_length=1,
            max_length=MAX_BATCH_ITEMS,
            json_schema_extra={
                "items": {
                    "description": "A BatchItem is signed; anything else gets an error as its result.",
                    "anyOf": [{"$ref": "#/components/schemas/BatchItem"}, {}],
                }
            },
        ),
    ]
    key_id: KeyName = None


class VerifyRequest(BaseModel):
    """A message, a signature, and the key: by name or as 32 bytes (the service's first key if neither is given)."""

    model_config = _example(
        {
            "text": "",
            "signature": "5VZDAMNgrHKQhuLMgG6CioSHfx645dl02HPgZSJJAVVfuIIVkKM7rMYeOXAc+bRr0lv18FlbviRlUUFDjnoQCw==",
            "public_key": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        },
        **_ONE_MESSAGE,
        **{"not": {"required": ["key_id", "public_key"], "properties": {"key_id": _STRING, "public_key": _STRING}}},
    )

    text: Text = None
    data: Data = None
    signature: Annotated[str, Field(description="base64 of 64 bytes", json_schema_extra=_BASE64)]
    key_id: KeyName = None
    public_key: Annotated[
        str | None,
        Field(
            description="base64 of 32 bytes",
            json_schema_extra={"anyOf": [{"type": "string", **_BASE64}, {"type": "null"}]},
        ),
    ] = None


_LastRefresh = Annotated[str | None, Field(description="when the epoch began; RFC 3339, UTC")]
_NextRefresh = Annotated[
    str | None, Field(description="when enough replicas find a refresh due; the past, if it is overdue; RFC 3339, UTC")
]


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class SignResponse(_Answer):
    """A signature that was verified before it was returned."""

    request_id: str
    key_id: str
    epoch: int
    algorithm: Literal["Ed25519"]
    signature: Annotated[str, Field(description="base64 of 64 bytes: pure Ed25519 over the message (RFC 8032)")]
    public_key: Annotated[str, Field(description="base64 of 32 bytes")]
    message_sha256: Annotated[str, Field(description="lower-case hex")]
    signers: Annotated[list[int], Field(description="seats whose shares made it, ascending")]


class FieldError(_Answer):
    """What is wrong with one field."""

    field: str
    detail: str


class ProblemBody(_Answer):
    """RFC 9457. ``type`` is ``urn:signer-flow:problem:<code>`` and stable."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    retryable: bool
    errors: list[FieldError] | None = None


class BatchSuccess(SignResponse):
    """A signed item."""

    reference: str | None


class BatchFailure(_Answer):
    """An item that failed, alone."""

    reference: str | None
    error: ProblemBody


class BatchResponse(_Answer):
    """One result per item, in order."""

    results: list[BatchSuccess | BatchFailure]


class VerifyResponse(_Answer):
    """Whether the signature is that key's over that message."""

    valid: bool


class Jwk(_Answer):
    """RFC 8037 key pair form, public half; ``alg`` as RFC 9864 names it."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    alg: Literal["Ed25519"]
    use: Literal["sig"]
    kid: str
    x: Annotated[str, Field(description="base64url without padding")]


class JwkSet(_Answer):
    """RFC 7517, 5."""

    keys: list[Jwk]


class CeremonyInfo(_Answer):
    """A ceremony that is running: ``generate`` or ``reshare`` (refresh, heal, another committee)."""

    kind: str
    phase: Annotated[str, Field(description="announce, deal, verdict, ready, commit")]
    attempt: int
    awaited: Annotated[list[int], Field(description="seats that the phase waits for, ascending")]


class KeyInfo(_Answer):
    """A public key and what is known of the committee that holds it."""

    key_id: str
    algorithm: Literal["Ed25519"]
    public_key: str
    public_key_pem: str
    jwk: Jwk
    fingerprint: Annotated[str, Field(description="SHA256: and unpadded base64 of the SHA-256 of the 32 bytes")]
    epoch: int
    threshold: int
    signers: Annotated[int, Field(description="n, the size of the committee")]
    last_refresh: _LastRefresh
    next_refresh: _NextRefresh
    ceremony: CeremonyInfo | None


class RefreshResponse(_Answer):
    """A refresh was asked for, and is not over. ``location`` is where to see its phases and the epoch after it."""

    request_id: str
    key_id: str
    epoch: Annotated[int, Field(description="the epoch that it goes on from")]
    location: str


class KeysResponse(_Answer):
    """All keys, the default first."""

    keys: list[KeyInfo]


class ClusterKey(_Answer):
    """How far a key is from being unable to sign."""

    key_id: str
    epoch: int
    quorum_margin: Annotated[int, Field(description="live holders of a share, less the threshold")]
    threshold: Annotated[int, Field(description="replicas that make a signature together, by the newest roster")]
    last_refresh: _LastRefresh
    next_refresh: _NextRefresh
    ceremony: CeremonyInfo | None


_SKEW = "its clock less the broker's in milliseconds, as far as it is certain of it; signed"


class ReplicaInfo(_Answer):
    """A seat. ``state`` is ``unknown`` and most fields are null before it was heard."""

    index: int
    state: str
    epochs: dict[str, int]
    boot_id: str | None
    last_seen_ms: Annotated[int | None, Field(description="milliseconds since its last beat")]
    in_flight: int
    queue_wait_ms: Annotated[int, Field(description="how long the last items waited for their round")]
    skew_ms: Annotated[int | None, Field(description=_SKEW)]
    partitions: list[int]


class ApiInfo(_Answer):
    """An API pod, this one included."""

    index: int
    instance_id: str
    last_seen_ms: int
    skew_ms: Annotated[int, Field(description=_SKEW)]


class ClusterResponse(_Answer):
    """The system as this pod hears it."""

    keys: list[ClusterKey]
    replicas: list[ReplicaInfo]
    apis: list[ApiInfo]


class HealthResponse(_Answer):
    """An answer to a probe."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str]


REQUESTS: tuple[type[BaseModel], ...] = (SignRequest, BatchRequest, BatchItem, VerifyRequest)


def message_of(text: str | None, data: str | None, *, for_signing: bool = True) -> bytes:
    """Return the bytes to sign, or to verify.

    Raises:
        BadInput: ``invalid-request`` (both or neither, wrong base64, half a surrogate pair), ``message-too-large``,
            ``reserved-prefix``; with the field.
    """
    if text is not None:
        if data is not None:
            raise BadInput("invalid-request", "give text or data, not both", "data")
        try:
            message = text.encode()
        except UnicodeEncodeError:
            raise BadInput("invalid-request", "half of a surrogate pair is no character", "text") from None
    elif data is not None:
        message = unbase64(data, "data")
    else:
        raise BadInput("invalid-request", "give text, or data in base64", "text")
    check_message(message, for_signing=for_signing)
    return message


def check_message(message: bytes, *, for_signing: bool = True) -> None:
    """What no replica would sign is refused here already.

    Raises:
        BadInput: ``message-too-large``, ``reserved-prefix``.
    """
    if len(message) > MAX_MESSAGE_BYTES:
        raise BadInput("message-too-large", f"a message has at most {MAX_MESSAGE_BYTES} bytes, this has {len(message)}")
    if for_signing and message.startswith(RESERVED_PREFIX):
        raise BadInput("reserved-prefix", "the message begins with the prefix of this service's own records")


def unbase64(text: str, field: str) -> bytes:
    """Return the bytes of canonical base64: RFC 4648 section 4, padded, nothing before, between or after.

    Raises:
        BadInput: ``invalid-request`` with ``field``.
    """
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raw = None
    # The decoder takes bits beyond the last byte (3.5): two texts for one message would be two messages to somebody.
    if raw is None or base64.b64encode(raw) != text.encode():
        raise BadInput("invalid-request", "not base64 (standard alphabet, with padding)", field)
    return raw
