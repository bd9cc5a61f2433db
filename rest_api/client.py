"""Typed client of our own API, synchronous and asynchronous: the CLI is its first user.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.sign(b"hello")          # verified before it is returned
        print(answer.signature.hex())

It retries only what is safe: a connection that was refused, 429, a 503 that says ``retryable``, and any lost GET. It
waits as long as Retry-After says, at most ``retry_for_s`` in all.
"""

import ssl
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import httpx
import stamina

from rest_api import client_wire as wire
from rest_api.client_wire import (
    DEFAULT_TIMEOUT_MS,
    BatchItem,
    Call,
    ClientError,
    ItemError,
    Limited,
    PublicKey,
    Refused,
    ServiceUnavailable,
    Signature,
    WrongAnswer,
)

__all__ = [
    "DEFAULT_TIMEOUT_MS",
    "AsyncClient",
    "BatchItem",
    "Client",
    "ClientError",
    "ItemError",
    "Limited",
    "PublicKey",
    "Refused",
    "ServiceUnavailable",
    "Signature",
    "WrongAnswer",
]

# The service keeps to its deadline; the transport waits a little longer, so that its 504 arrives rather than our own.
_GRACE_S = 2.0
_LEAST_WAIT_S = 0.05


class _Settings:
    """What both clients are made of: where, as whom, how long, and which key must have signed."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        retry_for_s: float = 10.0,
        public_key: bytes | None = None,
    ) -> None:
        self.timeout_ms = timeout_ms
        self.retry_for_s = retry_for_s
        self.public_key = public_key
        headers = {**wire.JSON_HEADERS, "Request-Timeout-Ms": str(timeout_ms)}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            base = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"not a URL: {error}") from None
        if base.scheme not in ("http", "https") or not base.host:
            raise ValueError("the URL must begin with http:// or https:// and name a host")
        self.http: dict[str, Any] = {
            "base_url": base,
            "headers": headers,
            "timeout": httpx.Timeout(timeout_ms / 1000 + _GRACE_S, connect=min(5.0, timeout_ms / 1000)),
            # A proxy of the environment must not see what is signed on this machine's own loopback.
            "trust_env": base.host not in ("127.0.0.1", "localhost", "::1"),
            # Without TLS nobody's certificate is read: a third of a short command's time. This context trusts nobody.
            "verify": base.scheme == "https" or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        }

    def attempts(self, call: Call) -> Any:
        """The retry loop of one call."""
        ends_at = time.monotonic() + self.retry_for_s

        def worth(error: Exception) -> bool | float:
            if not isinstance(error, ClientError):
                return False
            lost_get = call.safe and isinstance(error, ServiceUnavailable)
            if not (error.retryable or lost_get):
                return False
            wait_s = error.retry_after_s
            if wait_s is None:
                return True
            # Whoever is to come back later than he would wait is told so now, not after he has slept for it.
            return max(wait_s, _LEAST_WAIT_S) if time.monotonic() + wait_s <= ends_at else False

        attempts = None if self.retry_for_s > 0 else 1
        return stamina.retry_context(
            on=worth, attempts=attempts, timeout=self.retry_for_s or None, wait_initial=0.1, wait_max=2.0
        )


def _understand(response: httpx.Response) -> Any:
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success:
        if body is None and response.status_code == httpx.codes.ACCEPTED and not response.content:
            return {}
        if body is None:
            raise WrongAnswer("the service's answer is not JSON: is this URL a signer-flow API?")
        return body
    raise wire.read_failure(response.status_code, body, response.headers.get("Retry-After"))


def _lost(error: httpx.HTTPError, url: httpx.URL) -> ServiceUnavailable:
    """A transport error as ours. Only a connection that was never made is safe to repeat."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return ServiceUnavailable(f"cannot connect to {url}: is the service running there?", retryable=True)
    if isinstance(error, httpx.TimeoutException):
        return ServiceUnavailable(f"no answer from {url} in time; the outcome is unknown")
    return ServiceUnavailable(f"the connection to {url} was lost; the outcome is unknown")


class Client(_Settings):
    """Synchronous client.

    Args:
        url: Base URL of any API pod or of the Service in front of them.
        token: Bearer token, where the service asks for one.
        timeout_ms: Deadline of each request, at most 30,000.
        retry_for_s: How long one call may go on retrying what is safe to retry; 0: one attempt.
        public_key: Pin: 32 bytes; an answer signed by any other key raises ``WrongAnswer``.

    Raises:
        ValueError: the URL is none.
    """

    def __enter__(self) -> Self:
        self._http = httpx.Client(**self.http)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def send(self, call: Call) -> Any:
        """Send one call with retries and return the decoded JSON of a 2xx answer.

        Raises:
            Refused: 4xx. ServiceUnavailable: 5xx or no answer. WrongAnswer: not JSON.
        """
        for attempt in self.attempts(call):
            with attempt:
                try:
                    response = self._http.request(call.method, call.path, json=call.body)
                except httpx.HTTPError as error:
                    raise _lost(error, self._http.base_url) from None
                return _understand(response)
        raise AssertionError("stamina ends a retry loop by returning or raising")

    def sign(self, message: bytes, *, key_id: str | None = None) -> Signature:
        """Sign ``message`` (0 B to 64 KiB) and verify what comes back. Raises as ``send``, and ``WrongAnswer``."""
        return wire.read_signature(self.send(wire.sign_call(message, key_id)), message, self.public_key)

    def sign_batch(self, items: Sequence[BatchItem], *, key_id: str | None = None) -> list[Signature | ItemError]:
        """Sign 1 to 1000 messages; a bad item fails alone. Raises as ``send``, and ``WrongAnswer``."""
        return wire.read_batch(self.send(wire.batch_call(items, key_id)), items, self.public_key)

    def keys(self) -> list[PublicKey]:
        """All keys of the service, its default first."""
        return [wire.read_key(key) for key in self.send(Call("GET", "/v1/keys", safe=True))["keys"]]

    def key(self, key_id: str) -> PublicKey:
        """One key. Raises ``Refused`` (404) when there is none of that name."""
        return wire.read_key(self.send(Call("GET", f"/v1/keys/{key_id}", safe=True)))

    def key_or_first(self, key_id: str | None) -> PublicKey:
        """The key of that name, or the service's default for None. Raises as ``key``."""
        return self.key(key_id) if key_id is not None else wire.first_key(self.keys())

    def cluster(self) -> dict[str, Any]:
        """Replicas, pods, quorum margins, ceremonies, as ``GET /v1/cluster`` says it."""
        return wire.read_cluster(self.send(Call("GET", "/v1/cluster", safe=True)))

    def refresh(self, key_id: str) -> dict[str, Any]:
        """Ask for new shares of a key now; returns what the service says (202). Raises as ``send``."""
        return dict(self.send(wire.refresh_call(key_id)))


class AsyncClient(_Settings):
    """Asynchronous client: the same arguments, methods and errors as ``Client``."""

    async def __aenter__(self) -> Self:
        self._http = httpx.AsyncClient(**self.http)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def send(self, call: Call) -> Any:
        """As ``Client.send``."""
        async for attempt in self.attempts(call):
            with attempt:
                try:
                    response = await self._http.request(call.method, call.path, json=call.body)
                except httpx.HTTPError as error:
                    raise _lost(error, self._http.base_url) from None
                return _understand(response)
        raise AssertionError("stamina ends a retry loop by returning or raising")

    async def sign(self, message: bytes, *, key_id: str | None = None) -> Signature:
        """As ``Client.sign``."""
        return wire.read_signature(await self.send(wire.sign_call(message, key_id)), message, self.public_key)

    async def sign_batch(self, items: Sequence[BatchItem], *, key_id: str | None = None) -> list[Signature | ItemError]:
        """As ``Client.sign_batch``."""
        return wire.read_batch(await self.send(wire.batch_call(items, key_id)), items, self.public_key)

    async def keys(self) -> list[PublicKey]:
        """As ``Client.keys``."""
        return [wire.read_key(key) for key in (await self.send(Call("GET", "/v1/keys", safe=True)))["keys"]]

    async def key(self, key_id: str) -> PublicKey:
        """As ``Client.key``."""
        return wire.read_key(await self.send(Call("GET", f"/v1/keys/{key_id}", safe=True)))

    async def key_or_first(self, key_id: str | None) -> PublicKey:
        """As ``Client.key_or_first``."""
        return await self.key(key_id) if key_id is not None else wire.first_key(await self.keys())

    async def cluster(self) -> dict[str, Any]:
        """As ``Client.cluster``."""
        return wire.read_cluster(await self.send(Call("GET", "/v1/cluster", safe=True)))

    async def refresh(self, key_id: str) -> dict[str, Any]:
        """As ``Client.refresh``."""
        return dict(await self.send(wire.refresh_call(key_id)))
