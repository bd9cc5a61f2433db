"""Who is live is judged on our own clock, and an old beat shown again brings nobody back."""

from common.ids import BootId, Epoch, Index, Instant, KeyId, Offset
from common.wire.messages import KeyPresence, Presence, ReplicaState
from signer_service.shell.presence import PeerWatch

BOOT, NEXT = BootId("boot-1"), BootId("boot-2")
OWN, SEAT, OTHER = Index(1), Index(2), Index(3)


def beat(seq: int, started: int = 1000, draining: bool = False, holds: bool = True) -> Presence:
    key = KeyPresence(KeyId("default"), Epoch(3), holds, "", 0, (), Instant(0), Instant(0), Offset(9), b"")
    return Presence(
        Instant(started), seq, Instant(started + seq), ReplicaState.READY, draining, 1, (), 0, 0, 0, (key,), 0
    )


def test_a_seat_is_live_from_its_first_beat_until_it_was_silent_too_long() -> None:
    watch = PeerWatch(1.5, OWN)
    assert watch.changed(0.0) is None
    watch.beat(SEAT, BOOT, beat(1), 0.0)
    live = watch.changed(0.0)
    assert live is not None
    assert live[SEAT].boot_id == BOOT
    assert live[SEAT].epochs == {"default": 3}
    assert watch.changed(1.4) is None
    assert watch.changed(1.6) == {}


def test_a_beat_that_changes_nothing_is_no_news_but_keeps_the_seat_live() -> None:
    watch = PeerWatch(1.5, OWN)
    watch.beat(SEAT, BOOT, beat(1), 0.0)
    watch.changed(0.0)
    assert watch.beat(SEAT, BOOT, beat(2), 1.0)
    assert watch.changed(1.0) is None
    assert watch.changed(2.0) is None


def test_draining_a_new_boot_and_a_lost_share_are_news() -> None:
    watch = PeerWatch(1.5, OWN)
    watch.beat(SEAT, BOOT, beat(1), 0.0)
    watch.changed(0.0)
    watch.beat(SEAT, BOOT, beat(2, draining=True), 0.1)
    live = watch.changed(0.1)
    assert live is not None
    assert live[SEAT].draining
    watch.beat(SEAT, NEXT, beat(1, started=2000), 0.2)
    live = watch.changed(0.2)
    assert live is not None
    assert (live[SEAT].boot_id, live[SEAT].draining) == (NEXT, False)
    watch.beat(SEAT, NEXT, beat(2, started=2000, holds=False), 0.3)
    live = watch.changed(0.3)
    assert live is not None
    assert live[SEAT].epochs == {}


def test_an_old_beat_shown_again_is_ignored() -> None:
    watch = PeerWatch(1.5, OWN)
    watch.beat(SEAT, BOOT, beat(5), 0.0)
    assert not watch.beat(SEAT, BOOT, beat(5), 0.1)
    assert not watch.beat(SEAT, BOOT, beat(4, draining=True), 0.1)
    watch.beat(SEAT, NEXT, beat(1, started=2000), 0.2)
    assert not watch.beat(SEAT, BOOT, beat(6), 0.3)
    watch.changed(0.3)
    assert watch.live()[SEAT].boot_id == NEXT
    # A seat that fell silent is not brought back by its own last beat.
    assert not watch.beat(SEAT, NEXT, beat(1, started=2000), 9.0)
    assert watch.changed(9.0) == {}


def test_what_a_seat_says_of_its_shares_is_kept_beside_what_a_later_start_says_in_its_name() -> None:
    watch = PeerWatch(1.5, OWN)
    watch.beat(OWN, BOOT, beat(1, started=10_000), 0.0)
    watch.beat(SEAT, BOOT, beat(1, started=10_000), 0.0)
    # Whoever has stolen the identity alone says that the share is lost, and began later: that counts.
    watch.beat(SEAT, NEXT, beat(1, started=20_000, holds=False), 0.1)
    watch.changed(0.1)
    assert (watch.live()[SEAT].epochs, watch.live()[SEAT].disputed) == ({}, {})
    assert not watch.beat(SEAT, BOOT, beat(2, started=10_000), 0.2)
    watch.changed(0.2)
    assert (watch.live()[SEAT].boot_id, watch.live()[SEAT].epochs) == (NEXT, {})
    assert watch.live()[SEAT].disputed == {"default": 3}
    # Shown again it is no word of anybody; and it ends like any other silence.
    assert not watch.beat(SEAT, BOOT, beat(2, started=10_000), 1.0)
    watch.beat(OWN, BOOT, beat(2, started=10_000), 2.0)
    watch.beat(SEAT, NEXT, beat(2, started=20_000, holds=False), 2.0)
    watch.changed(2.0)
    assert watch.live()[SEAT].disputed == {}


def test_a_beat_of_a_life_long_over_disputes_nothing() -> None:
    watch = PeerWatch(1.5, OWN)
    watch.beat(OWN, BOOT, beat(1, started=90_000), 0.0)
    watch.beat(SEAT, NEXT, beat(1, started=90_000, holds=False), 0.0)
    assert not watch.beat(SEAT, BOOT, beat(7, started=10_000), 0.1)
    watch.changed(0.1)
    assert watch.live()[SEAT].disputed == {}


def test_a_seat_whose_clock_went_back_is_heard_again_once_its_last_life_is_overdue() -> None:
    watch = PeerWatch(1.5, OWN)
    watch.beat(SEAT, BOOT, beat(5, started=9000), 0.0)
    assert not watch.beat(SEAT, NEXT, beat(1, started=100), 0.5)
    assert watch.beat(SEAT, NEXT, beat(4, started=100), 2.0)


def test_while_we_do_not_hear_ourselves_nobody_is_silent() -> None:
    watch = PeerWatch(1.5, OWN)
    for seat in (OWN, SEAT, OTHER):
        watch.beat(seat, BOOT, beat(1), 0.0)
    live = watch.changed(0.0)
    assert live is not None
    assert set(live) == {OWN, SEAT, OTHER}
    # The broker is away for four seconds.
    for quarter in range(16):
        assert watch.changed(quarter / 4) is None
    watch.beat(OWN, BOOT, beat(2), 4.0)
    watch.beat(SEAT, BOOT, beat(2), 4.1)
    assert watch.changed(4.1) is None
    # The third has really gone: it has what was left of its time, and no more.
    watch.beat(OWN, BOOT, beat(3), 4.5)
    assert watch.changed(4.7) is None
    watch.beat(OWN, BOOT, beat(4), 4.75)
    assert set(watch.changed(4.8) or ()) == {OWN, SEAT}


def test_a_long_outage_makes_nobody_live_for_longer_than_from_now() -> None:
    watch = PeerWatch(1.5, OWN)
    for seat in (OWN, SEAT):
        watch.beat(seat, BOOT, beat(1), 0.0)
    watch.changed(0.0)
    watch.beat(SEAT, BOOT, beat(2), 30.0)
    for n in range(5):
        watch.beat(OWN, BOOT, beat(2 + n), 30.1 + n / 2)
    assert set(watch.changed(32.1) or ()) == {OWN}


def test_a_seat_that_dies_is_missed_in_time_by_who_hears_himself() -> None:
    watch = PeerWatch(1.5, OWN)
    for n in range(4):
        watch.beat(OWN, BOOT, beat(n), n / 2)
    watch.beat(SEAT, BOOT, beat(1), 0.25)
    assert set(watch.changed(1.7) or ()) == {OWN, SEAT}
    assert set(watch.changed(1.8) or ()) == {OWN}
