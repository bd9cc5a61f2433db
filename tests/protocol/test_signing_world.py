"""Signing by a committee on a hostile network, judged by what comes out."""

from tests.protocol.signing_world import World


def test_two_of_three_sign_what_a_pod_asked_for() -> None:
    world = World(3, 2)
    world.run(50)
    world.ask_messages(1, b"hello", b"", b"x" * 65_536)
    world.run_until_answered()
    assert len(world.signed()) == 3
