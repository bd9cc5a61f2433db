"""What one bad seat, a wrong clock or a careless hand must not bring about: a crash, a standstill, a lost safeguard."""

from collections.abc import Iterable

from common.ids import Index
from common.wire.messages import CeremonyRecord, Ready
from common.wire.signatures import ENVELOPE_DOMAIN, SIGNATURE_BYTES, sign_bytes
from tests import playbook
from tests.world import World


def with_key(threshold: int = 2, size: int = 3) -> World:
    world = World(threshold, size)
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(2_500)
    return world


def padded(raw: bytes, payload: bytes, name: str) -> bytes:
    """The same envelope with thousands of bytes more: Avro libraries read an integer with zeros before it."""
    body = raw[:-SIGNATURE_BYTES]
    at = body.index(payload)
    length = bytearray()
    number = 2 * len(payload)
    while number:
        length.append(number % 128 | 128)
        number //= 128
    assert body[:at].endswith(bytes(length[:-1]) + bytes([length[-1] & 127]))
    longer = body[: at - len(length)] + bytes(length) + b"\x80" * 20_000 + b"\x00" + payload
    return sign_bytes(ENVELOPE_DOMAIN, longer + bytes(SIGNATURE_BYTES), playbook.private(name))


def test_a_bloated_envelope_of_a_ready_neither_counts_nor_makes_the_key_record_too_large() -> None:
    world = with_key()

    def bloat(record: CeremonyRecord, world: World) -> Iterable[CeremonyRecord]:
        state = world.seats[1].state
        if not isinstance(record, Ready) or state is None:
            return [record]
        raw = playbook.say(1, record, state.log)
        payload = world.trust.wire.encode_record(record)
        world.append(padded(raw, payload, "seat 1"))
        return []

    world.seats[1].tamper = bloat
    world.ask_refresh(2)
    world.run(lambda: world.agrees(2, (2, 3)))
    current = world.key().current
    assert current is not None
    assert Index(1) not in current.ready
    playbook.every_subset_signs(world.keys_at(seats=(2, 3)))
