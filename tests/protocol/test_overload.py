"""More work than there is CPU: what can be signed is signed, nothing is computed in vain, the rest is told in time."""

import pytest

from common.ids import Index
from common.wire.messages import RefusalCode, Refused, SignatureShares
from signer_service.protocol.machine import PeerArrived, Sender, Tick, ToPeer
from signer_service.protocol.peers import MIN_WINDOW, PeerStats
from tests.protocol.busy_world import BusyWorld, Costs
from tests.protocol.signing_world import Process, Weather, World
from tests.protocol.test_signing_world import all_signed, messages

SLOW = Costs(share=4, complete=6, grant=0.75, commitment=1.5)
"""Ten to twenty times what our machines need: all processes on a few busy cores."""


@pytest.mark.parametrize(("n", "t", "items"), [(3, 2, 400), (5, 3, 250)])
def test_a_burst_of_batches_is_signed_without_waste_however_slow_everybody_is(n: int, t: int, items: int) -> None:
    world = BusyWorld(n, t, costs=SLOW, weather=Weather())
    world.run(1_000)
    for k in range(items // 50):
        world.ask_messages(1 + k % n, *messages(50, str(k)), for_ms=10_000)
    world.run_until_answered(10_000)
    assert world.signed_in_time() == items
    assert world.started <= 1.1 * items
    assert not world.noted("share_declined")


@pytest.mark.parametrize(("n", "t", "for_ms"), [(3, 2, 5_000), (5, 3, 2_500)])
def test_three_times_what_can_be_signed_leaves_most_of_it_signed_and_refuses_the_rest_in_time(
    n: int, t: int, for_ms: int
) -> None:
    world = BusyWorld(n, t, costs=SLOW, weather=Weather())
    world.run(1_000)
    began = world.now
    every_ms = 4 * 1_000 / (3 * world.capacity_per_s())
    for k in range(int(for_ms / every_ms)):
        world.run(max(0, began + int(k * every_ms) - world.now))
        world.ask_messages(1 + k % n, *messages(4, str(k)), for_ms=2_000)
    world.run(max(0, began + for_ms - world.now))
    # The pod that asked is as busy as the signers, and its caller gone at the deadline: an answer needs time to spare.
    assert world.signed_in_time(spare_ms=500) >= 0.6 * world.capacity_per_s() * for_ms / 1_000
    world.run_until_answered(3_000)
    assert world.started <= 1.1 * world.signed_in_time()
    refused = {o.result.code for _, _, _, o in world.answers if isinstance(o.result, Refused)}
    assert refused <= {RefusalCode.OVERLOADED, RefusalCode.QUORUM_LOST}


def test_a_seat_that_is_busy_is_not_late_and_one_that_is_silent_is() -> None:
    stats = PeerStats()
    boot = BusyWorld(3, 2).up[Index(2)].boot_id
    for first, at in ((0, 1_000), (10, 1_010), (20, 1_020)):
        stats.sent(boot, first, 10, at)  # type: ignore[arg-type]
    stats.heard(4, 1_300)  # type: ignore[arg-type]
    assert stats.outstanding == 20
    assert stats.heard_at == 1_300
    assert stats.owes(10), "it was sent later, so its turn is still to come"
    assert not stats.owes(4)
    stats.heard(29, 1_400)  # type: ignore[arg-type]
    assert stats.outstanding == 0
    assert not stats.owes(10), "a later one was answered"


def test_what_a_seat_may_owe_follows_how_long_it_takes() -> None:
    stats = PeerStats()
    boot = BusyWorld(3, 2).up[Index(2)].boot_id
    now, session = 1_000, 0

    def round_trip(took: int) -> None:
        nonlocal now, session
        count = stats.window
        stats.sent(boot, session, count, now)  # type: ignore[arg-type]
        session += count
        now += took
        stats.heard(session - 1, now)  # type: ignore[arg-type]

    for _ in range(4):
        round_trip(20)
    assert stats.window == 256
    round_trip(300)
    assert stats.window == 128
    for _ in range(10):
        round_trip(2_000)
    assert stats.window == MIN_WINDOW


def test_an_answer_that_lies_here_unread_is_not_late() -> None:
    world = World(3, 2)
    world.run(300)
    for _ in range(40):
        world.ask_messages(1, b"m")
        world.run(20)
    process = world.up[Index(1)]
    caught: list[tuple[Process, ToPeer]] = []
    transmit = world._transmit

    def hold_back(sender: Process, send: ToPeer) -> None:
        if isinstance(send.message, SignatureShares):
            caught.append((sender, send))
        else:
            transmit(sender, send)

    world._transmit = hold_back  # type: ignore[method-assign, assignment]
    world.ask_messages(1, b"while we do something else")
    (session,) = process.coordinator.sessions.values()
    due = session.round.sent_at + 100
    world.run(10)
    ((sender, send),) = caught
    # Our own loop stands still for a while: the timer rings late, and what came is read only after it.
    world.now = due + 150
    world._feed(process, Tick())
    world._feed(process, PeerArrived(Sender(sender.seat, sender.boot_id), send.message, world.seal(sender, send)))
    assert all_signed(world)
    assert not world.noted("share_late")
