"""Where the cluster is, who we are there, and the only options of librdkafka a deployment may set: SASL and TLS."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from common.errors import BadInput

COMMAND_LINE = "--"
"""``KafkaSettings.variables`` of a command: what it was told stands in its arguments."""

_SECURITY_OPTION = re.compile(r"security\.protocol|(sasl|ssl|enable\.sasl|enable\.ssl|https\.ca)\.[a-z0-9.]+")


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where the cluster is and who we are there."""

    bootstrap: str
    client_id: str
    topic_prefix: str = ""
    """Put before every topic name and the consumer group's, e.g. ``demo-ab12.``, so that strangers share a cluster."""
    embedded: bool = False
    """The broker is the in-process one: other timings, no CreateTopics, no static membership."""
    security: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    """librdkafka options for SASL and TLS, as they are called there (``security.protocol``, ``sasl.*``, ``ssl.*``).
    Kept out of ``repr``: passwords are among them."""
    variables: str = ""
    """What stands before ``KAFKA_BOOTSTRAP`` and ``KAFKA_SECURITY_FILE`` in this process's environment, or
    ``COMMAND_LINE``: a line about either names what is to be corrected."""

    def __post_init__(self) -> None:
        for name in self.security:
            # Anything else would undo a setting that a promise rests on (acks, idempotence, offset reset).
            if _SECURITY_OPTION.fullmatch(name) is None:
                raise BadInput("kafka-security-option", f"{name} is not an option for SASL or TLS", "security")

    @property
    def told_by(self) -> tuple[str, str]:
        """What names the broker, and what the file of security options, as whoever corrects them calls it."""
        if self.variables == COMMAND_LINE:
            return "--kafka", "--kafka-security-file"
        return f"{self.variables}KAFKA_BOOTSTRAP", f"{self.variables}KAFKA_SECURITY_FILE"
