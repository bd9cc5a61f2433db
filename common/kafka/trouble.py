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

from common.kafka.settings import KafkaSettings

BRAKE_S: Final = 30.0
EXPLAINED_S: Final = 5.0
"""A connection that failed this recently, with a reason that was said, is why the broker is lost."""
_MOST_KINDS: Final = 256

OLDEST_KAFKA: Final = "2.4"
"""All that we ask for is there from this version on; tests run on the one that the launcher names."""
REMEDIES: Final = {
    "host": "its host name is not known: correct {bootstrap}",
    "credentials": "it refuses who we say we are: correct sasl.* in the file named by {security}",
    "tls": "no TLS connection: correct security.protocol and ssl.* in the file named by {security}",
    "hangs-up": "it hangs up: it is starting, or wants TLS or SASL; if so, say how in the file of {security}",
}
"""What a person has to mend, by kind."""

_CONNECTION: Final = frozenset({"FAIL", "ERROR"})
"""librdkafka's names of lines about a connection: the same is told as an error, and classified there."""
_AFTER = re.compile(r" \(after \d+ms in state \w+\)|, \d+ identical error\(s\) suppressed")

_logger = logging.getLogger("common.kafka")


class Trouble:
    """One per process: all its clients tell it, and it tells the log."""

    def __init__(self, settings: KafkaSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = settings.bootstrap
        self._settings = settings
        self._remedies = {kind: remedy(kind, settings) for kind in REMEDIES}
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
        kind = kind_of(name, text)
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

    def denied(self, what: str) -> None:
        """The broker knows us, and does not allow us something.

        Args:
            what: The topic or the group, with that word before its name.
        """
        with self._lock:
            more = self._brake(f"denied {what}")
        if more is not None:
            _logger.error("%s (it is at %s)%s", not_allowed(what, self._settings), self._at, more)

    def lost(self) -> None:
        """No broker answers, for this process as a whole."""
        with self._lock:
            now = self._lost_at = self._clock()
            self._said["lost"] = (now, 0)
            explained = now - self._explained < EXPLAINED_S
            cause = f" ({self._cause})" if self._cause else ""
            # Refused or not found, it has not even begun to speak to us.
            remedies = unreachable(self._settings, connected=not self._cause)
        if not explained:
            _logger.warning("no broker answers at %s%s: %s", self._at, cause, remedies)

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


def remedy(kind: str, settings: KafkaSettings) -> str:
    """The line about one of ``REMEDIES``."""
    bootstrap, security = settings.told_by
    return REMEDIES[kind].format(bootstrap=bootstrap, security=security)


def unreachable(settings: KafkaSettings, *, connected: bool = True) -> str:
    """What to look at when no broker answers and nobody says why.

    Args:
        settings: Ours.
        connected: Somebody may be there, who hangs up.
    """
    bootstrap, security = settings.told_by
    protocol = settings.security.get("security.protocol")
    if protocol is not None:
        return f"is Kafka there, with {protocol}, and are {bootstrap} and the file named by {security} right?"
    locked = f" If it wants TLS or SASL, say how in a file, and name that by {security}." if connected else ""
    return f"is Kafka running there, and is {bootstrap} right?{locked}"


def not_allowed(what: str, settings: KafkaSettings) -> str:
    """The line about a rule that is missing.

    Args:
        what: The topic or the group, with that word before its name.
        settings: Ours.
    """
    return (
        f"the broker does not allow us {what}: add the rules of our principal (`signer-flow topics --acls` prints "
        f"them), or log in as who has them, by the file named by {settings.told_by[1]}"
    )


def too_old(settings: KafkaSettings) -> str:
    """The line about a broker that lacks what we cannot do without.

    librdkafka says so of idempotence (0.11). Without static members (2.3) a restarted signer only waits longer for its
    partitions, and nobody is told: hence the version that is named.
    """
    return (
        f"the broker at {settings.bootstrap} is too old: it needs Apache Kafka {OLDEST_KAFKA} or newer; upgrade it, or "
        f"name another by {settings.told_by[0]}"
    )


def kind_of(name: str, text: str) -> str | None:
    """Which of ``REMEDIES`` an error of librdkafka calls for; None: it may pass by itself."""
    if name == "_AUTHENTICATION":
        return "credentials"
    if name == "_RESOLVE":
        return "host"
    if name == "_SSL" or "SSL handshake" in text:
        return "tls"
    if "security.protocol" in text:
        return "hangs-up"
    return None
