"""Looks at topics, and at who may use them, and makes both, from the tables.

The client's calls wait, so they run on a thread of their own; only one at a time, in the order asked.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from common.errors import BadInput, Unavailable
from common.kafka import options
from common.kafka.owner import DENIED, TOPIC_MISSING, TRANSIENT
from common.kafka.port import Difference, Ensured
from common.kafka.settings import KafkaSettings
from common.kafka.trouble import kind_of, not_allowed, remedy, unreachable
from common.wire.access import Acl, Kind, Resource
from common.wire.topics import TopicSpec

_CALL_S = 10.0
_QUESTION_S = 1.0
"""Asked again until ``_CALL_S`` is over: a thread that waits for an answer cannot be told to end."""
_VISIBLE_S = 20.0
_PAUSE_S = 0.1
_CLOSE_S = 5.0

_HOPELESS = {"credentials", "tls"}
_KINDS = {ResourceType.TOPIC: Kind.TOPIC, ResourceType.GROUP: Kind.GROUP}
_TYPES = {kind: resource_type for resource_type, kind in _KINDS.items()}

Answer = TypeVar("Answer")


class RealAdmin:
    """``port.Admin`` on confluent-kafka."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka-admin")
        self._client: AdminClient | None = None
        self._why = ""
        """What a person has to mend before any broker answers: librdkafka says it beside, and then only times out."""
        self._hopeless = False
        """Asking again cannot help before it is mended."""
        self._closed = False

    async def topics(self) -> Mapping[str, int]:
        return await self._on_thread(self._topics)

    async def describe(self, specs: Sequence[TopicSpec]) -> tuple[Difference, ...]:
        return await self._on_thread(lambda: self._differences(specs, self._topics()))

    async def ensure(self, specs: Sequence[TopicSpec]) -> Ensured:
        return await self._on_thread(lambda: self._ensure(specs))

    async def delete(self, names: Sequence[str]) -> None:
        prefix = self._settings.topic_prefix
        if not prefix or not all(name.startswith(prefix) for name in names):
            raise BadInput("topic-prefix", "only topics under our own prefix are deleted", "topic_prefix")
        await self._on_thread(lambda: self._delete(names))

    async def acls(self) -> frozenset[Acl]:
        return await self._on_thread(self._acls)

    async def allow(self, rules: Sequence[Acl]) -> None:
        await self._on_thread(lambda: self._allow(rules))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            # The client goes on the thread that made it; its last reference ends librdkafka's threads.
            await asyncio.wait_for(loop.run_in_executor(self._thread, self._drop), _CLOSE_S)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _on_thread(self, work: Callable[[], Answer]) -> Answer:
        if self._closed:
            raise Unavailable("broker-unreachable", "the admin client is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except KafkaException as error:
            raise self._as_ours(error.args[0]) from error

    # The admin thread.

    def _admin(self) -> AdminClient:
        if self._client is None:
            try:
                config: dict[str, Any] = {**options.admin(self._settings), "error_cb": self._on_error}
                self._client = AdminClient(config)
            except KafkaException as refused:
                where = self._settings.told_by[1]
                raise BadInput("kafka-security-option", f"{where}: {refused.args[0].str()}", "security") from None
        return self._client

    def _on_error(self, error: KafkaError) -> None:
        if (kind := kind_of(error.name(), error.str())) is not None:
            self._why = f"{remedy(kind, self._settings)} ({error.str()})"
            self._hopeless = kind in _HOPELESS

    def _drop(self) -> None:
        self._client = None

    def _topics(self) -> dict[str, int]:
        # All of them, never one by name: asking for a name can make the topic.
        found = self._listed().topics
        prefix = self._settings.topic_prefix
        return {
            name: sum(partition.leader >= 0 for partition in topic.partitions.values())
            for name, topic in found.items()
            if name.startswith(prefix) and topic.error is None
        }

    def _listed(self) -> ClusterMetadata:
        end = time.monotonic() + _CALL_S
        while True:
            try:
                found = self._admin().list_topics(timeout=_QUESTION_S)
            except KafkaException as error:
                self._admin().poll(0)  # what is wrong with the connection is only told here
                if self._closed or self._hopeless or error.args[0].code() not in TRANSIENT or time.monotonic() > end:
                    raise
            else:
                self._why, self._hopeless = "", False
                return found

    def _ensure(self, specs: Sequence[TopicSpec]) -> Ensured:
        present = self._topics()
        missing = [spec for spec in specs if spec.name not in present]
        if missing and self._settings.embedded:
            names = ", ".join(spec.name for spec in missing)
            raise Unavailable("topic-missing", f"{names}: on the embedded broker only its owner makes topics")
        created = tuple(spec.name for spec in missing if self._create(spec))
        self._wait_until_usable(missing)
        return Ensured(created, self._differences([spec for spec in specs if spec.name in present], present))

    def _create(self, spec: TopicSpec) -> bool:
        topic = NewTopic(spec.name, spec.partitions, spec.replication, config=spec.config)
        try:
            self._admin().create_topics([topic], request_timeout=_CALL_S)[spec.name].result(_CALL_S * 2)
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.TOPIC_ALREADY_EXISTS:  # two processes at their start: one was first
                return False
            if code in DENIED:
                made_by = "whoever may makes it with `signer-flow topics --create`"
                hidden = not_allowed(f"topic {spec.name}", self._settings)
                text = f"{spec.name} is missing ({made_by}), or it is there and {hidden}"
                raise Unavailable("not-authorized", text) from error
            if code in TRANSIENT:
                raise
            raise Unavailable("topic-create", f"{spec.name}: {_text(error.args[0])}") from error
        return True

    def _delete(self, names: Sequence[str]) -> None:
        for result in self._admin().delete_topics(list(names), request_timeout=_CALL_S).values():
            try:
                result.result(_CALL_S * 2)
            except KafkaException as error:
                if error.args[0].code() not in TOPIC_MISSING:
                    raise

    def _wait_until_usable(self, specs: Sequence[TopicSpec]) -> None:
        end = time.monotonic() + _VISIBLE_S
        while missing := [spec.name for spec in specs if self._topics().get(spec.name, 0) < spec.partitions]:
            if time.monotonic() > end or self._closed:
                raise Unavailable("topic-create", f"{', '.join(missing)}: created, but without leaders")
            time.sleep(_PAUSE_S)

    def _differences(self, specs: Sequence[TopicSpec], present: Mapping[str, int]) -> tuple[Difference, ...]:
        differences = []
        readable = []
        for spec in specs:
            if spec.name not in present:
                differences.append(Difference(spec.name, "existence", "there", "missing"))
                continue
            if present[spec.name] != spec.partitions:
                found = str(present[spec.name])
                differences.append(Difference(spec.name, "partitions", str(spec.partitions), found))
            readable.append(spec)
        if readable and not self._settings.embedded:  # the embedded broker knows no topic configuration
            for spec in readable:
                differences.extend(self._config_differences(spec))
        return tuple(differences)

    def _config_differences(self, spec: TopicSpec) -> list[Difference]:
        resource = ConfigResource(ResourceType.TOPIC, spec.name)
        try:
            entries = self._admin().describe_configs([resource], request_timeout=_CALL_S)[resource].result(_CALL_S * 2)
        except KafkaException as error:
            # A pod that may only read its own topic may well not read configurations: no reason not to start.
            if error.args[0].code() in DENIED.keys() | TOPIC_MISSING:
                return [Difference(spec.name, "configuration", "readable", _text(error.args[0]))]
            raise
        wanted = spec.config
        found = {name: entry.value for name, entry in entries.items() if name in wanted}
        return [
            Difference(spec.name, name, value, str(found.get(name)))
            for name, value in wanted.items()
            if found.get(name) != value
        ]

    def _acls(self) -> frozenset[Acl]:
        self._listed()  # waits for the broker as long as it may take, and says what keeps us from it
        cluster = self._admin().describe_cluster(include_authorized_operations=True, request_timeout=_CALL_S)
        if AclOperation.DESCRIBE not in (cluster.result(_CALL_S * 2).authorized_operations or ()):
            # Asked for its rules, it would answer "none", as librdkafka has it.
            raise Unavailable("not-authorized", not_allowed("to see its rules", self._settings))
        every = AclBindingFilter(
            ResourceType.ANY,
            None,  # type: ignore[arg-type] # any name, principal, host, as the library's own text has it
            ResourcePatternType.ANY,
            None,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        found = self._admin().describe_acls(every, request_timeout=_CALL_S).result(_CALL_S * 2)
        return frozenset(_acl(each) for each in found if each.restype in _KINDS)

    def _allow(self, rules: Sequence[Acl]) -> None:
        if rules:
            done = self._admin().create_acls([_binding(rule) for rule in rules], request_timeout=_CALL_S)
            for result in done.values():
                result.result(_CALL_S * 2)

    def _as_ours(self, error: KafkaError) -> Unavailable:
        if error.code() in DENIED:
            what = "that of the whole cluster" if DENIED[error.code()] == "cluster" else f"that {DENIED[error.code()]}"
            # Its text is no help: for some requests it is the request itself, over many lines.
            return Unavailable("not-authorized", f"{not_allowed(what, self._settings)} ({error.name()})")
        if error.code() == KafkaError.SECURITY_DISABLED:
            return Unavailable("no-authorizer", "the broker has no authorizer: whoever reaches it may do everything")
        why = self._why or f"{_text(error)}; {unreachable(self._settings)}"
        return Unavailable("broker-unreachable", f"no broker answers at {self._settings.bootstrap}: {why}")


def _text(error: KafkaError) -> str:
    return f"{error.name()}: {error.str()}"


def _acl(binding: AclBinding) -> Acl:
    prefixed = binding.resource_pattern_type is ResourcePatternType.PREFIXED
    operation = cast("AclOperation", binding.operation).name.title().replace("_", "")
    resource = Resource(_KINDS[cast("ResourceType", binding.restype)], binding.name, prefixed)
    return Acl(binding.principal, resource, operation, binding.host, binding.permission_type is AclPermissionType.DENY)


def _binding(rule: Acl) -> AclBinding:
    """Rules of ours only: they allow."""
    operation = next(each for each in AclOperation if each.name.title().replace("_", "") == rule.operation)
    pattern = ResourcePatternType.PREFIXED if rule.resource.prefixed else ResourcePatternType.LITERAL
    kind, name = _TYPES[rule.resource.kind], rule.resource.name
    return AclBinding(kind, name, pattern, rule.principal, rule.host, operation, AclPermissionType.ALLOW)
