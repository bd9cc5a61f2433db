"""Reads every topic that matters while the system runs, and writes down every record: answers are kept five minutes."""

import asyncio
import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from common.kafka.client import KafkaClient
from common.kafka.port import Record, Start
from common.kafka.settings import KafkaSettings
from common.wire import topics
from tests.chaos import commits
from tests.chaos.evidence import Raw

CATCH_UP_S = 60.0


class Witness:
    """Reads from the first record on, over every outage; ``ends`` says up to where there was something to read."""

    def __init__(self, settings: KafkaSettings, apis: int, path: Path) -> None:
        self._names = [
            topics.requests(settings.topic_prefix).name,
            *(topics.responses(settings.topic_prefix, n).name for n in range(apis)),
            topics.audit(settings.topic_prefix).name,
            topics.dead_letters(settings.topic_prefix).name,
            topics.keys(settings.topic_prefix).name,
            topics.presence(settings.topic_prefix).name,
        ]
        self.bootstrap = settings.bootstrap
        self._presence = self._names[-1]
        self._requests = self._names[0]
        self._group = topics.signer_group(settings.topic_prefix)
        self._file = path.open("w", encoding="ascii")
        self._seen: dict[tuple[str, int], int] = {}
        self.committed: dict[int, int] = {}
        self._tail = KafkaClient(settings).tail(dict.fromkeys([*self._names, commits.TOPIC], Start()), self._deliver)

    async def __aenter__(self) -> Self:
        await self._tail.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tail.close()
        self._file.close()

    def _deliver(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.topic == commits.TOPIC:
                found = commits.parse(record.key or b"", record.value, self._group, self._requests)
                if found is None:
                    continue
                self.committed[found.partition] = found.offset
            self._seen[record.topic, record.partition] = record.offset + 1
            key, value = (base64.b64encode(each or b"").decode() for each in (record.key, record.value))
            at_ms = record.timestamp_ms or 0
            row = [record.topic, record.partition, record.offset, at_ms, key, value]
            self._file.write(json.dumps(row) + "\n")

    async def ends(self) -> dict[tuple[str, int], int]:
        """Where each partition ends now; for the beats, where we are."""
        found: dict[tuple[str, int], int] = {}
        for name in self._names:
            if name == self._presence:
                continue
            partitions = {self._requests: topics.REQUEST_PARTITIONS}.get(name, 3 if name.endswith(".audit") else 1)
            for partition in range(partitions):
                found[name, partition] = (await self._tail.watermarks(name, partition)).high
        return found

    def beats(self) -> int:
        """How far the topic of beats was read."""
        return self._seen.get((self._presence, 0), 0)

    def behind(self, ends: dict[tuple[str, int], int]) -> list[tuple[str, int]]:
        """The partitions that were not read up to there yet."""
        return [place for place, end in ends.items() if self._seen.get(place, 0) < end]

    async def catch_up(self, ends: dict[tuple[str, int], int]) -> None:
        """Return when all is read up to there, or when it has taken too long (which the checker will find)."""
        loop = asyncio.get_running_loop()
        end = loop.time() + CATCH_UP_S
        while self.behind(ends):
            if loop.time() > end:
                return
            await asyncio.sleep(0.05)


def read(path: Path) -> Iterator[Raw]:
    """All records that were written down."""
    with path.open(encoding="ascii") as lines:
        for line in lines:
            topic, partition, offset, at_ms, key, value = json.loads(line)
            yield Raw(topic, partition, offset, at_ms, base64.b64decode(key), base64.b64decode(value))
