"""Whether the topics are such as the table says (``common.wire.topics``), before anything is built on them.

With other partitions a topic does not do its work: a log of three has no order, a request goes where nobody reads.
Nothing is begun then, and it is asked again: a person may be mending it. What is configured otherwise works today; a
log that the broker drops after a week is lost in a week, so that is said, once.
"""

from collections.abc import Callable, Sequence

from common.errors import Unavailable
from common.kafka.port import Admin, Difference
from common.wire.topics import TopicSpec

_NOT_KNOWN = frozenset({"existence", "configuration"})
"""One that is missing is said by whoever needs it; what we may not read, the operator's `topics` command can."""


async def check(admin: Admin, specs: Sequence[TopicSpec], warn: Callable[[str], None]) -> None:
    """Compare the topics that a process lives on with the table.

    Args:
        admin: Asks the broker.
        specs: Topics that exist, or are going to.
        warn: Takes a line for each topic that is configured otherwise.

    Raises:
        Unavailable: ``topic-partitions``: a topic has other partitions; or the broker does not answer.
    """
    found = [each for each in await admin.describe(specs) if each.what not in _NOT_KNOWN]
    for each in found:
        if each.what == "partitions":
            raise Unavailable("topic-partitions", _partitions(each))
    for each in found:
        warn(_configuration(each))


def _partitions(found: Difference) -> str:
    return (
        f"{found.topic} has {found.found} partitions and must have {found.wanted}: stop what uses it, delete it and "
        "make it again with `signer-flow topics --create` (a ceremony log that holds a key is moved as the runbook "
        "for a lost one says)"
    )


def _configuration(found: Difference) -> str:
    return (
        f"{found.topic}: {found.what} is {found.found} and should be {found.wanted}: "
        f"`kafka-configs.sh --alter --topic {found.topic} --add-config {found.what}={found.wanted}`"
    )
