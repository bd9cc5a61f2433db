"""Who calls, what he may use, and how much of it: bearer tokens (RFC 6750), keys, rates.

No HTTP here: ``dependencies`` takes the header and the address, and turns what is raised into problems. A token is
found by the SHA-256 of what the caller sent: how long that takes tells nothing about the tokens that exist.

The rates are this pod's own: with K pods, a caller that reaches them all has K times as much.
"""

import asyncio
import functools
import ipaddress
import math
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import limits
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from common.errors import BadInput
from common.ids import KeyId
from rest_api.token_file import ANONYMOUS, Rate, Token, digest, read_token_file

RELOAD_EVERY_S: Final = 2.0
MOST_ADDRESSES: Final = 8_192
"""Addresses counted apart at one time; whoever comes beyond shares one count, so that they cannot fill our memory."""
MOST_FORWARDED: Final = 16

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Stamp = tuple[int, int, int, int]


class UnknownCaller(Exception):
    """No token where one is needed, or one that the file does not have."""

    def __init__(self, *, presented: bool) -> None:
        super().__init__("unknown token" if presented else "no token")
        self.presented = presented


class TooFast(Exception):
    """The rate is used up. ``retry_after_s`` is at least 1."""

    def __init__(self, rate: Rate, retry_after_s: int) -> None:
        super().__init__(f"more than {rate}")
        self.rate = rate
        self.retry_after_s = retry_after_s


class NeverFits(Exception):
    """More at once than the rate ever lets through."""

    def __init__(self, rate: Rate) -> None:
        super().__init__(f"more at once than {rate} lets through")
        self.rate = rate


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes this request. ``principal`` goes into the record, the audit and the log.

    ``counted_as`` names the count that his requests go to, ``rate`` bounds it; None: nothing is counted.
    """

    principal: str
    keys: frozenset[KeyId] | None
    counted_as: str
    rate: Rate | None

    def may_use(self, key_id: KeyId) -> bool:
        """Whether he may have signatures of that key."""
        return self.keys is None or key_id in self.keys


class Callers:
    """The tokens of the file as it is now, and the counts.

    Args:
        path: The token file; None: everybody is anonymous.
        address_rate: Of each address, for requests without a token; None: no limit.
        trusted_proxies: Networks whose X-Forwarded-For is believed.

    Raises:
        BadInput: the file is not as it must be.
    """

    def __init__(
        self, path: Path | None, address_rate: Rate | None = None, trusted_proxies: Iterable[Network] = ()
    ) -> None:
        self._path = path
        self._address_rate = address_rate
        self._proxies = tuple(trusted_proxies)
        self._tokens: dict[bytes, Token] = {}
        self._stamp: Stamp | None = None
        self._counts = MemoryStorage()
        self._limiter = SlidingWindowCounterRateLimiter(self._counts)
        if path is not None:
            self._stamp = _stamp(path)
            self._take(read_token_file(path))

    @property
    def tokens_needed(self) -> bool:
        """Whether signing asks for a token."""
        return self._path is not None

    def names(self) -> list[str]:
        """Every token's name."""
        return [token.name for token in self._tokens.values()]

    def strangers(self, known: Container[KeyId]) -> list[str]:
        """Tokens that name a key which is not among ``known``, such as ``billing: defualt``: it opens nothing."""
        return [
            f"{token.name}: {key_id}"
            for token in self._tokens.values()
            for key_id in sorted(token.keys or ())
            if key_id not in known
        ]

    def identify(self, authorization: str | None, address: str) -> Caller:
        """Return who calls.

        Args:
            authorization: The header's value, if there was one.
            address: As ``address_of`` found it.

        Raises:
            UnknownCaller: a token is needed.
        """
        if self._path is None:
            # A header that nobody here can check is no identity, and no reason to refuse either.
            return self.anonymous(address)
        scheme, _, given = (authorization or "").partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given:
            raise UnknownCaller(presented=authorization is not None)
        token = self._tokens.get(digest(given))
        if token is None:
            raise UnknownCaller(presented=True)
        return Caller(token.name, token.keys, f"token {token.name}", token.rate)

    def anonymous(self, address: str) -> Caller:
        """A caller of whom only the address is known."""
        return Caller(ANONYMOUS, None, f"address {address}", self._address_rate)

    def charge(self, caller: Caller, cost: int = 1, whole: int = 0) -> None:
        """Count ``cost`` items for the caller, of ``whole`` in one request; what is refused is not counted.

        Raises:
            NeverFits: more than the rate allows at once. TooFast: more than there is room for now.
        """
        if caller.rate is None:
            return
        if max(cost, whole) > caller.rate.amount:
            raise NeverFits(caller.rate)
        if cost == 0:
            return
        item = _limit(caller.rate)
        name = caller.counted_as
        if len(self._counts.expirations) > 2 * MOST_ADDRESSES and name.startswith("address "):
            name = "addresses beyond"
        if self._limiter.hit(item, name, cost=cost):
            return
        # A window that slides makes room little by little: at least as long as this many items take at that rate.
        period = item.get_expiry()
        free_at = self._limiter.get_window_stats(item, name).reset_time
        wait = max(free_at - time.time(), cost * period / caller.rate.amount)
        raise TooFast(caller.rate, min(max(1, math.ceil(wait)), period))

    def address_of(self, peer: str | None, forwarded_for: Iterable[str]) -> str:
        """The address that a request is counted under: the nearest one that no trusted proxy vouches for as its own.

        Args:
            peer: Who is at the other end of the connection.
            forwarded_for: The X-Forwarded-For headers, in order.
        """
        hops = [hop for line in forwarded_for for hop in line.split(",")]
        if not hops:
            return _counted_as(peer or "")
        nearest = _address(peer or "")
        if nearest is None:
            return "unknown"
        for hop in reversed(hops[-MOST_FORWARDED:]):
            if not self._is_proxy(nearest):
                break
            found = _address(hop.strip())
            if found is None:
                break
            nearest = found
        return _shown(nearest)

    def _is_proxy(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self._proxies)

    def reload(self) -> str | None:
        """Read the file again if it is another than before; a wrong one leaves everything as it was.

        Returns:
            What is wrong with the new file, once; ``""`` if a new one was taken; None if there is nothing to say.
        """
        if self._path is None or (stamp := _stamp(self._path)) == self._stamp:
            return None
        self._stamp = stamp
        try:
            self._take(read_token_file(self._path))
        except BadInput as error:
            return error.detail
        return ""

    async def watch(self, told: Callable[[str], None]) -> None:
        """Reload for ever; ``told`` gets what ``reload`` returns when that is not None."""
        while True:
            await asyncio.sleep(RELOAD_EVERY_S)
            said = self.reload()
            if said is not None:
                told(said)

    def _take(self, tokens: Iterable[Token]) -> None:
        self._tokens = {token.sha256: token for token in tokens}


def _shown(address: Address) -> str:
    if address.version == 6:
        # A customer is given a /64 at least: one address of it is no identity.
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


@functools.lru_cache(maxsize=1024)
def _counted_as(peer: str) -> str:
    address = _address(peer)
    return "unknown" if address is None else _shown(address)


@functools.lru_cache(maxsize=1024)
def _limit(rate: Rate) -> limits.RateLimitItem:
    return limits.parse(str(rate))


def _stamp(path: Path) -> Stamp | None:
    """What changes when the file does; of the file behind a link, since mounted secrets are links that are turned."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode


def _address(text: str) -> Address | None:
    """An address as it stands in X-Forwarded-For: bare, or with a port, or in brackets."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
