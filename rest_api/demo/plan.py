"""What a demo is made of, as values: ports, folders, and each child's command and settings."""

import sys
from dataclasses import dataclass
from pathlib import Path

from rest_api.demo.children import ChildSpec

HOST = "127.0.0.1"
MIN_INTERVAL_MS = 2_000
"""Of two ceremonies that one seat opens: in a demo somebody waits to see the next."""
HEAL_DELAY_MS = 5_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for on the command line. ``kafka`` None: the embedded broker."""

    port: int
    apis: int
    signers: int
    threshold: int
    kafka: str | None
    state_dir: Path | None
    admin_port: int
    log_level: str
    refresh_interval_ms: int | None = None
    """None: as a signer does by itself."""
    tokens_file: Path | None = None
    """None: whoever reaches the loopback may sign."""

    @property
    def url(self) -> str:
        """Base URL of the first API pod."""
        return f"http://{HOST}:{self.port}"

    def ports(self) -> dict[int, str]:
        """Every port that must be free, and the option that moves it."""
        front = {self.port + n: "--port" for n in range(self.apis)}
        signers = {self.admin_port + m: "--admin-port" for m in range(1, self.signers + 1)}
        pods = {self.admin_port + 100 + n: "--admin-port" for n in range(self.apis)}
        return front | signers | pods


@dataclass(frozen=True, slots=True)
class Place:
    """Where a demo runs: its folders and its broker."""

    keys: Path
    """What ``provision`` wrote."""
    state: Path
    """One folder per seat."""
    bootstrap: str
    topic_prefix: str
    embedded: bool


def provision_command(plan: Plan, keys: Path) -> list[str]:
    """The command that makes (or completes) every key file."""
    return [
        *(sys.executable, "-m", "signer_service", "provision", "--out", str(keys)),
        *("--signers", str(plan.signers), "--threshold", str(plan.threshold)),
    ]


def signer(plan: Plan, place: Place, seat: int) -> ChildSpec:
    """Seat ``seat``, from 1."""
    timing = {
        "SIGNER_SERVICE_MIN_INTERVAL_MS": str(MIN_INTERVAL_MS),
        "SIGNER_SERVICE_HEAL_DELAY_MS": str(HEAL_DELAY_MS),
    }
    if plan.refresh_interval_ms is not None:
        timing["SIGNER_SERVICE_REFRESH_INTERVAL_MS"] = str(plan.refresh_interval_ms)
    return ChildSpec(
        name=f"signer {seat}",
        argv=(sys.executable, "-m", "signer_service", "run"),
        env=_common("SIGNER_SERVICE_", plan, place)
        | timing
        | {
            "SIGNER_SERVICE_INDEX": str(seat),
            "SIGNER_SERVICE_SECRETS_DIR": str(place.keys),
            "SIGNER_SERVICE_STATE_DIR": str(place.state / str(seat)),
            "SIGNER_SERVICE_ADMIN_PORT": str(plan.admin_port + seat),
        },
    )


def api(plan: Plan, place: Place, n: int) -> ChildSpec:
    """API pod ``n``, from 0."""
    tokens = {} if plan.tokens_file is None else {"SIGNER_REST_API_TOKENS_FILE": str(plan.tokens_file.resolve())}
    return ChildSpec(
        name=f"api {n}",
        argv=(sys.executable, "-m", "rest_api"),
        env=_common("SIGNER_REST_API_", plan, place)
        | tokens
        | {
            "SIGNER_REST_API_INDEX": str(n),
            "SIGNER_REST_API_SECRETS_DIR": str(place.keys),
            "SIGNER_REST_API_HOST": HOST,
            "SIGNER_REST_API_PORT": str(plan.port + n),
            "SIGNER_REST_API_ADMIN_PORT": str(plan.admin_port + 100 + n),
        },
    )


def _common(prefix: str, plan: Plan, place: Place) -> dict[str, str]:
    return {
        f"{prefix}KAFKA_BOOTSTRAP": place.bootstrap,
        f"{prefix}KAFKA_EMBEDDED": str(place.embedded).lower(),
        f"{prefix}TOPIC_PREFIX": place.topic_prefix,
        f"{prefix}ADMIN_HOST": HOST,
        f"{prefix}LOG_FORMAT": "console",
        f"{prefix}LOG_LEVEL": plan.log_level,
    }
