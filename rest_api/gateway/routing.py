"""Who is up and who reads what: the routing table, folded from the beats on the presence topic.

The group protocol only decides who reads a partition; a client of it would learn of a dead member after ten seconds.
Beats say it in one and a half. A beat counts when its envelope verified (the caller saw to that) and it is newer than
the last one: a broker that replays old beats gains nothing.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from common.ids import BootId, Index
from common.wire.messages import Presence

SUSPECT_AFTER_S: Final = 1.5
DRAINED_AFTER_S: Final = 0.4
"""A seat that goes away reads no more, and works off what it has read in less. What came in the moment in which it
began would else wait for it to leave the group, and for the group to hand its partitions on."""
OLD_START_AFTER_S: Final = 60.0
REFUSAL_PENALTY: Final = 8.0
BEATS_TO_TRUST: Final = 3


@dataclass(slots=True)
class SeatView:
    """What is known of one seat: its newest beat, and when it was heard on our clock (seconds)."""

    boot_id: BootId
    beat: Presence
    heard_at: float
    beats: int = 1
    penalty: float = 0.0


@dataclass(frozen=True, slots=True)
class Route:
    """Where a record goes. ``seat`` is None when nobody claims the partition."""

    partition: int
    seat: Index | None
    boot_id: BootId | None


@dataclass(frozen=True, slots=True)
class _Claim:
    offset: int
    seat: Index


class RoutingTable:
    """The seats as we hear them.

    Args:
        partitions: How many partitions the request topic has.
        clock: Monotonic seconds: suspicion is judged by our own clock, never by what a beat says of the time.
        below: ``below(n)`` is a random number in [0, n).
        suspect_after_s: Silence after which a seat is suspected.
    """

    def __init__(
        self,
        partitions: int,
        clock: Callable[[], float],
        below: Callable[[int], int],
        suspect_after_s: float = SUSPECT_AFTER_S,
    ) -> None:
        self._partitions = partitions
        self._clock = clock
        self._below = below
        self._suspect_after_s = suspect_after_s
        self._claims: dict[int, _Claim] = {}
        self._dark_from = dict.fromkeys(range(partitions), clock() + suspect_after_s)
        self.seats: dict[Index, SeatView] = {}

    # --- beats -------------------------------------------------------------------------------------------------------

    def heard(self, seat: Index, boot_id: BootId, beat: Presence, offset: int) -> bool:
        """Take a beat of a seat; ``offset`` is its place on the presence topic.

        Returns:
            Whether it counted: False for one that is older than what we know.
        """
        now = self._clock()
        known = self.seats.get(seat)
        if known is None:
            self.seats[seat] = SeatView(boot_id, beat, now)
        elif known.boot_id == boot_id:
            if beat.seq <= known.beat.seq:
                return False
            known.beat, known.heard_at = beat, now
            known.beats += 1
        else:
            # A beat of an earlier start is a late or replayed one, unless the newer start fell silent long ago
            # (a machine whose clock was set back).
            if beat.started_ms < known.beat.started_ms and now - known.heard_at < OLD_START_AFTER_S:
                return False
            self.seats[seat] = SeatView(boot_id, beat, now)
        self._claim(seat, beat, offset)
        return True

    def _claim(self, seat: Index, beat: Presence, offset: int) -> None:
        held = {partition for partition in beat.partitions if partition < self._partitions}
        dark_after_s = min(DRAINED_AFTER_S, self._suspect_after_s) if beat.draining else self._suspect_after_s
        for partition in [p for p, claim in self._claims.items() if claim.seat == seat and p not in held]:
            self._unclaim(partition, dark_after_s)
        for partition in held:
            claim = self._claims.get(partition)
            # A silent seat takes nothing back, and on a topic that was made again its offset would stand for hours.
            if claim is None or claim.offset < offset or not self.fresh(claim.seat):
                self._claims[partition] = _Claim(offset, seat)

    def _unclaim(self, partition: int, dark_after_s: float) -> None:
        del self._claims[partition]
        self._dark_from[partition] = self._clock() + dark_after_s

    def forgive(self, seconds: float) -> None:
        """We ourselves stood still for so long: nobody could have been heard in that time, so it is no silence."""
        for view in self.seats.values():
            view.heard_at += seconds
        for partition in self._dark_from:
            self._dark_from[partition] += seconds

    def settled(self) -> bool:
        """Whether some seat was heard often enough that every other live one has been heard too."""
        return any(view.beats >= BEATS_TO_TRUST for view in self.seats.values())

    # --- what correlation asks ---------------------------------------------------------------------------------------

    def fresh(self, seat: Index) -> bool:
        """The seat was heard lately."""
        view = self.seats.get(seat)
        return view is not None and self._clock() - view.heard_at < self._suspect_after_s

    def live(self) -> AbstractSet[Index]:
        """Seats to send to: fresh, not draining, and they say that they read a partition.

        By each seat's own word, not by whose claim is the newest: a seat that lies could claim everything all the time,
        and then refuse, or call itself busy, in the name of all.
        """
        return {
            seat
            for seat, view in self.seats.items()
            if self.fresh(seat)
            and not view.beat.draining
            and any(partition < self._partitions for partition in view.beat.partitions)
        }

    def suspected(self, seat: Index, boot_id: BootId) -> bool:
        """That start of the seat is silent for too long, or gone."""
        view = self.seats.get(seat)
        return view is None or view.boot_id != boot_id or not self.fresh(seat)

    def draining(self, seat: Index) -> bool:
        """The seat said that it goes away."""
        view = self.seats.get(seat)
        return view is not None and view.beat.draining

    def owner(self, partition: int) -> tuple[Index, BootId] | None:
        """The fresh seat whose claim on the partition is the newest."""
        claim = self._claims.get(partition)
        if claim is None or not self.fresh(claim.seat):
            return None
        return claim.seat, self.seats[claim.seat].boot_id

    def dark(self, partition: int) -> bool:
        """Nobody has read the partition for as long as a seat has to be silent to be suspected, or to drain.

        While the group hands partitions out anew, what was given up is read by nobody until every member has answered;
        for one that was killed in the middle of it the group waits for its whole session timeout.
        """
        claim = self._claims.get(partition)
        if claim is not None:
            return not self.fresh(claim.seat)
        return self._clock() >= self._dark_from[partition]

    # --- where to send -----------------------------------------------------------------------------------------------

    def route(
        self,
        exclude: AbstractSet[Index],
        in_flight: Mapping[Index, int],
        has_room: Callable[[int], bool] = lambda _: True,
    ) -> Route | None:
        """Choose a seat (of two random ones the less busy), then one of its partitions.

        Args:
            exclude: Seats that must not be asked.
            in_flight: Our own open items per seat.
            has_room: Whether a partition may take more.

        Returns:
            None when only ``has_room`` forbids it, or when somebody is excluded and nobody else is there.
        """
        places: dict[Index, list[int]] = {}
        full = False
        for seat in self.live() - exclude:
            said = [partition for partition in self.seats[seat].beat.partitions if partition < self._partitions]
            # Where every claim of a seat is disputed, its own word has to do: whoever reads the partition will answer.
            claimed = [p for p in said if (claim := self._claims.get(p)) is not None and claim.seat == seat] or said
            open_to = [partition for partition in claimed if has_room(partition)]
            if open_to:
                places[seat] = open_to
            else:
                full = True
        if places:
            seat = self._less_busy(sorted(places), in_flight)
            open_to = places[seat]
            return Route(open_to[self._below(len(open_to))], seat, self.seats[seat].boot_id)
        if full or exclude:
            return None
        # Nobody is heard, or nobody claims a partition: the record waits in one of them for its owner to come back.
        open_to = [partition for partition in range(self._partitions) if has_room(partition)]
        return Route(open_to[self._below(len(open_to))], None, None) if open_to else None

    def _less_busy(self, seats: list[Index], in_flight: Mapping[Index, int]) -> Index:
        if len(seats) == 1:
            return seats[0]
        first = self._below(len(seats))
        second = (first + 1 + self._below(len(seats) - 1)) % len(seats)
        return min(seats[first], seats[second], key=lambda seat: self._load(seat, in_flight))

    def _load(self, seat: Index, in_flight: Mapping[Index, int]) -> float:
        view = self.seats[seat]
        # Its own figure is up to half a second old and holds other pods' items; ours is of now.
        return in_flight.get(seat, 0) + view.beat.in_flight + view.penalty

    def refused(self, seat: Index, items: int) -> None:
        """The seat refused: for a while others are preferred, so that one that refuses all does not draw all."""
        view = self.seats.get(seat)
        if view is not None:
            view.penalty = min(1000.0, view.penalty + REFUSAL_PENALTY * items)

    def decay(self) -> None:
        """Halve what refusals cost. To be called a few times a second."""
        for view in self.seats.values():
            view.penalty = view.penalty / 2 if view.penalty > 0.5 else 0.0

    def retain(self, seats: AbstractSet[Index]) -> None:
        """The committee changed: forget seats that are not of it."""
        for seat in self.seats.keys() - seats:
            del self.seats[seat]
        for partition in [p for p, claim in self._claims.items() if claim.seat not in seats]:
            self._unclaim(partition, self._suspect_after_s)

    # --- figures -----------------------------------------------------------------------------------------------------

    def queue_wait_ms(self) -> int:
        """The shortest wait that a live replica promises; 0 when none is live."""
        return min((self.seats[seat].beat.queue_wait_ms for seat in self.live()), default=0)

    def silence_ms(self, seat: Index) -> int:
        """Milliseconds since the seat was heard."""
        return max(0, int((self._clock() - self.seats[seat].heard_at) * 1000))
