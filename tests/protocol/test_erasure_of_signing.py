"""When an epoch may be used no more, the signing machines have neither its share nor a nonce, whatever is under way."""

from dataclasses import replace

from common.ids import Index
from signer_service.frost.group import ORDER
from tests.memory import Dump, masked
from tests.protocol.signing_world import Weather, World, deal
from tests.protocol.test_signing_world import messages


def test_sessions_that_are_cut_short_by_the_end_of_an_epoch_leave_no_share_and_no_nonce() -> None:
    world = World(3, 2, weather=Weather(delay_ms=(30, 30)))
    secret = world.dice.randrange(1, ORDER)
    world.committee = before = deal(world.dice, 3, 2, 1, 10, secret)
    after = deal(world.dice, 3, 2, 2, 20, secret)
    for seat in world.identities:
        world.change_view(seat, world.view(seat))
    world.run(400)
    world.ask_messages(1, *messages(5))
    seat = Index(1)
    running = world.up[seat]
    world.run(500, lambda: bool(running.coordinator.sessions))
    pairs = [each.own for each in running.coordinator.sessions.values() if each.own is not None]
    assert pairs, "sessions wait for the others' shares"
    share = before.keys[seat].share
    assert share is not None
    old = {masked(share.share.expose())}
    old |= {masked(each.expose()) for pair in pairs for each in (pair.hiding, pair.binding)}
    for reserved in (each for boots in running.participant.nonces._reserved.values() for each in boots.values()):
        old |= {masked(pair.hiding.expose()) for _, pair in reserved.pairs.values()}
    machines = (running.coordinator, running.participant)
    assert Dump(machines).holds(old) == old
    # Rounds are looked at again for seconds after they were sent: their timers must not outlive the epoch.
    world.change_view(seat, replace(world.view(seat, after), draining={}))
    assert not Dump(machines).holds(old)
