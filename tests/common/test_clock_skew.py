"""What our own beats prove of our own clock, and what they do not."""

from common.clock_skew import SkewMeter
from common.ids import Instant
from signer_service.settings import Settings


def test_delay_on_the_way_is_never_taken_for_skew() -> None:
    meter = SkewMeter()
    for _ in range(5):
        meter.sample(Instant(1000), 4000, Instant(9000))
    assert meter.skew_ms == 0


def test_a_clock_that_is_ahead_or_behind_is_measured_with_its_sign() -> None:
    ahead, behind = SkewMeter(), SkewMeter()
    for _ in range(5):
        ahead.sample(Instant(5000), 4000, Instant(5010))
        behind.sample(Instant(3000), 4000, Instant(3010))
    assert ahead.skew_ms == 1000
    assert behind.skew_ms == -990


def test_one_odd_beat_says_nothing() -> None:
    meter = SkewMeter()
    for sent in (1000, 1000, 9000, 1000, 1000):
        meter.sample(Instant(sent), 1000, Instant(sent + 5))
    assert meter.skew_ms == 0


def test_three_tenths_of_a_second_are_warned_of_and_two_seconds_are_not_ready() -> None:
    warn_ms, unready_ms = (Settings.model_fields[name].default for name in ("skew_warn_ms", "skew_unready_ms"))
    for ahead_ms, warned, unready in (
        (300, True, False),
        (2_000, True, True),
        (60_000, True, True),
        (200, False, False),
    ):
        meter = SkewMeter()
        for _ in range(5):
            meter.sample(Instant(100_000 + ahead_ms), 100_005, Instant(100_010 + ahead_ms))
        assert (abs(meter.skew_ms) >= warn_ms) is warned
        assert (abs(meter.skew_ms) >= unready_ms) is unready
