"""What the client says and understands, without any IO: requests as values, answers checked and typed.

``rest_api.client`` puts a synchronous and an asynchronous transport under it. An answer is believed only when its
signature verifies for exactly the message that was asked, under the pinned public key where one is given.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from common import ed25519

DEFAULT_TIMEOUT_MS: Final = 5_000
JSON_HEADERS: Final = {"Content-Type": "application/json", "Accept": "application/json"}


class ClientError(Exception):
    """Base of all that the client raises. ``retryable``: the same call may do better later, and is safe to repeat."""

    retryable = False
    retry_after_s: float | None = None


class Refused(ClientError):
    """The service says that the request is wrong (4xx). ``problem`` is its RFC 9457 body."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(describe(status, problem))
        self.status = status
        self.problem = dict(problem)


class Limited(Refused):
    """429: asked too often. The request was not looked at, so it is safe to repeat."""

    retryable = True

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after_s: float | None) -> None:
        super().__init__(status, problem)
        self.retry_after_s = retry_after_s


class ServiceUnavailable(ClientError):
    """No answer now: cannot connect, 5xx, or the deadline passed.

    ``retryable`` only where the service said so before it took the request, or was never reached: after a 504, or a
    connection lost in the middle, the outcome is unknown and a repetition would be a second signature in the audit.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        problem: Mapping[str, Any] | None = None,
        retryable: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.problem = dict(problem or {})
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class WrongAnswer(ClientError):
    """The answer does not hold: a signature that does not verify, another key than the pinned one, or no JSON."""


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request. ``safe``: repeating it after an unknown outcome changes nothing."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    safe: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """A verified signature over one message.

    ``signature`` is 64 bytes (RFC 8032, pure Ed25519), ``public_key`` 32, ``message_sha256`` lower-case hex.
    """

    request_id: str
    key_id: str
    epoch: int
    signature: bytes
    public_key: bytes
    message_sha256: str
    signers: tuple[int, ...]
    reference: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as the API's own JSON object."""
        body: dict[str, Any] = {
            "request_id": self.request_id,
            "key_id": self.key_id,
            "epoch": self.epoch,
            "algorithm": "Ed25519",
            "signature": b64(self.signature),
            "public_key": b64(self.public_key),
            "message_sha256": self.message_sha256,
            "signers": list(self.signers),
        }
        return body if self.reference is None else {"reference": self.reference, **body}


@dataclass(frozen=True, slots=True)
class ItemError:
    """What became of a batch item that was not signed: the problem object, and the item's reference."""

    problem: Mapping[str, Any]
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One message of a batch; ``reference`` is echoed."""

    message: bytes
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that the service signs with; ``public_key`` is 32 bytes, the rest as ``GET /v1/keys/{id}`` says it."""

    key_id: str
    public_key: bytes
    epoch: int
    threshold: int
    signers: int
    details: Mapping[str, Any] = field(default_factory=dict)


def b64(data: bytes) -> str:
    """Standard alphabet, padded (RFC 4648)."""
    return base64.b64encode(data).decode("ascii")


def unb64(text: str) -> bytes:
    """Strict inverse of ``b64``.

    Raises:
        ValueError: not canonical padded base64 of the standard alphabet.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64 (standard alphabet, padded)") from None
    if b64(data) != text:
        raise ValueError("not canonical base64")
    return data


def describe(status: int, problem: Mapping[str, Any]) -> str:
    """One line for a person out of a problem body: what is wrong, where, and the code."""
    detail = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
    fields = problem.get("errors")
    if isinstance(fields, Sequence) and not isinstance(fields, str):
        said = [f"{e.get('field')}: {e.get('detail')}" for e in fields if isinstance(e, Mapping)]
        if said:
            detail = f"{detail} ({'; '.join(said)})"
    code = str(problem.get("type", "")).rpartition(":")[2]
    return f"{detail} [{status} {code}]" if code else f"{detail} [{status}]"


def sign_call(message: bytes, key_id: str | None) -> Call:
    """POST /v1/sign for ``message``, always as ``data``, so that any bytes travel unchanged."""
    body: dict[str, Any] = {"data": b64(message)}
    if key_id is not None:
        body["key_id"] = key_id
    return Call("POST", "/v1/sign", body)


def batch_call(items: Sequence[BatchItem], key_id: str | None) -> Call:
    """POST /v1/sign/batch for 1 to 1000 items."""
    rows = [{"data": b64(i.message)} | ({} if i.reference is None else {"reference": i.reference}) for i in items]
    body: dict[str, Any] = {"items": rows}
    if key_id is not None:
        body["key_id"] = key_id
    return Call("POST", "/v1/sign/batch", body)


def refresh_call(key_id: str) -> Call:
    """POST /v1/keys/{id}/refresh. Asking twice is no second refresh: the committee allows one at a time."""
    return Call("POST", f"/v1/keys/{key_id}/refresh")


def read_signature(answer: Any, message: bytes, pinned: bytes | None, reference: str | None = None) -> Signature:
    """Check and type one signature object of the API.

    Args:
        answer: The decoded JSON.
        message: What was asked to be signed.
        pinned: The public key that must have signed, 32 bytes; None: the one that the answer names.
        reference: What a batch item must echo.

    Raises:
        WrongAnswer: a field is missing, the key is not the pinned one, or the signature does not verify.
    """
    try:
        signature = Signature(
            request_id=str(answer["request_id"]),
            key_id=str(answer["key_id"]),
            epoch=int(answer["epoch"]),
            signature=unb64(answer["signature"]),
            public_key=unb64(answer["public_key"]),
            message_sha256=str(answer["message_sha256"]),
            signers=tuple(int(i) for i in answer["signers"]),
            reference=answer.get("reference"),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):  # JSON has numbers that are infinite
        raise WrongAnswer("the service's answer is not a signature object: is this URL a signer-flow API?") from None
    if pinned is not None and signature.public_key != pinned:
        raise WrongAnswer(f"signed by another key ({b64(signature.public_key)}) than the expected one")
    if signature.message_sha256 != hashlib.sha256(message).hexdigest() or signature.reference != reference:
        raise WrongAnswer("the answer is for another message than the one that was sent")
    if not ed25519.verify(signature.public_key, message, signature.signature):
        raise WrongAnswer("the signature in the answer does not verify")
    return signature


def read_batch(answer: Any, items: Sequence[BatchItem], pinned: bytes | None) -> list[Signature | ItemError]:
    """Check and type the results of a batch, one per item in order.

    Raises:
        WrongAnswer: as ``read_signature``, or the number of results is not that of the items.
    """
    results = answer.get("results") if isinstance(answer, Mapping) else None
    if not isinstance(results, list) or len(results) != len(items):
        raise WrongAnswer("the service's answer does not have one result per item")
    typed: list[Signature | ItemError] = []
    for result, item in zip(results, items, strict=True):
        error = result.get("error") if isinstance(result, Mapping) else None
        if isinstance(error, Mapping):
            typed.append(ItemError(dict(error), item.reference))
        else:
            typed.append(read_signature(result, item.message, pinned, item.reference))
    return typed


def read_key(answer: Any) -> PublicKey:
    """Type one object of ``GET /v1/keys``.

    Raises:
        WrongAnswer: a field is missing or malformed.
    """
    try:
        return PublicKey(
            key_id=str(answer["key_id"]),
            public_key=unb64(answer["public_key"]),
            epoch=int(answer["epoch"]),
            threshold=int(answer["threshold"]),
            signers=int(answer["signers"]),
            details=dict(answer),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise WrongAnswer("the service's answer is not a key object: is this URL a signer-flow API?") from None


def first_key(keys: Sequence[PublicKey]) -> PublicKey:
    """The service's default key.

    Raises:
        ServiceUnavailable: it has none yet.
    """
    if not keys:
        raise ServiceUnavailable("the service has no key yet: its signers are still making it", retryable=True)
    return keys[0]


def read_cluster(answer: Any) -> dict[str, Any]:
    """Check the outline of ``GET /v1/cluster``: lists of objects under ``keys``, ``replicas`` and ``apis``.

    Raises:
        WrongAnswer: it is something else.
    """
    parts = {
        "keys": ("key_id", "epoch", "quorum_margin", "ceremony"),
        "replicas": ("index", "state", "epochs", "last_seen_ms", "in_flight", "partitions"),
        "apis": ("index", "instance_id", "last_seen_ms"),
    }
    for part, fields in parts.items():
        found = answer.get(part) if isinstance(answer, Mapping) else None
        if not isinstance(found, list) or not all(isinstance(o, Mapping) and set(fields) <= set(o) for o in found):
            raise WrongAnswer("the service's answer does not describe a cluster: is this URL a signer-flow API?")
    return dict(answer)


def read_failure(status: int, body: Any, retry_after: str | None) -> ClientError:
    """The exception for an answer that is not 2xx."""
    problem: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    wait = _seconds(retry_after)
    if status == 429:
        return Limited(status, problem, wait)
    if 400 <= status < 500:
        return Refused(status, problem)
    # 503 is said before the request is taken, or with a refusal of the whole quorum; 504 says "outcome unknown".
    retryable = status == 503 and problem.get("retryable") is True
    return ServiceUnavailable(
        describe(status, problem), status=status, problem=problem, retryable=retryable, retry_after_s=wait
    )


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in its delta-seconds form; the date form is not used by this API."""
    if retry_after is None or not retry_after.isascii() or not retry_after.isdigit():
        return None
    return float(min(int(retry_after), 3600))
