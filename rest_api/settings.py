"""Environment -> one frozen Settings. A wrong value stops the start with one readable line.

Every variable begins with ``SIGNER_REST_API_`` and has its unit in its name: ``SIGNER_REST_API_DEADLINE_MS=2000``.
``SECRETS_DIR`` is the folder that ``provision`` wrote; each of its three files can also be named by itself. Secrets are
never here: settings name files.
"""

import base64
import binascii
import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from common.errors import BadInput
from common.ids import KeyId, parse_key_id
from common.kafka.security import read_security_file
from common.kafka.settings import KafkaSettings
from common.observability.logging import LogFormat
from common.observability.spans import endpoint_of
from common.wire import topics
from common.wire.messages import MAX_DEADLINE_MS
from rest_api.token_file import Rate, parse_rate

ENV_PREFIX = "SIGNER_REST_API_"
NO_RATE = "none"
DEFAULT_ADDRESS_RATE = Rate(1000, "second")
_TRAILING_DIGITS = re.compile(r"[0-9]{1,4}$")

Port = Annotated[int, Field(ge=0, le=65535)]


class Auth(StrEnum):
    """Who may call: TOKENS asks for a token of the token file, and without a file binds to loopback only; NONE is
    everybody."""

    TOKENS = "tokens"
    NONE = "none"


class Settings(BaseSettings):
    """Everything that this pod was told."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    host: str = "127.0.0.1"
    """Address of the front port."""
    port: Port = 8000
    """0: any free one."""
    index: Annotated[int, Field(ge=0, le=topics.MAX_POD_INDEX)] | None = None
    """N: our answers come on ``signer.v1.resp<N>``. By default the digits that end the host name."""
    auth: Auth = Auth.TOKENS
    tokens_file: Path | None = None
    """Who may call (``rest_api.token_file``); read again when it changes."""
    address_rate: str | None = None
    """Signatures and verifications of one address whose caller has no token: ``100/second``, ``6000/minute``, or
    ``none`` for no limit. By default none on loopback, else 1000/second. Like every rate: of this pod alone."""
    trusted_proxies: frozenset[IPv4Network | IPv6Network] = frozenset()
    """Networks whose X-Forwarded-For is believed, as a JSON list."""
    allowed_hosts: frozenset[str] | None = None
    """Names that a request's Host header may have. None: any, or, on a loopback address, loopback's names."""

    admin_host: str = "127.0.0.1"
    admin_port: Port | None = None
    """Port of /healthz, /readyz, /metrics. By default 9100 + N; 0: any free one."""

    kafka_bootstrap: str = "127.0.0.1:9092"
    kafka_security_file: Path | None = None
    """librdkafka's options for SASL and TLS, one ``name=value`` a line. A file, because passwords are among them."""
    kafka_embedded: bool = False
    """The broker is the demo's in-process one."""
    topic_prefix: str = ""

    secrets_dir: Path | None = None
    """Folder with ``operator.pub``, ``roster.avro`` and ``edge.key``."""
    operator_key_file: Path | None = None
    roster_file: Path | None = None
    edge_key_file: Path | None = None
    pinned_keys: Mapping[KeyId, str] = Field(default_factory=dict)
    """Public keys (base64) that must be those of these keys, as a JSON object: no record can say otherwise."""

    deadline_ms: Annotated[int, Field(ge=100, le=MAX_DEADLINE_MS)] = 5_000
    """Of a request that names none."""
    pending_limit_items: Annotated[int, Field(ge=2, le=100_000)] = 2_000
    batch_limit_items: Annotated[int, Field(ge=1, le=1_000)] = 1_000
    suspect_after_ms: Annotated[int, Field(ge=500, le=60_000)] = 1_500
    beat_interval_ms: Annotated[int, Field(ge=100, le=60_000)] = 2_000
    shutdown_grace_ms: Annotated[int, Field(ge=0, le=MAX_DEADLINE_MS)] = 5_000
    """How long pending requests may still take once we were told to stop."""

    otlp_endpoint: str | None = None
    """Base URL of an OpenTelemetry collector (OTLP over HTTP), such as ``http://collector:4318``: spans are posted to
    its ``/v1/traces``. None: OpenTelemetry's own ``OTEL_EXPORTER_OTLP_ENDPOINT`` counts; without it nobody traces."""

    log_format: LogFormat = LogFormat.JSON
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"

    @field_validator("topic_prefix")
    @classmethod
    def _prefix(cls, value: str) -> str:
        return _said(topics.check_prefix, value)

    @field_validator("address_rate")
    @classmethod
    def _rate(cls, value: str | None) -> str | None:
        if value not in (None, NO_RATE):
            parse_rate(value)
        return value

    @field_validator("otlp_endpoint")
    @classmethod
    def _collector(cls, value: str | None) -> str | None:
        try:
            endpoint_of(value, {})
        except BadInput as error:
            raise ValueError(error.detail) from None
        return value

    @field_validator("pinned_keys")
    @classmethod
    def _pins(cls, value: Mapping[KeyId, str]) -> Mapping[KeyId, str]:
        for key_id, public_key in value.items():
            _said(parse_key_id, key_id)
            try:
                raw = base64.b64decode(public_key, validate=True)
            except (binascii.Error, ValueError):
                raw = b""
            if len(raw) != 32:
                raise ValueError(f"the pinned key {key_id!r} is not the base64 of 32 bytes")
        return value

    @model_validator(mode="after")
    def _closed_by_default(self) -> Self:
        if self.auth is Auth.NONE and self.tokens_file is not None:
            raise ValueError(f"{ENV_PREFIX}AUTH=none and {ENV_PREFIX}TOKENS_FILE contradict each other: drop one")
        if self.auth is Auth.TOKENS and self.tokens_file is None and not is_loopback(self.host):
            raise ValueError(
                f"{self.host} is not a loopback address and nobody would be asked who he is: "
                f"set {ENV_PREFIX}TOKENS_FILE, or {ENV_PREFIX}AUTH=none if that is meant"
            )
        return self

    @property
    def spans_url(self) -> str | None:
        """Where spans are posted; None: nowhere.

        Raises:
            BadInput: ``otlp-endpoint``: a standard variable is wrong.
        """
        return endpoint_of(self.otlp_endpoint, os.environ)

    @property
    def pod_index(self) -> int:
        """N, given or from the host name.

        Raises:
            BadInput: ``index``: neither.
        """
        return self.index if self.index is not None else index_of(socket.gethostname())

    @property
    def pins(self) -> dict[KeyId, bytes]:
        """The pinned keys, 32 bytes each."""
        return {key_id: base64.b64decode(public_key) for key_id, public_key in self.pinned_keys.items()}

    @property
    def hosts(self) -> frozenset[str] | None:
        """Names that the Host header may have; None: any."""
        if self.allowed_hosts is not None:
            return frozenset(name.lower() for name in self.allowed_hosts)
        # A page of a stranger can give its own name our loopback address and then is "same origin": the name tells.
        return frozenset({"127.0.0.1", "localhost", "[::1]", self.host}) if is_loopback(self.host) else None

    @property
    def rate_of_addresses(self) -> Rate | None:
        """The rate of each address without a token; None: no limit."""
        if self.address_rate is None:
            return None if is_loopback(self.host) else DEFAULT_ADDRESS_RATE
        return None if self.address_rate == NO_RATE else parse_rate(self.address_rate)

    def trust_file(self, own: Path | None, name: str) -> Path:
        """The file named by itself, else the one of ``secrets_dir``.

        Raises:
            BadInput: ``secrets-dir``: neither is set.
        """
        if own is not None:
            return own
        if self.secrets_dir is None:
            raise BadInput(
                "secrets-dir", f"set {ENV_PREFIX}SECRETS_DIR to the folder that provision wrote", "secrets_dir"
            )
        return self.secrets_dir / name

    def kafka(self) -> KafkaSettings:
        """How our clients connect.

        Raises:
            BadInput: ``settings``, ``kafka-security-option``: the file of security options is not as it must be.
        """
        return KafkaSettings(
            bootstrap=self.kafka_bootstrap,
            client_id=f"rest-api-{self.pod_index}",
            topic_prefix=self.topic_prefix,
            embedded=self.kafka_embedded,
            security=read_security_file(self.kafka_security_file, f"{ENV_PREFIX}KAFKA_SECURITY_FILE"),
            variables=ENV_PREFIX,
        )


def load(**given: Any) -> Settings:
    """Read the environment; ``given`` goes before it.

    Raises:
        BadInput: ``settings``: one line that names the variable and what is wrong. Values are not repeated in it.
    """
    try:
        settings = Settings(**given)
        settings.kafka()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"][:1])
        where = f"{ENV_PREFIX}{name.upper()}: " if name else ""
        message = first["msg"].removeprefix("Value error, ")
        raise BadInput("settings", f"{where}{message}", name or None) from None
    except SettingsError as error:
        # Only values that must be JSON end here; the message quotes the field, never the value.
        field = re.search(r'field "(\w+)"', str(error))
        name = field.group(1) if field else "settings"
        raise BadInput("settings", f"{ENV_PREFIX}{name.upper()}: not valid JSON", name) from None
    except BadInput as error:
        if error.field is None:
            raise  # it names the variable itself
        name = ENV_PREFIX + ("kafka_security_file" if error.field == "security" else error.field).upper()
        raise BadInput("settings", f"{name}: {error.detail}", error.field) from None
    return settings


def index_of(host_name: str) -> int:
    """The digits that end a host name (``rest-api-2`` gives 2).

    Raises:
        BadInput: ``index``: it ends in none.
    """
    digits = _TRAILING_DIGITS.search(host_name.partition(".")[0])
    if digits is None:
        raise BadInput("index", f"the host name {host_name!r} does not end in a number: say which pod this is", "index")
    return int(digits.group())


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach that address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _said(check: Any, value: str) -> str:
    try:
        return str(check(value))
    except BadInput as error:
        raise ValueError(error.detail) from None
