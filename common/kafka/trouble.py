"""What a process says of its broker: one line when it is lost, one when it is back, and no more than one of a kind
every half minute in between.

librdkafka writes a line per attempt to connect, client and address, some six a second while nobody answers: enough to
bury what a person has to read. What that person has to mend (a wrong password, an unknown host, TLS) is one line that
names the setting. Told from any thread.
"""

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Final

from common.kafka.port import KafkaSettings

BRAKE_S: Final = 30.0
EXPLAINED_S: Final = 5.0
"""A connection that failed this recently, with a reason that was said, is why the broker is lost."""
_MOST_KINDS: Final = 256

_CONNECTION: Final = frozenset({"FAIL", "ERROR"})
"""librdkafka's names of lines about a connection: the same is told as an error, and classified there."""
_AFTER = re.compile(r" \(after \d+ms in state \w+\)|, \d+ identical error\(s\) suppressed")

_logger = logging.getLogger("common.kafka")


class Trouble:
    """One per process: all its clients tell it, and it tells the log."""

    def __init__(self, settings: KafkaSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = settings.bootstrap
        bootstrap, security = (f"{settings.variables}KAFKA_{name}" for name in ("BOOTSTRAP", "SECURITY_FILE"))
        protocol = settings.security.get("security.protocol")
        self._unreachable = (
            f"is Kafka running there, and is {bootstrap} right?"
            if protocol is None
            else f"is Kafka there, with {protocol}, and are {bootstrap} and the file named by {security} right?"
        )
        self._remedies = {
            "host": f"its host name is not known: correct {bootstrap}",
            "credentials": f"it refuses who we say we are: correct sasl.* in the file named by {security}",
            "tls": f"no TLS connection: correct security.protocol and ssl.* in the file named by {security}",
            "hangs-up": f"it hangs up: it is starting, or wants TLS or SASL; if so, say how in the file of {security}",
        }
        self._lock = threading.Lock()
        self._said: dict[str, tuple[float, int]] = {}
        self._cause = ""
        self._explained = -EXPLAINED_S
        self._lost_at: float | None = None

    def log(self, level: int, form: str, *args: object) -> None:
        """librdkafka's own lines; it calls this like a ``logging.Logger``'s."""
        text = form % args if args else form
        if args and args[0] in _CONNECTION:
            _logger.debug("%s", text)
            return
        with self._lock:
            more = self._brake(re.sub(r"\d+", "#", text))
        if more is not None:
            _logger.log(level, "%s%s", text, more)

    def failed(self, name: str, text: str) -> None:
        """A connection failed, or could not be made.

        Args:
            name: librdkafka's name of the error, ``_TRANSPORT`` say.
            text: What it says of it.
        """
        text = _AFTER.sub("", text)
        kind = _kind(name, text)
        with self._lock:
            now = self._clock()
            if kind is None:
                self._cause = text
                lost_at = self._lost_at
                # Told as lost already: said again now and then, because an outage that nobody mentions looks over.
                more = self._brake("lost") if lost_at is not None else None
            else:
                self._explained = now
                more = self._brake(kind)
        if more is None:
            return
        if kind is not None:
            _logger.error("the broker at %s: %s (%s)%s", self._at, self._remedies[kind], text, more)
        elif lost_at is not None:
            _logger.warning("still no broker answers at %s, for %.0f s now (%s)", self._at, now - lost_at, text)

    def lost(self) -> None:
        """No broker answers, for this process as a whole."""
        with self._lock:
            now = self._lost_at = self._clock()
            self._said["lost"] = (now, 0)
            explained = now - self._explained < EXPLAINED_S
            cause = f" ({self._cause})" if self._cause else ""
        if not explained:
            _logger.warning("no broker answers at %s%s: %s", self._at, cause, self._unreachable)

    def back(self) -> None:
        """A broker answers, at the start or again."""
        with self._lock:
            lost_at, self._lost_at = self._lost_at, None
            away_s = 0.0 if lost_at is None else self._clock() - lost_at
            # What goes wrong after this is a new story.
            self._said.clear()
            self._cause = ""
        if lost_at is None:
            _logger.info("the broker at %s answers", self._at)
        else:
            _logger.warning("the broker at %s answers again, after %.1f s", self._at, away_s)

    def _brake(self, kind: str) -> str | None:
        """None: not now. Else what to add to the line. With the lock held."""
        now = self._clock()
        at, held_back = self._said.get(kind, (-BRAKE_S, 0))
        if now - at < BRAKE_S:
            self._said[kind] = (at, held_back + 1)
            return None
        if len(self._said) >= _MOST_KINDS:
            self._said.clear()
        self._said[kind] = (now, 0)
        return f" ({held_back} more like this were held back)" if held_back else ""


def _kind(name: str, text: str) -> str | None:
    if name == "_AUTHENTICATION":
        return "credentials"
    if name == "_RESOLVE":
        return "host"
    if name == "_SSL" or "SSL handshake" in text:
        return "tls"
    if "security.protocol" in text:
        return "hangs-up"
    return None
