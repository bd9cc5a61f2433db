"""An alarm is a metric while it stands, one line when it begins, and one when it is over."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from common.ids import Index, Instant
from common.observability.metrics import Metrics
from common.wire import codec
from signer_service.shell.watchdog import Watchdog
from tests.protocol.crash_world import again, beginning
from tests.protocol.test_ceremony_alarms import beat_of, state_of
from tests.protocol.test_older_checkpoints import forked_after_a_refresh, next_roster


def test_each_condition_is_shown_and_said_once_and_its_end_too() -> None:
    world, _ = again(beginning(2, 3))
    state = state_of(world)
    metrics = Metrics()
    watchdog = Watchdog(metrics)
    mine = state.log.running_hash
    good = {Index(2): beat_of(state_of(world, 2))}
    bad = {Index(2): beat_of(replace(state, log=replace(state.log, running_hash=bytes(64))))}
    assert mine != bytes(64)
    now, late = Instant(world.now), Instant(world.now + 2 * state.timing.refresh_interval_ms)

    def standing() -> set[str]:
        names = ("old_epoch_held", "refresh_overdue", "committee_out_of_reach", "fold_differs")
        value = metrics.registry.get_sample_value
        return {name for name in names if value("signer_flow_alarm", {"alarm": name})}

    with capture_logs() as lines:
        watchdog.look(state, good, now)
        assert (standing(), lines) == (set(), [])
        for _ in range(3):
            watchdog.look(state, bad, late)
        assert standing() == {"refresh_overdue", "fold_differs"}
        assert [(line["event"], line["about"]) for line in lines] == [("alarm", "default"), ("alarm", "seat 2")]
        watchdog.look(state, good, now)
        assert not standing()
        assert [line["event"] for line in lines[2:]] == ["alarm is over", "alarm is over"]


def test_a_share_ahead_of_what_the_log_went_back_to_is_an_alarm_that_names_its_epoch() -> None:
    world, old, _ = forked_after_a_refresh()
    world.say(1, codec.decode_ceremony(next_roster(world, old)))
    world.run_for(5_000)
    with capture_logs() as lines:
        Watchdog(Metrics()).look(state_of(world), {}, Instant(world.now))
    assert [(line["alarm"], line["about"]) for line in lines] == [("share_ahead", "default: shares of epochs 2")]


@pytest.mark.parametrize("size", [4, 6])
def test_a_roster_out_of_reach_is_an_alarm_that_says_why(size: int) -> None:
    world, _ = again(beginning(2, 3))
    world.give_roster(world.house.roster(2, range(1, size + 1), version=2))
    world.run_for(3_000)
    with capture_logs() as lines:
        Watchdog(Metrics()).look(state_of(world), {}, Instant(world.now))
    assert [line["about"].startswith("key default: a committee of 2 of 6") for line in lines] == [True] * (size == 6)
