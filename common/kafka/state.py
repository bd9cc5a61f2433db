"""Is the broker there? One answer per process, out of what each of its clients has seen.

librdkafka says when every broker is down, and never when one is back. So "up" is inferred: a delivery, a record, an
answered question, or a statistics report with a connected broker. Also here: the heartbeats of the client threads.
"""

import asyncio
import json
import logging
import time
from collections.abc import Mapping

from common.kafka.port import Hooks
from common.kafka.settings import KafkaSettings
from common.kafka.trouble import Trouble

SETTLE_S = 0.25
"""What comes this soon after the last broker went was fetched or delivered before: no evidence that one is back."""

_logger = logging.getLogger(__name__)


class Connection:
    """What the clients of one process share: loop, hooks, broker state, heartbeats."""

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: KafkaSettings, hooks: Hooks) -> None:
        self.loop = loop
        self.hooks = hooks
        self.trouble = Trouble(settings)
        self._seen: dict[str, bool] = {}
        self._up: bool | None = None
        self._beats: dict[str, float] = {}
        self._names: dict[str, int] = {}

    def up(self) -> bool:
        """What was told last; ``False`` before any evidence."""
        return self._up is True

    def heartbeats(self) -> Mapping[str, float]:
        """Thread name to ``time.monotonic()`` of its last turn. A thread that died badly stays in, and grows old."""
        return dict(self._beats)

    def witness(self, kind: str) -> "Witness":
        """A new client, with a name of its own."""
        number = self._names[kind] = self._names.get(kind, 0) + 1
        return Witness(self, f"kafka-{kind}-{number}")

    def post(self, callback: object, *args: object) -> bool:
        """Have something called on the event loop, from any thread. ``False``: the loop is closed, nobody is there."""
        try:
            self.loop.call_soon_threadsafe(callback, *args)  # type: ignore[arg-type]
        except RuntimeError:
            return False
        return True

    def fatal(self, detail: str) -> None:
        """Tell that a client cannot go on. From any thread."""
        if not self.post(self.hooks.on_fatal, detail):
            _logger.error("kafka client ended: %s", detail)

    def beat(self, name: str) -> None:
        """A client's thread has made another turn. From that thread."""
        self._beats[name] = time.monotonic()

    def forget(self, name: str) -> None:
        """A client was closed in order. On the loop."""
        self._beats.pop(name, None)
        if self._seen.pop(name, None) is not None and self._seen:
            self._judge()

    def tell(self, name: str, up: bool) -> None:
        """A client's evidence changed. On the loop."""
        self._seen[name] = up
        self._judge()

    def _judge(self) -> None:
        # One client that cannot reach anybody is enough: a process that can read but not write is of no use.
        now = all(self._seen.values())
        if now != self._up:
            self._up = now
            if now:
                self.trouble.back()
            else:
                self.trouble.lost()
            self.hooks.on_state(now)


class Witness:
    """One client's view. ``closed`` is for the event loop, the rest for the client's thread."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.name = name
        self._last: bool | None = None
        self._down_at = -SETTLE_S
        self._ended = False

    def fatal(self, detail: str) -> None:
        """This client cannot go on. Told once: the first reason is the true one, the others follow from it."""
        if not self._ended:
            self._ended = True
            self.connection.fatal(f"{self.name}: {detail}")

    def beat(self) -> None:
        """The thread has made another turn."""
        self.connection.beat(self.name)

    def seen_up(self) -> None:
        """A broker has answered. Cheap when nothing changes."""
        if self._last is not True and time.monotonic() - self._down_at >= SETTLE_S:
            self._last = True
            self.connection.post(self.connection.tell, self.name, True)

    def failed(self, name: str, text: str) -> None:
        """A connection failed; ``name`` is librdkafka's of the error. The log is told, once of a kind."""
        self.connection.trouble.failed(name, text)

    def seen_down(self) -> None:
        """No broker can be reached."""
        if self._last is not False:
            self._last = False
            self._down_at = time.monotonic()
            self.connection.post(self.connection.tell, self.name, False)

    def statistics(self, text: str) -> None:
        """librdkafka's statistics JSON: passed on, and looked at for a connected broker.

        No connected broker proves nothing: an idle client may have none while all is well.
        """
        self.connection.post(self.connection.hooks.on_statistics, self.name, text)
        brokers = json.loads(text).get("brokers", {}).values()
        if any(broker.get("state") == "UP" for broker in brokers):
            self.seen_up()

    def closed(self) -> None:
        """The client ended in order: it is no longer asked, and no longer watched. On the loop."""
        self.connection.forget(self.name)
