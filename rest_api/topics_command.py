"""``signer-flow topics``: compare a broker's topics with the table, and create the missing ones."""

from common.kafka.client import KafkaClient
from common.kafka.port import Ensured, KafkaSettings
from common.wire import topics


async def create_topics(
    bootstrap: str, prefix: str, apis: int, signers: int, replication: int | None, *, create: bool
) -> Ensured:
    """Create (or only compare) every topic of a system with ``apis`` pods and ``signers`` seats.

    Raises:
        BadInput: the prefix cannot stand before a topic name.
        Unavailable: the broker cannot be reached, or does not allow it.
    """
    copies = topics.BROKER_DEFAULT_REPLICATION if replication is None else replication
    specs = topics.all_topics(prefix, apis, signers, copies)
    kafka = KafkaClient(KafkaSettings(bootstrap, "signer-flow-topics", topic_prefix=prefix))
    admin = kafka.admin()
    try:
        if create:
            ensured = await admin.ensure(specs)
            return Ensured(ensured.created, await admin.describe(specs))
        return Ensured((), await admin.describe(specs))
    finally:
        await admin.close()
