"""One replica, from its first connection to its last commit: its ``parts`` started and ended, in the order they need.

Start: find the positions, replay the ceremony log, beat, and only then join the group: partitions are claimed by a
replica that knows what it can sign. End: say so in presence, fetch no more, finish, flush, commit, leave.
"""

import asyncio
import contextlib
from typing import Final

from common.kafka.port import Kafka
from common.observability.admin import Health
from common.observability.logging import get_logger
from signer_service.protocol.ceremony_state import RosterFile
from signer_service.protocol.machine import Tick
from signer_service.shell import health
from signer_service.shell.given import Given
from signer_service.shell.life import Life
from signer_service.shell.names import names
from signer_service.shell.parts import Parts
from signer_service.shell.waiting import wait_until

FLUSH_S: Final = 3.0
LOOK_S: Final = 0.1
"""How often silence is looked for: a seat that went away shall be noticed soon after it is overdue."""

SEAT_TAKEN: Final = (
    ": another process is a member under this seat's name: a second one of this replica, or another system on this "
    "broker with the same topic prefix, which needs one of its own"
)
"""Two systems that share all topics would end each other's signers for ever, and each be told of a stranger only."""

_log = get_logger(__name__)


class Replica:
    """Made on the running event loop. ``run`` until stopped; the two probes may be asked at any time."""

    def __init__(self, given: Given, kafka: Kafka) -> None:
        self._loop = asyncio.get_running_loop()
        self._given = given
        self._settings = given.settings
        self._kafka = kafka
        self._life = Life(self._loop)
        self.parts = Parts(given, kafka, self._life)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop``, then drain.

        Raises:
            Unavailable: Kafka, or something in it that is needed, is not there.
            Bug: what cannot happen did; one line was logged.
        """
        stopped = asyncio.create_task(stop.wait())
        try:
            if await self._life.first(self._start(), stopped):
                _log.info("serving", seat=self._settings.seat, admin_port=self._settings.port)
                await self._life.first(None, stopped)
                if not self._life.over:
                    await self._drain()
        finally:
            stopped.cancel()
            await self._close()
        self._life.check()

    def kafka_state(self, up: bool) -> None:
        """For ``Hooks.on_state``."""
        self._given.metrics.kafka_up.set(up)

    def fatal(self, line: str) -> None:
        """For ``Hooks.on_fatal``."""
        self._life.fatal(line + SEAT_TAKEN if "fenced by other consumer" in line else line)

    def liveness(self) -> Health:
        """For /healthz."""
        return health.liveness(self._kafka.heartbeats, self._given.sources.monotonic, self._life.dead)

    def readiness(self) -> Health:
        """For /readyz."""
        return self.parts.standing.readiness()

    def look_at_roster(self) -> None:
        """Read the roster file again: it may have changed."""
        self._given.roster_watch.look(lambda raw: self.parts.ceremonies.feed(RosterFile(raw)))

    async def _start(self) -> None:
        parts = self.parts
        parts.heartbeat.start()
        parts.producer.start()
        keys = await parts.readers.open(self._given.roster)
        parts.ceremonies.feed(RosterFile(self._given.roster_raw))
        self._life.task("ceremonies", parts.ceremonies.run())
        log = await parts.readers.read_log()
        self._life.task("unread", parts.readers.watch_log(keys))
        parts.standing.positioned = True
        parts.beats.start()
        self._life.task("watch", self._watch())
        await parts.readers.catch_up(log)
        await self._join()

    async def _join(self) -> None:
        settings, parts = self._settings, self.parts
        group = self._kafka.group(
            names(settings.topic_prefix).requests,
            parts.requests,
            member=f"signer-{settings.seat}",
            grace_s=settings.revoke_grace_ms / 1000 + 0.5,
        )
        parts.requests.attach(group)
        parts.standing.group = group
        await group.start()

    async def _watch(self) -> None:
        """What nobody tells us: silence, a changed roster file, a clock that goes wrong."""
        parts, sources, poll_s = self.parts, self._given.sources, self._settings.roster_poll_ms / 1000
        next_roster = self._loop.time() + poll_s
        while True:
            await asyncio.sleep(LOOK_S)
            parts.presence.look()
            parts.standing.look()
            if parts.ears.has_news():
                parts.ceremonies.feed(Tick())
            parts.watchdog.look(parts.ceremonies.state, parts.watch_peers.beats(), sources.now())
            for seat, age in parts.watch_peers.silence_s(sources.monotonic()).items():
                self._given.metrics.presence_age.labels(role="signer", seat=seat).set(age)
            if self._loop.time() >= next_roster:
                next_roster = self._loop.time() + poll_s
                self.look_at_roster()

    async def _drain(self) -> None:
        settings, parts = self._settings, self.parts
        _log.info("draining", unfinished=parts.requests.unfinished())
        parts.beats.draining = parts.standing.draining = True
        parts.beats.now()
        parts.requests.drain()
        began = self._loop.time()

        def finished() -> bool:
            if not self._kafka.up():
                return True  # nobody hears us, and nothing can be finished: what is not committed comes again
            announced = self._loop.time() - began >= settings.drain_announce_ms / 1000
            return self._life.over or (announced and not parts.requests.unfinished() and parts.outbox.idle)

        await wait_until(finished, settings.drain_ms / 1000)
        left = parts.requests.unfinished()
        if left:
            _log.warning("some records were left for another replica", records=left)

    async def _close(self) -> None:
        parts = self.parts
        if parts.standing.group is not None:
            await parts.standing.group.close()
        parts.beats.stop()
        parts.signing.stop()
        await self._life.end_tasks()
        await parts.readers.close()
        with contextlib.suppress(Exception):
            parts.outbox.flush()
        await parts.producer.flush(FLUSH_S if self._kafka.up() else 0)
        await parts.producer.close()
        parts.heartbeat.stop()
        try:
            await parts.ceremonies.finish()
        except OSError as error:
            self._life.fatal(f"the state directory cannot be written: {error.strerror}")
        _log.info("stopped")
