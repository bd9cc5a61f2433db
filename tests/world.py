"""A hostile world for ceremonies: n seats, one log, a clock of its own, all from a seed.

Sends arrive late, twice, in another order, or not at all; others write rubbish into the log; a process dies before and
after any durable write and after any send, and starts again from what its disk holds. An adversary is a function that
is handed a record that its seat wants to send, and returns what goes out instead.

The signing machines are stood in for by FROST itself: a seat whose turn it is to coordinate gets a signature when t
seats would sign the very same bytes with their staged shares.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from random import Random  # noqa: TID251 - a simulated world has to come out the same again
from typing import Any

from common.ids import Index, Instant, KeyId, Offset, OpenId
from common.wire.messages import AuditEntry, AuditEvent, AuditKind, CeremonyRecord, KeyRecord
from signer_service.protocol import ceremony
from signer_service.protocol.ceremony_disk import Durable, durable, restore
from signer_service.protocol.ceremony_state import (
    CaughtUp,
    CeremonyState,
    CeremonyTiming,
    Event,
    LogRecord,
    RosterFile,
    SendFailed,
)
from signer_service.protocol.ceremony_view import epoch_keys, signing_view
from signer_service.protocol.log_state import KeyLog
from signer_service.protocol.machine import (
    InternalSigned,
    Note,
    Outgoing,
    Peer,
    PeersChanged,
    RefreshAsked,
    Tick,
    ToAudit,
    ToKeys,
    ToLog,
)
from signer_service.protocol.view import EpochKeys
from tests import playbook

Tamper = Callable[[CeremonyRecord, "World"], Iterable[CeremonyRecord]]


@dataclass(frozen=True)
class Weather:
    """Probabilities, per send or step."""

    lose: float = 0.0
    repeat: float = 0.0
    fail: float = 0.0
    crash: float = 0.0
    rubbish: float = 0.0
    delay_ms: int = 20


CALM = Weather()
HOSTILE = Weather(lose=0.08, repeat=0.1, fail=0.04, crash=0.015, rubbish=0.15, delay_ms=150)


@dataclass
class SimSeat:
    index: int
    roster: bytes
    name: str
    tamper: Tamper | None = None
    state: CeremonyState | None = None
    stored: Durable | None = None
    kept: CeremonyState | None = None
    """What was written last, if nobody has looked at its bytes yet: states never change, so they can be made then."""
    life: int = 0
    next_offset: int = 0
    catch_up: int | None = None
    wake: int = 0
    steps: int = 0
    crash_at: tuple[int, str] = (0, "")
    """In which step that writes or sends anything (from 1), and where in it: "write", "send" or "sent"."""
    notes: list[Note] = field(default_factory=list)
    audit: list[AuditEvent] = field(default_factory=list)
    published: list[KeyRecord] = field(default_factory=list)

    @property
    def disk(self) -> Durable | None:
        """What is on its disk."""
        if self.kept is not None:
            self.stored, self.kept = durable(self.kept), None
        return self.stored

    @disk.setter
    def disk(self, found: Durable | None) -> None:
        self.stored, self.kept = found, None


class World:
    """Run it with ``run`` until something holds; ``seats[i].state`` is None while a seat is down."""

    def __init__(
        self,
        threshold: int,
        size: int,
        seed: int = 0,
        weather: Weather = CALM,
        keys: Iterable[str] = (playbook.KEY,),
        timing: CeremonyTiming = playbook.QUICK,
    ) -> None:
        self.random = Random(seed)
        self.weather = weather
        self.timing = timing
        self.house = playbook.House()
        self.trust = self.house.trust
        self.now = 1_000_000
        self.log: list[bytes] = []
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self.keys = tuple(map(KeyId, keys))
        roster = self.house.roster(threshold, range(1, size + 1), keys=self.keys)
        self.seats = {i: SimSeat(i, roster, f"seat {i}") for i in range(1, size + 1)}
        self.down: set[int] = set()
        self.generation = 1
        self.lazy = False
        """Whether a disk is written only when secrets changed or something is to be sent, as the shell does."""
        self.on_point: Callable[[SimSeat, str], None] | None = None
        """Is called before and after each durable write and after each send: where a process may die."""
        self.watch: Callable[[SimSeat, CeremonyState], None] | None = None
        """Is shown each state that a seat has written down."""
        self.shown: dict[int, list[bytes]] = {}
        """Seats that a lying broker shows another log than the others, and what it shows them."""
        self.written: Instant | None = None
        """What the broker says of when each record was written; None: the truth."""

    # --- time --------------------------------------------------------------------------------------------------------

    def at(self, delay: int, action: Callable[..., None], *args: Any) -> None:
        """Let something happen later. Only methods with arguments that never change come along into a branch."""
        self._count += 1
        heappush(self._queue, (self.now + delay, self._count, action, args))

    def run(self, until: Callable[[], bool], limit_ms: int = 600_000) -> None:
        """Let time pass until ``until()``; fails when it does not come true within the limit."""
        end = self.now + limit_ms
        while not until():
            assert self._queue, "nothing happens any more: " + self.describe()
            when, _, action, args = heappop(self._queue)
            assert when <= end, f"not within {limit_ms} ms: " + self.describe()
            self.now = max(self.now, when)
            action(*args)

    def run_for(self, ms: int) -> None:
        end = self.now + ms
        while self._queue and self._queue[0][0] <= end:
            self.now, _, action, args = heappop(self._queue)
            action(*args)
        self.now = end

    def entropy(self, size: int) -> bytes:
        return self.random.randbytes(size)

    # --- seats -------------------------------------------------------------------------------------------------------

    def start(self, *indices: int) -> None:
        for index in indices or tuple(self.seats):
            self._boot(self.seats[index])

    def stop(self, index: int) -> None:
        """The process dies and stays away until ``start``."""
        self.seats[index].state = None
        self.down.add(index)
        self._presence()

    def lose_disk(self, index: int) -> None:
        self.stop(index)
        self.seats[index].disk = None

    def _boot(self, seat: SimSeat) -> None:
        self.down.discard(seat.index)
        seat.life += 1
        if seat.disk is None:
            seat.state = ceremony.start(Index(seat.index), self.trust, self.timing)
        else:
            roster = self.trust.wire.read_roster(seat.roster)
            seat.state = restore(
                seat.disk,
                Index(seat.index),
                self.trust,
                self.timing,
                generation=self.generation,
                checkpoints=roster.checkpoints,
            )
        seat.next_offset = seat.state.log.offset + 1
        seat.catch_up = len(self.seen_by(seat.index))
        self._feed(seat, RosterFile(seat.roster))
        self._presence()
        self.at(self._delay(), self._pump, seat.index, seat.life)

    def _presence(self) -> None:
        alive = {Index(i): seat for i, seat in self.seats.items() if seat.state is not None}
        live = {
            i: Peer(
                i,
                playbook.boot(f"{seat.name} {seat.life}"),
                False,
                {key: keys.epoch for key, keys in self.view_keys(i).items() if keys.share is not None},
            )
            for i, seat in alive.items()
        }
        for seat in alive.values():
            self.at(0, self._hear, seat.index, PeersChanged(live))

    def _hear(self, index: int, event: Event) -> None:
        self._feed(self.seats[index], event)

    def _delay(self) -> int:
        return self.random.randint(1, self.weather.delay_ms)

    def _happens(self, chance: float) -> bool:
        return chance > 0 and self.random.random() < chance

    def _pump(self, index: int, life: int) -> None:
        """Hand a seat the records that it has not had, one by one; then, once, the word that it caught up."""
        seat = self.seats[index]
        while seat.life == life and seat.state is not None:
            if seat.catch_up is not None and seat.next_offset >= seat.catch_up:
                seat.catch_up = None
                self._feed(seat, CaughtUp())
                continue
            log = self.seen_by(index)
            if seat.next_offset >= len(log):
                return
            offset = seat.next_offset
            seat.next_offset += 1
            self._feed(seat, LogRecord(Offset(offset), log[offset], self.written or Instant(self.now)))

    def _feed(self, seat: SimSeat, event: Event) -> None:
        if seat.state is None:
            return None
        transition = ceremony.step(seat.state, event, Instant(self.now), self.entropy)
        matters = bool(transition.send) or transition.state.secrets != seat.state.secrets
        seat.steps += matters
        plan = seat.crash_at[1] if matters and seat.crash_at[0] == seat.steps else ""
        before, seat.state = seat.state, transition.state
        seat.notes += transition.notes
        if plan == "write" or self._happens(self.weather.crash):
            return self._crash(seat, planned=bool(plan))
        writes = not self.lazy or bool(transition.send) or transition.state.secrets != before.secrets
        if writes:
            self._point(seat, "before write")
            seat.kept = transition.state
            if self.watch is not None:
                self.watch(seat, transition.state)
        if transition.state.committed != before.committed:
            self.at(1, self._presence)
        if plan == "send" or self._happens(self.weather.crash):
            return self._crash(seat, planned=bool(plan))
        if writes:
            self._point(seat, "after write")
        for each in transition.send:
            self._leave(seat, each)
            self._point(seat, f"after {type(each).__name__}")
            if self._happens(self.weather.crash / 2):
                return self._crash(seat)
        if plan == "sent":
            return self._crash(seat, planned=True)
        seat.wake += 1
        if transition.wake_at is not None:
            self.at(max(1, transition.wake_at - self.now), self._tick, seat.index, seat.life, seat.wake)
        self._sign(seat)
        return None

    def _leave(self, seat: SimSeat, each: Outgoing) -> None:
        if isinstance(each, ToLog):
            self._send(seat, each.message)
        elif isinstance(each, ToKeys):
            seat.published.append(each.record)
        elif isinstance(each, ToAudit):
            seat.audit.append(each.event)

    def _point(self, seat: SimSeat, place: str) -> None:
        if self.on_point is not None:
            self.on_point(seat, place)

    def branch(self) -> "World":
        """The same world once more, to go on in another way."""
        other = copy(self)
        other.random = Random()
        other.random.setstate(self.random.getstate())
        other.shown = {index: list(log) for index, log in self.shown.items()}
        other.log, other.down, other.on_point = list(self.log), set(self.down), None
        other.seats = {
            index: replace(seat, notes=list(seat.notes), audit=list(seat.audit), published=list(seat.published))
            for index, seat in self.seats.items()
        }
        other._queue = [(when, count, self._again(action, other), args) for when, count, action, args in self._queue]
        return other

    def _again(self, action: Callable[..., None], other: "World") -> Callable[..., None]:
        assert getattr(action, "__self__", None) is self, f"{action} belongs to one world only"
        moved: Callable[..., None] = getattr(other, action.__name__)
        return moved

    def _tick(self, index: int, life: int, wake: int) -> None:
        seat = self.seats[index]
        if (seat.life, seat.wake) == (life, wake):
            self._feed(seat, Tick())

    def _crash(self, seat: SimSeat, *, planned: bool = False) -> None:
        seat.state = None
        self.at(self.random.randint(10, 100 if planned else 3_000), self._start_again, seat.index, seat.life)

    def crash(self, index: int) -> None:
        """The process dies, and is started again at once."""
        self._crash(self.seats[index], planned=True)

    def _start_again(self, index: int, life: int) -> None:
        seat = self.seats[index]
        if seat.state is None and seat.life == life and index not in self.down:
            self._boot(seat)

    # --- the log -----------------------------------------------------------------------------------------------------

    def _send(self, seat: SimSeat, record: CeremonyRecord) -> None:
        assert seat.state is not None
        life = seat.life
        records = [record] if seat.tamper is None else list(seat.tamper(record, self))
        for each in records:
            raw = playbook.say(seat.index, each, seat.state.log, seat.name, life=str(seat.life))
            if self._happens(self.weather.fail):
                self.at(self._delay(), self._failed, seat.index, life, each)
                continue
            if self._happens(self.weather.lose):
                continue
            self.at(self._delay(), self.append, raw)
            if self._happens(self.weather.repeat):
                self.at(self._delay() * 5, self.append, raw)
        if self._happens(self.weather.rubbish):
            self.at(self._delay(), self._litter)

    def _failed(self, index: int, life: int, record: CeremonyRecord) -> None:
        if self.seats[index].life == life:
            self._feed(self.seats[index], SendFailed(record))

    def _litter(self) -> None:
        self.append(self._rubbish())

    def append(self, raw: bytes) -> None:
        for log in (self.log, *self.shown.values()):
            log.append(raw)
        for seat in self.seats.values():
            self.at(self._delay(), self._pump, seat.index, seat.life)

    def seen_by(self, index: int) -> list[bytes]:
        """The log as the broker shows it to this seat."""
        return self.shown.get(index, self.log)

    def _rubbish(self) -> bytes:
        """What somebody without a key can write: noise, somebody else's record again, or with a bit flipped."""
        if not self.log or self._happens(0.3):
            return self.random.randbytes(self.random.randint(0, 200))
        raw = bytearray(self.random.choice(self.log))
        if raw and self._happens(0.5):
            raw[self.random.randrange(len(raw))] ^= 1 << self.random.randrange(8)
        return bytes(raw)

    def say(self, index: int, record: CeremonyRecord, name: str | None = None) -> None:
        """A liar writes ``record`` in the envelope of seat ``index`` (whose key it has), knowing the log so far."""
        behind = max((s.state.log for s in self.seats.values() if s.state is not None), key=lambda log: log.offset)
        self.append(playbook.say(index, record, behind, name or self.seats[index].name))

    # --- signing -----------------------------------------------------------------------------------------------------

    def _sign(self, seat: SimSeat) -> None:
        keys = seat.state.log.keys.values() if seat.state is not None else ()
        if seat.state is None or not any(key.attempt is not None and key.attempt.attested for key in keys):
            return
        for open_id, session in signing_view(seat.state, Instant(self.now)).internal.items():
            if session.coordinate:
                self.at(self._delay(), self._session, seat.index, seat.life, open_id)

    def _session(self, index: int, life: int, open_id: OpenId) -> None:
        seat = self.seats[index]
        if seat.life != life or seat.state is None:
            return
        own = signing_view(seat.state, Instant(self.now)).internal.get(open_id)
        if own is None or not own.coordinate:
            return
        willing: dict[int, EpochKeys] = {}
        for other in self.seats.values():
            if other.state is None:
                continue
            theirs = signing_view(other.state, Instant(self.now)).internal.get(open_id)
            if theirs is not None and theirs.message == own.message and theirs.keys.share is not None:
                willing[other.index] = theirs.keys
        if len(willing) < own.keys.threshold:
            self.at(50, self._session, index, life, open_id)
            return
        chosen = [seat.index, *(i for i in willing if i != seat.index)][: own.keys.threshold]
        signature = playbook.sign_with(willing, chosen, own.message, f"{open_id.hex()} {self.now}")
        self._feed(seat, InternalSigned(open_id, signature))

    # --- looking at it -----------------------------------------------------------------------------------------------

    def view_keys(self, index: int) -> Mapping[KeyId, EpochKeys]:
        state = self.seats[index].state
        if state is None:
            return {}
        commits = ((key_id, key.current) for key_id, key in state.log.keys.items())
        return {key_id: epoch_keys(state, commit) for key_id, commit in commits if commit is not None}

    def keys_at(self, key: KeyId = playbook.KEY, seats: Iterable[int] = ()) -> dict[int, EpochKeys]:
        """EpochKeys of the seats that hold a share now."""
        found = {i: self.view_keys(i).get(key) for i in seats or self.seats}
        return {i: keys for i, keys in found.items() if keys is not None and keys.share is not None}

    def holds(self, epoch: int, seats: Iterable[int] = (), key: KeyId = playbook.KEY) -> bool:
        """Whether every one of these seats is up and holds a share of that epoch."""
        wanted = set(seats or self.seats)
        return {i for i, keys in self.keys_at(key).items() if keys.epoch == epoch} >= wanted

    def agrees(self, at_least: int, seats: Iterable[int] = (), key: KeyId = playbook.KEY) -> bool:
        """Whether these seats are up and all hold a share of one epoch, that or a later one."""
        wanted = set(seats or self.seats)
        epochs = {i: keys.epoch for i, keys in self.keys_at(key).items() if i in wanted}
        return epochs.keys() == wanted and len(set(epochs.values())) == 1 and min(epochs.values()) >= at_least

    def key(self, key: KeyId = playbook.KEY) -> KeyLog:
        """The fold of this key at the seat that has read most."""
        states = (seat.state.log for seat in self.seats.values() if seat.state is not None)
        return max(states, key=lambda log: log.offset).keys.get(key, KeyLog(key))

    def give_roster(self, raw: bytes, *indices: int) -> None:
        """Put another roster file before these seats (all, if none is named); new seats are made."""
        roster = self.trust.wire.read_roster(raw)
        for each in roster.seats:
            if each.index not in self.seats:
                self.seats[each.index] = SimSeat(each.index, raw, f"seat {each.index}")
        for index in indices or tuple(self.seats):
            self.seats[index].roster = raw
            self.read_roster(index)

    def read_roster(self, index: int) -> None:
        """The seat finds that its roster file has changed."""
        self._feed(self.seats[index], RosterFile(self.seats[index].roster))

    def ask_refresh(self, index: int, key: KeyId = playbook.KEY) -> None:
        """An API pod's refresh request reaches this seat."""
        self.feed_refresh(index, playbook.refresh_request(key, self.now), key)

    def feed(self, index: int, event: Event) -> None:
        """Something else happens to this seat."""
        self._feed(self.seats[index], event)

    def feed_refresh(self, index: int, raw: bytes, key: KeyId = playbook.KEY) -> None:
        self._feed(self.seats[index], RefreshAsked(key, raw))

    def blamed(self) -> set[tuple[int, str]]:
        """Whom the audit topic blames, and for what."""
        return {(entry.signers[0], entry.code) for entry in self.entries(AuditKind.BLAME)}

    def entries(self, kind: AuditKind) -> list[AuditEntry]:
        """What all seats told the audit topic."""
        events = (event for seat in self.seats.values() for event in seat.audit)
        return [entry for event in events for entry in event.entries if entry.kind is kind]

    def noted(self, name: str) -> int:
        """How many seats have told of this fact."""
        return sum(1 for seat in self.seats.values() if any(note.name == name for note in seat.notes))

    def describe(self) -> str:
        lines = [f"now {self.now}, {len(self.log)} records"]
        for i, seat in self.seats.items():
            if seat.state is None:
                lines.append(f"{i}: down")
                continue
            for key in seat.state.log.keys.values():
                attempt = key.attempt
                what = f"{attempt.phase.value} {attempt.number}" if attempt is not None else f"ended {key.ended}"
                lines.append(f"{i}: {key.key_id} epoch {key.epoch} {what} at {seat.state.log.offset}")
        return "\n".join(lines)


def same_fold(world: World) -> None:
    """Every seat that has read the same prefix of the log has the same state of it."""
    states = [seat.state.log for seat in world.seats.values() if seat.state is not None]
    last = [log for log in states if log.offset == len(world.log) - 1]
    assert all(log == last[0] for log in last)
