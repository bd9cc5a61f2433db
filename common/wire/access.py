"""Who may do what to which topic, beside the table of topics: what a locked broker is told.

One principal per API pod and per seat, so that one stolen login is one pod or one seat. Nobody may do more than the
program does:

=========  ==================================================================================================
role       what it may
=========  ==================================================================================================
api N      write signer.v1, signer.v1.dlq; read its own resp<N> and keys; read and write presence
signer M   read signer.v1 in the group ``signer``, and its own peer<M>; write resp*, peer*, audit, dlq; read and
           write presence, ceremony, keys
auditor    read ceremony, keys, audit, presence
operator   create and describe topics; read dlq
=========  ==================================================================================================

Everybody who reads whole topics may describe the group ``signer-tail``, and nobody may join it: librdkafka asks for the
coordinator of a group id that it was only given because a Consumer cannot be made without one. An idempotent producer
needs no more than to write some topic (KIP-679). What Kafka itself implies (who may read or write may describe) is not
said again. Whoever may change ACLs can give himself everything: that is the cluster's administrator, and no role here.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from common.errors import BadInput
from common.wire import topics

ANY_HOST: Final = "*"
MAX_PRINCIPAL: Final = 250

_NUMBER: Final = re.compile(r"\{[nm]\}")
_PRINCIPAL: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*:[\x20-\x7e]+")


class Role(Enum):
    """Who connects."""

    API = "api"
    SIGNER = "signer"
    AUDITOR = "auditor"
    OPERATOR = "operator"


class Operation(Enum):
    """What is done, in Kafka's word. The order is that of the printed lines."""

    READ = "Read"
    WRITE = "Write"
    CREATE = "Create"
    DESCRIBE = "Describe"
    DESCRIBE_CONFIGS = "DescribeConfigs"


class Kind(Enum):
    """To what it is done."""

    TOPIC = "topic"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class Resource:
    """A topic or a group; or, ``prefixed``, all whose names begin so."""

    kind: Kind
    name: str
    prefixed: bool = False

    def covers(self, kind: Kind, name: str) -> bool:
        """Whether what is said of this resource is said of that one (``*``: of all, as Kafka has it)."""
        if self.kind is not kind:
            return False
        return name.startswith(self.name) if self.prefixed else self.name in {name, "*"}


@dataclass(frozen=True, slots=True)
class Acl:
    """One rule of a broker that allows nothing else. ``operation`` and ``host`` in Kafka's words."""

    principal: str
    resource: Resource
    operation: str
    host: str = ANY_HOST
    deny: bool = False


_Place = Callable[[str, int], Resource]
"""Prefix and index of who asks to what it is about."""


def _topic(spec: Callable[[str], topics.TopicSpec]) -> _Place:
    return lambda prefix, _: Resource(Kind.TOPIC, spec(prefix).name)


def _own(spec: Callable[[str, int], topics.TopicSpec]) -> _Place:
    return lambda prefix, index: Resource(Kind.TOPIC, spec(prefix, index).name)


def _group(name: Callable[[str], str]) -> _Place:
    return lambda prefix, _: Resource(Kind.GROUP, name(prefix))


def _beginning(name: str) -> _Place:
    return lambda prefix, _: Resource(Kind.TOPIC, f"{topics.check_prefix(prefix)}{name}", prefixed=True)


_REQUESTS: Final = _topic(topics.requests)
_PRESENCE: Final = _topic(topics.presence)
_CEREMONY: Final = _topic(topics.ceremony)
_KEYS: Final = _topic(topics.keys)
_AUDIT: Final = _topic(topics.audit)
_DEAD_LETTERS: Final = _topic(topics.dead_letters)
_OWN_ANSWERS: Final = _own(topics.responses)
_OWN_PEER: Final = _own(topics.peer)
# Of all pods and seats, those to come too: who is added needs rules of his own only.
_ANSWERS: Final = _beginning("signer.v1.resp")
_PEERS: Final = _beginning("signer.v1.peer")
_ALL_TOPICS: Final = _beginning("signer.v1")
_SIGNERS: Final = _group(topics.signer_group)
_TAIL: Final = _group(topics.tail_group)

READ, WRITE, CREATE, DESCRIBE, DESCRIBE_CONFIGS = Operation

MAY: Final[Mapping[Role, tuple[tuple[Operation, _Place], ...]]] = MappingProxyType(
    {
        Role.API: (
            (WRITE, _REQUESTS),
            (READ, _OWN_ANSWERS),
            (READ, _PRESENCE),
            (WRITE, _PRESENCE),
            (READ, _KEYS),
            (WRITE, _DEAD_LETTERS),
            (DESCRIBE, _TAIL),
        ),
        Role.SIGNER: (
            (READ, _REQUESTS),
            (READ, _SIGNERS),
            (WRITE, _ANSWERS),
            (READ, _OWN_PEER),
            (WRITE, _PEERS),
            (READ, _PRESENCE),
            (WRITE, _PRESENCE),
            (READ, _CEREMONY),
            (WRITE, _CEREMONY),
            (READ, _KEYS),
            (WRITE, _KEYS),
            (WRITE, _AUDIT),
            (WRITE, _DEAD_LETTERS),
            (DESCRIBE, _TAIL),
        ),
        Role.AUDITOR: ((READ, _CEREMONY), (READ, _KEYS), (READ, _AUDIT), (READ, _PRESENCE), (DESCRIBE, _TAIL)),
        Role.OPERATOR: (
            (CREATE, _ALL_TOPICS),
            (DESCRIBE, _ALL_TOPICS),
            (DESCRIBE_CONFIGS, _ALL_TOPICS),
            (READ, _DEAD_LETTERS),
            (DESCRIBE, _TAIL),
        ),
    }
)
"""The declaration: everything that each role may, and nothing else is allowed."""


@dataclass(frozen=True, slots=True)
class Principals:
    """Names of who connects. ``{n}`` is an API pod's index (from 0), ``{m}`` a seat (from 1); None: no such principal.

    With mutual TLS a principal is what the broker makes of the certificate's subject, ``User:CN=rest-api-{n}`` say.
    """

    api: str = "User:rest-api-{n}"
    signer: str = "User:signer-{m}"
    auditor: str | None = "User:auditor"
    operator: str | None = "User:operator"

    def __post_init__(self) -> None:
        one_each = (("api", self.api, "{n}"), ("signer", self.signer, "{m}"))
        for role, pattern, number in one_each:
            if pattern.count(number) != 1:
                # One name for all of a role: then pod 0 would read what pod 1 is answered.
                raise BadInput("principal", f"--principal-{role} has to contain {number} once: each has its own name")
        for role, text in (("api", self.api), ("signer", self.signer), *self._single()):
            name = _NUMBER.sub("0", text)
            if _PRINCIPAL.fullmatch(name) is None or len(name) > MAX_PRINCIPAL:
                raise BadInput("principal", f"--principal-{role}: a principal is TYPE:NAME, such as User:{role}")
            if name.endswith(":*"):
                raise BadInput("principal", f"--principal-{role}: * would be everybody")

    def _single(self) -> tuple[tuple[str, str], ...]:
        both = (("auditor", self.auditor), ("operator", self.operator))
        return tuple((role, name) for role, name in both if name is not None)

    def all(self, apis: int, signers: int) -> tuple[tuple[str, Role, int], ...]:
        """Name, role and index of everybody.

        Raises:
            BadInput: code ``principal``: two are the same.
        """
        found = [
            *((self.api.replace("{n}", str(n)), Role.API, n) for n in range(apis)),
            *((self.signer.replace("{m}", str(m)), Role.SIGNER, m) for m in range(1, signers + 1)),
            *((name, Role(role), 0) for role, name in self._single()),
        ]
        if len({name for name, _, _ in found}) != len(found):
            raise BadInput("principal", "two principals have one name: what one may, the other could do too")
        return tuple(found)


def rules(role: Role, index: int, principal: str, prefix: str) -> tuple[Acl, ...]:
    """Everything that one principal may.

    Args:
        role: What it is.
        index: N of an API pod, M of a seat; of others it does not matter.
        principal: Its name at the broker, ``User:signer-1``.
        prefix: Of the topics.
    """
    return tuple(Acl(principal, place(prefix, index), operation.value) for operation, place in MAY[role])


def all_rules(prefix: str, apis: int, signers: int, principals: Principals) -> tuple[Acl, ...]:
    """Everything that a system with API pods 0..apis-1 and seats 1..signers may.

    Raises:
        BadInput: codes ``principal``, ``topic-prefix``, ``pod-index``, ``index``.
    """
    return tuple(
        rule for name, role, index in principals.all(apis, signers) for rule in rules(role, index, name, prefix)
    )


def command_lines(wanted: Sequence[Acl], bootstrap: str | None = None) -> tuple[str, ...]:
    """The same as command lines of ``kafka-acls.sh``: per principal one for each operation and kind of name.

    They are shell text with two variables for whoever runs them: ``$ADMIN_CONFIG`` and, without ``bootstrap``,
    ``$BOOTSTRAP``.
    """
    where = '"$BOOTSTRAP"' if bootstrap is None else shlex.quote(bootstrap)
    lines: dict[tuple[str, str, Kind, bool, str], list[str]] = {}
    for rule in wanted:
        place = (rule.principal, rule.host, rule.resource.kind, rule.resource.prefixed, rule.operation)
        lines.setdefault(place, []).append(rule.resource.name)
    said = []
    for (principal, host, kind, prefixed, operation), names in lines.items():
        words = [
            *("--add", "--force", "--allow-principal", shlex.quote(principal)),
            *(("--allow-host", shlex.quote(host)) if host != ANY_HOST else ()),
            *("--operation", operation),
            *("--resource-pattern-type", "prefixed" if prefixed else "literal"),
            *(word for name in names for word in (f"--{kind.value}", shlex.quote(name))),
        ]
        said.append(f'kafka-acls.sh --bootstrap-server {where} --command-config "$ADMIN_CONFIG" {" ".join(words)}')
    return tuple(said)


@dataclass(frozen=True, slots=True)
class Compared:
    """How a broker's rules differ: what it should allow and does not; what it says of our topics and should not."""

    missing: tuple[Acl, ...]
    superfluous: tuple[Acl, ...]


def compare(wanted: Iterable[Acl], found: AbstractSet[Acl], prefix: str, names: Iterable[tuple[Kind, str]]) -> Compared:
    """Compare what a broker has with what it should have.

    Args:
        wanted: As ``all_rules`` says.
        found: Everything the broker has, of others too.
        prefix: Of the topics.
        names: Topics and groups of the system. What reaches one of them (``*`` does), or lies within our names, is
            about us; what else the broker has is not looked at.
    """
    wanted, names = tuple(wanted), tuple(names)
    ours = f"{prefix}signer.v1"

    def about_us(resource: Resource) -> bool:
        within = resource.kind is Kind.TOPIC and resource.name.startswith(ours)
        return within or any(resource.covers(kind, name) for kind, name in names)

    missing = tuple(rule for rule in wanted if rule not in found)
    other = found - set(wanted)
    superfluous = tuple(sorted((rule for rule in other if about_us(rule.resource)), key=repr))
    return Compared(missing, superfluous)


def names_of(prefix: str, apis: int, signers: int) -> tuple[tuple[Kind, str], ...]:
    """Topics and groups of a system."""
    specs = topics.all_topics(prefix, apis, signers)
    groups = (topics.signer_group(prefix), topics.tail_group(prefix))
    return (*((Kind.TOPIC, spec.name) for spec in specs), *((Kind.GROUP, name) for name in groups))
