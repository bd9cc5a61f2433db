"""Looks at topics and makes them, from the table.

The client's calls wait, so they run on a thread of their own; only one at a time, in the order asked.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from common.errors import BadInput, Unavailable
from common.kafka import options
from common.kafka.owner import TOPIC_MISSING, TRANSIENT
from common.kafka.port import Difference, Ensured, KafkaSettings
from common.wire.topics import TopicSpec

_CALL_S = 10.0
_QUESTION_S = 1.0
"""Asked again until ``_CALL_S`` is over: a thread that waits for an answer cannot be told to end."""
_VISIBLE_S = 20.0
_PAUSE_S = 0.1
_CLOSE_S = 5.0

_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
}

Answer = TypeVar("Answer")


class RealAdmin:
    """``port.Admin`` on confluent-kafka."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka-admin")
        self._client: AdminClient | None = None
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
            raise _as_ours(error.args[0], self._settings.bootstrap) from error

    # The admin thread.

    def _admin(self) -> AdminClient:
        if self._client is None:
            self._client = AdminClient(options.admin(self._settings))
        return self._client

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
                return self._admin().list_topics(timeout=_QUESTION_S)
            except KafkaException as error:
                if self._closed or error.args[0].code() not in TRANSIENT or time.monotonic() > end:
                    raise

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
            if code in _DENIED or code in TRANSIENT:
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
            if error.args[0].code() in _DENIED | TOPIC_MISSING:
                return [Difference(spec.name, "configuration", "readable", _text(error.args[0]))]
            raise
        wanted = spec.config
        found = {name: entry.value for name, entry in entries.items() if name in wanted}
        return [
            Difference(spec.name, name, value, str(found.get(name)))
            for name, value in wanted.items()
            if found.get(name) != value
        ]


def _text(error: KafkaError) -> str:
    return f"{error.name()}: {error.str()}"


def _as_ours(error: KafkaError, bootstrap: str) -> Unavailable:
    if error.code() in _DENIED:
        return Unavailable("not-authorized", f"the broker does not allow it ({_text(error)})")
    return Unavailable("broker-unreachable", f"no broker answers at {bootstrap} ({_text(error)})")
