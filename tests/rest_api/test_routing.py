"""The routing table: who is live, who reads what, where the next record goes."""

import pytest

from common.ids import BootId, Index, Instant
from common.wire.messages import Presence, ReplicaState
from rest_api.gateway.routing import RoutingTable

ONE, TWO, THREE = Index(1), Index(2), Index(3)
A, B = BootId("a"), BootId("b")


def a_beat(
    seq: int,
    partitions: tuple[int, ...],
    *,
    draining: bool = False,
    started_ms: int = 1000,
    in_flight: int = 0,
    queue_wait_ms: int = 0,
) -> Presence:
    return Presence(
        started_ms=Instant(started_ms),
        seq=seq,
        sent_ms=Instant(5000),
        state=ReplicaState.READY,
        draining=draining,
        schema_level=1,
        partitions=partitions,
        in_flight=in_flight,
        queue_wait_ms=queue_wait_ms,
        nonces_left=0,
        keys=(),
        clock_skew_ms=0,
    )


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(clock: Clock) -> RoutingTable:
    return RoutingTable(6, clock, lambda n: 0)


def test_a_record_goes_to_a_live_seat_that_claims_the_partition(table: RoutingTable) -> None:
    table.heard(ONE, A, a_beat(1, (0, 1)), offset=1)
    route = table.route(frozenset(), {})
    assert route is not None
    assert (route.partition, route.seat, route.boot_id) == (0, ONE, A)


def test_unclaimed_partitions_are_skipped(table: RoutingTable) -> None:
    table.heard(ONE, A, a_beat(1, (4,)), offset=1)
    table.heard(TWO, A, a_beat(1, ()), offset=2)
    route = table.route(frozenset(), {})
    assert route is not None
    assert (route.partition, route.seat) == (4, ONE)
    assert table.live() == {ONE}


def test_a_partition_is_dark_when_nobody_heard_has_claimed_it_for_as_long_as_makes_a_seat_suspect(
    table: RoutingTable, clock: Clock
) -> None:
    table.heard(ONE, A, a_beat(1, (0, 1)), offset=1)
    assert not table.dark(0)
    table.heard(ONE, A, a_beat(2, (1,)), offset=2)
    assert not table.dark(0)
    clock.now += 1.0
    table.heard(ONE, A, a_beat(3, (1,)), offset=3)
    table.forgive(0.25)
    clock.now += 0.5
    assert not table.dark(0)
    clock.now += 0.25
    assert (table.dark(0), table.dark(1)) == (True, False)
    table.heard(TWO, A, a_beat(1, (0,)), offset=4)
    assert not table.dark(0)
    # The claim of a seat that fell silent is none.
    clock.now += 1.5
    assert table.dark(0)


def test_what_a_seat_gives_up_because_it_goes_away_is_dark_as_soon_as_it_may_have_worked_it_off(
    table: RoutingTable, clock: Clock
) -> None:
    table.heard(ONE, A, a_beat(1, (0, 1)), offset=1)
    table.heard(TWO, A, a_beat(1, (2,)), offset=2)
    table.heard(ONE, A, a_beat(2, (), draining=True), offset=3)
    clock.now += 0.25
    table.heard(ONE, A, a_beat(3, (), draining=True), offset=4)
    assert not table.dark(0)
    clock.now += 0.25
    assert (table.dark(0), table.dark(1), table.dark(2)) == (True, True, False)
    table.heard(TWO, A, a_beat(2, (0, 2)), offset=5)
    assert (table.dark(0), table.dark(1)) == (False, True)


def test_the_newest_claim_wins_by_offset_and_a_dropped_one_is_gone(table: RoutingTable) -> None:
    table.heard(ONE, A, a_beat(1, (0,)), offset=10)
    table.heard(TWO, A, a_beat(1, (0,)), offset=11)
    assert table.owner(0) == (TWO, A)
    table.heard(ONE, A, a_beat(2, ()), offset=12)
    assert table.owner(0) == (TWO, A)
    table.heard(TWO, A, a_beat(2, ()), offset=13)
    assert table.owner(0) is None


def test_on_a_topic_that_was_made_again_a_silent_seat_keeps_no_partition(table: RoutingTable, clock: Clock) -> None:
    """Its offsets begin anew: for hours nobody else's claim would be the newest."""
    table.heard(ONE, A, a_beat(1, (0,)), offset=1_000)
    clock.now += 1.5
    table.heard(TWO, A, a_beat(1, (0, 1)), offset=3)
    assert table.owner(0) == (TWO, A)
    assert not table.dark(0)


def test_a_seat_is_suspected_after_its_silence_on_our_own_clock_only(table: RoutingTable, clock: Clock) -> None:
    table.heard(ONE, A, a_beat(1, (0,)), offset=1)
    clock.now += 1.4
    assert not table.suspected(ONE, A)
    clock.now += 0.2
    assert table.suspected(ONE, A)
    assert table.live() == set()


def test_our_own_standstill_is_nobodys_silence(table: RoutingTable, clock: Clock) -> None:
    table.heard(ONE, A, a_beat(1, (0,)), offset=1)
    clock.now += 3
    table.forgive(3)
    assert not table.suspected(ONE, A)


def test_another_start_of_a_seat_makes_the_one_before_suspected(table: RoutingTable) -> None:
    table.heard(ONE, A, a_beat(5, (0,)), offset=1)
    table.heard(ONE, B, a_beat(1, (0,), started_ms=2000), offset=2)
    assert table.suspected(ONE, A)
    assert not table.suspected(ONE, B)


def test_replayed_beats_of_this_start_or_an_older_one_do_not_count(table: RoutingTable, clock: Clock) -> None:
    assert table.heard(ONE, B, a_beat(5, (0,), started_ms=2000), offset=1)
    clock.now += 2
    assert not table.heard(ONE, B, a_beat(5, (0,), started_ms=2000), offset=2)
    assert not table.heard(ONE, B, a_beat(4, (0,), started_ms=2000), offset=3)
    assert not table.heard(ONE, A, a_beat(9, (0,), started_ms=1000), offset=4)
    assert table.suspected(ONE, B)


def test_a_draining_seat_gets_nothing_new(table: RoutingTable) -> None:
    table.heard(ONE, A, a_beat(1, (0,), draining=True), offset=1)
    table.heard(TWO, A, a_beat(1, (1,)), offset=2)
    assert table.live() == {TWO}


def test_if_nobody_is_heard_the_record_waits_in_any_partition(table: RoutingTable, clock: Clock) -> None:
    table.heard(ONE, A, a_beat(1, (3,)), offset=1)
    clock.now += 60
    route = table.route(frozenset(), {})
    assert route is not None
    assert route.seat is None


def test_a_resend_never_falls_back_to_hashing(table: RoutingTable) -> None:
    table.heard(ONE, A, a_beat(1, (0,)), offset=1)
    assert table.route(frozenset({ONE}), {}) is None


def test_of_two_the_less_busy_is_chosen(clock: Clock) -> None:
    draws = iter([0, 0, 0] * 20)
    table = RoutingTable(6, clock, lambda n: next(draws) % n)
    for seat, partition in ((ONE, 0), (TWO, 1)):
        table.heard(seat, A, a_beat(1, (partition,)), offset=partition)
    assert table.route(frozenset(), {ONE: 5}).seat == TWO  # type: ignore[union-attr]
    assert table.route(frozenset(), {TWO: 5}).seat == ONE  # type: ignore[union-attr]
    table.heard(TWO, A, a_beat(2, (1,), in_flight=100), offset=9)
    assert table.route(frozenset(), {ONE: 5}).seat == ONE  # type: ignore[union-attr]


def test_a_seat_that_refuses_is_preferred_less_for_a_while(table: RoutingTable) -> None:
    table.heard(ONE, A, a_beat(1, (0,)), offset=1)
    table.heard(TWO, A, a_beat(1, (1,)), offset=2)
    table.refused(ONE, 3)
    assert table.route(frozenset(), {}).seat == TWO  # type: ignore[union-attr]
    for _ in range(10):
        table.decay()
    assert table.seats[ONE].penalty == 0


def test_a_full_partition_is_left_alone_and_when_all_are_full_the_record_waits(table: RoutingTable) -> None:
    table.heard(ONE, A, a_beat(1, (0, 1)), offset=1)
    assert table.route(frozenset(), {}, lambda p: p == 1).partition == 1  # type: ignore[union-attr]
    assert table.route(frozenset(), {}, lambda p: False) is None


def test_partitions_that_cannot_be_are_ignored(table: RoutingTable) -> None:
    table.heard(ONE, A, a_beat(1, (5, 6, 1000)), offset=1)
    assert [p for p in range(2000) if table.owner(p) is not None] == [5]


def test_the_shortest_wait_of_the_live_counts(table: RoutingTable) -> None:
    assert table.queue_wait_ms() == 0
    table.heard(ONE, A, a_beat(1, (0,), queue_wait_ms=900), offset=1)
    table.heard(TWO, A, a_beat(1, (1,), queue_wait_ms=300), offset=2)
    assert table.queue_wait_ms() == 300


def test_seats_that_left_the_committee_are_forgotten(table: RoutingTable) -> None:
    table.heard(ONE, A, a_beat(1, (0,)), offset=1)
    table.heard(TWO, A, a_beat(1, (1,)), offset=2)
    table.retain({TWO})
    assert table.live() == {TWO}
    assert table.owner(0) is None


# --- a seat that lies in its beats ----------------------------------------------------------------------------------


@pytest.fixture
def usurped(table: RoutingTable) -> RoutingTable:
    """Seats 1 and 2 read three partitions each; seat 3 says, later than both, that it reads all of them."""
    table.heard(ONE, A, a_beat(1, (0, 1, 2)), offset=1)
    table.heard(TWO, A, a_beat(1, (3, 4, 5)), offset=2)
    table.heard(THREE, A, a_beat(1, tuple(range(6)), queue_wait_ms=2**31 - 1), offset=3)
    return table


def test_p6_a_seat_that_claims_everything_does_not_make_the_others_dead(usurped: RoutingTable) -> None:
    assert usurped.live() == {ONE, TWO, THREE}


def test_p6_a_seat_that_claims_everything_cannot_say_for_all_that_the_queue_is_long(usurped: RoutingTable) -> None:
    assert usurped.queue_wait_ms() == 0


def test_p6_the_others_can_still_be_asked_when_one_claims_everything(usurped: RoutingTable) -> None:
    route = usurped.route(frozenset({THREE}), {})
    assert route is not None
    assert (route.partition, route.seat) == (0, ONE)
    route = usurped.route(frozenset({THREE, ONE}), {})
    assert route is not None
    assert (route.partition, route.seat) == (3, TWO)


def test_p6_a_seat_that_claims_everything_and_drains_takes_nothing_away(table: RoutingTable) -> None:
    table.heard(ONE, A, a_beat(1, (0, 1, 2)), offset=1)
    table.heard(THREE, A, a_beat(1, tuple(range(6)), draining=True), offset=2)
    route = table.route(frozenset(), {})
    assert route is not None
    assert (route.partition, route.seat) == (0, ONE)
