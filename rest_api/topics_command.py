"""``signer-flow topics``: a broker's topics, and its rules of who may use them, beside the tables."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from common.kafka.client import KafkaClient
from common.kafka.port import Admin, Ensured
from common.kafka.security import read_security_file
from common.kafka.settings import COMMAND_LINE, KafkaSettings
from common.wire import access, topics
from common.wire.access import Acl, Compared


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the broker is, how to log in, and what stands before every name there."""

    bootstrap: str
    security_file: Path | None = None
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class System:
    """How many pods and seats there are."""

    apis: int
    signers: int


async def create_topics(cluster: Cluster, system: System, replication: int | None, *, create: bool) -> Ensured:
    """Create (or only compare) every topic of a system.

    Raises:
        BadInput: the prefix cannot stand before a topic name, or the file of security options is not as it must be.
        Unavailable: the broker cannot be reached, or does not allow it.
    """
    copies = topics.BROKER_DEFAULT_REPLICATION if replication is None else replication
    specs = topics.all_topics(cluster.prefix, system.apis, system.signers, copies)
    async with _admin(cluster) as admin:
        if create:
            ensured = await admin.ensure(specs)
            return Ensured(ensured.created, await admin.describe(specs))
        return Ensured((), await admin.describe(specs))


@dataclass(frozen=True, slots=True)
class Allowed:
    """The rules that were added, and how the broker's differ after that."""

    added: tuple[Acl, ...]
    differences: Compared


async def compare_rules(cluster: Cluster, system: System, wanted: tuple[Acl, ...], *, apply: bool) -> Allowed:
    """Add the rules that are missing (or only compare). None is taken away: that is a person's to decide.

    Raises:
        BadInput: as ``create_topics``.
        Unavailable: the broker cannot be reached, does not allow it, or has no authorizer.
    """
    names = access.names_of(cluster.prefix, system.apis, system.signers)
    async with _admin(cluster) as admin:
        found = await admin.acls()
        differences = access.compare(wanted, found, cluster.prefix, names)
        if not apply:
            return Allowed((), differences)
        # Not asked for again: another broker may not have heard yet of what was added.
        await admin.allow(differences.missing)
        return Allowed(differences.missing, Compared((), differences.superfluous))


@asynccontextmanager
async def _admin(cluster: Cluster) -> AsyncIterator[Admin]:
    security = read_security_file(cluster.security_file, "--kafka-security-file")
    settings = KafkaSettings(
        cluster.bootstrap,
        "signer-flow-topics",
        topic_prefix=cluster.prefix,
        security=security,
        variables=COMMAND_LINE,
    )
    admin = KafkaClient(settings).admin()
    try:
        yield admin
    finally:
        await admin.close()
