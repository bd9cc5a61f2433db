"""The environment, read once, as one frozen value: ``SIGNER_SERVICE_*``.

A wrong value stops the start with one line that names the variable. Secrets are never here: settings name files.
"""

import ipaddress
import os
import re
import socket
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from common.errors import BadInput
from common.ids import MAX_INDEX, Index
from common.observability.spans import endpoint_of
from common.wire.topics import check_prefix

PREFIX: Final = "SIGNER_SERVICE_"
DEFAULT_ADMIN_PORT: Final = 9000
"""Seat i listens on this plus i, unless told otherwise."""

Millis = Annotated[int, Field(ge=1, le=7 * 24 * 3600 * 1000)]


def ordinal_of_host(host: str) -> int | None:
    """Return the number that ends a host name (``signer-2`` gives 2: a StatefulSet's pod), or None."""
    match = re.search(r"([0-9]{1,5})$", host.split(".")[0])
    return int(match.group(1)) if match else None


def _own_seat() -> int:
    ordinal = ordinal_of_host(socket.gethostname())
    if ordinal is None:
        raise ValueError("not set, and the host name does not end in a number")
    return ordinal + 1


class Settings(BaseSettings):
    """What one replica is told. Names of variables are the fields' in capitals, after ``SIGNER_SERVICE_``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    index: Annotated[int, Field(ge=1, le=MAX_INDEX)] = Field(default_factory=_own_seat)
    """Our seat in the roster. Default: the number that ends the host name, plus 1."""

    kafka_bootstrap: Annotated[str, Field(min_length=1)]
    """Brokers, ``host:port[,host:port]``."""
    topic_prefix: str = ""
    kafka_embedded: bool = False
    """The broker is the in-process one of the demo."""
    kafka_security_file: Path | None = None
    """librdkafka's options for SASL and TLS, one ``name=value`` a line. A file, because passwords are among them."""

    secrets_dir: Path = Path("/run/signer-flow")
    """As ``provision`` wrote it; the four below default to its files."""
    operator_pub_file: Path | None = None
    roster_file: Path | None = None
    identity_key_file: Path | None = None
    sealing_key_file: Path | None = None
    state_dir: Path = Path("/var/lib/signer-flow")
    insecure_dev: bool = False
    """Start without a sealing key: state at rest is then readable to whoever reads the disk."""

    admin_host: str = "127.0.0.1"
    admin_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    otlp_endpoint: str | None = None
    """Base URL of an OpenTelemetry collector (OTLP over HTTP), such as ``http://collector:4318``: spans are posted to
    its ``/v1/traces``. None: OpenTelemetry's own ``OTEL_EXPORTER_OTLP_ENDPOINT`` counts; without it nobody traces."""
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    beat_ms: Millis = 500
    suspect_after_ms: Millis = 1_500
    revoke_grace_ms: Millis = 1_000
    drain_announce_ms: Millis = 1_000
    """Shortest time between the word that we drain and our leaving the group."""
    drain_ms: Millis = 8_000
    """Longest time that what is in flight may take to finish then."""
    phase_patience_ms: Millis = 5_000
    """When this seat votes to close a ceremony's phase; doubles with each attempt."""
    absent_holder_ms: Millis = 30_000
    """How long at least a seat that holds a share and is silent is waited for in a ceremony."""
    heal_delay_ms: Millis = 600_000
    """How long a seat's request to be healed must stand unopposed."""
    refresh_interval_ms: Millis = 86_400_000
    min_interval_ms: Millis = 60_000
    """Shortest time between two ceremonies of one key that this seat opens."""
    epoch_drain_ms: Millis = 2_000
    """How long sessions of the epoch before may go on after a commit."""

    roster_poll_ms: Millis = 2_000
    skew_warn_ms: Millis = 250
    skew_unready_ms: Millis = 1_000
    queue_high_items: Annotated[int, Field(ge=64, le=1_000_000)] = 2_048
    """Items that wait for their round: from here on signer.v1 is paused, until a quarter of it is left."""
    in_flight_items: Annotated[int, Field(ge=64, le=1_000_000)] = 1_024
    """Items that may be in the coordinator at one time."""

    @field_validator("topic_prefix")
    @classmethod
    def _prefix(cls, value: str) -> str:
        try:
            return check_prefix(value)
        except BadInput as error:
            raise ValueError(error.detail) from None

    @field_validator("admin_host")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            ipaddress.ip_address(value)
        except ValueError:
            raise ValueError("expected an IP address, such as 127.0.0.1 or 0.0.0.0") from None
        return value

    @model_validator(mode="after")
    def _suspicion_outlasts_beats(self) -> Self:
        if self.suspect_after_ms < 2 * self.beat_ms:
            raise ValueError("SUSPECT_AFTER_MS must be at least twice BEAT_MS, or live replicas would look dead")
        return self

    @field_validator("otlp_endpoint")
    @classmethod
    def _collector(cls, value: str | None) -> str | None:
        try:
            endpoint_of(value, {})
        except BadInput as error:
            raise ValueError(error.detail) from None
        return value

    @property
    def spans_url(self) -> str | None:
        """Where spans are posted; None: nowhere.

        Raises:
            BadInput: ``otlp-endpoint``: a standard variable is wrong.
        """
        return endpoint_of(self.otlp_endpoint, os.environ)

    @property
    def seat(self) -> Index:
        """``index``, as the rest of the program calls it."""
        return Index(self.index)

    @property
    def operator_pub(self) -> Path:
        """Where the operator's public key is."""
        return self.operator_pub_file or self.secrets_dir / "operator.pub"

    @property
    def roster(self) -> Path:
        """Where the signed roster is."""
        return self.roster_file or self.secrets_dir / "roster.avro"

    @property
    def identity_key(self) -> Path:
        """Where our identity key is."""
        return self.identity_key_file or self.secrets_dir / "seats" / str(self.index) / "identity.key"

    @property
    def sealing_key(self) -> Path:
        """Where our share-encryption key is."""
        return self.sealing_key_file or self.secrets_dir / "seats" / str(self.index) / "sealing.key"

    @property
    def port(self) -> int:
        """The admin port."""
        return DEFAULT_ADMIN_PORT + self.index if self.admin_port is None else self.admin_port


def load(**overrides: Any) -> Settings:
    """Read the environment; ``overrides`` (the command line's) go before it.

    Raises:
        BadInput: code ``settings``: one line that names every wrong variable and what is expected.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [_line(each) for each in error.errors(include_url=False, include_input=False, include_context=False)]
        raise BadInput("settings", "; ".join(lines)) from None
    except ValueError as error:
        # The default of the seat is made outside pydantic's own collecting of errors.
        raise BadInput("settings", f"{PREFIX}INDEX: {error}") from None


def _line(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        message = "not set"
    return f"{PREFIX}{where.upper()}: {message}" if where else f"{PREFIX}*: {message}"
