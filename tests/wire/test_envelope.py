"""Who said it: what a signature on an envelope, a request or a roster is good for, and where it is void."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from common import ed25519
from common.errors import BadInput
from common.ids import BootId, Instant, Offset
from common.wire import codec, signatures
from common.wire.envelope import (
    Opened,
    Signer,
    check_request,
    edge_key_id,
    open_envelope,
    seal,
    sign_request,
    sign_roster,
)
from common.wire.messages import Envelope, MsgToSign, Role, Roster
from tests.wire.samples import BOOT, MSG_TO_SIGN, OTHER_BOOT, SAMPLES, fill

PRIVATE, PUBLIC = ed25519.generate_keypair(fill(1, 32))
OTHER_PRIVATE, OTHER_PUBLIC = ed25519.generate_keypair(fill(2, 32))
EDGE_PRIVATE, EDGE_PUBLIC = ed25519.generate_keypair(fill(3, 32))
SEAT = Signer(Role.SIGNER, 1, BOOT, PRIVATE)
TOPIC = "demo.signer.v1.peer2"


def keys_of(role: Role, index: int) -> tuple[bytes, ...]:
    if role is Role.API:
        return (OTHER_PUBLIC, EDGE_PUBLIC)
    return {1: (PUBLIC,), 2: (OTHER_PUBLIC,)}.get(index, ())


def refused(code: str, action: Callable[[], object]) -> None:
    with pytest.raises(BadInput) as caught:
        action()
    assert caught.value.code == code


def test_an_envelope_opens_to_what_was_sealed() -> None:
    raw = seal(SEAT, TOPIC, b"payload", Offset(3), fill(4, 64))

    assert open_envelope(raw, TOPIC, keys_of) == Opened(Role.SIGNER, 1, BOOT, Offset(3), fill(4, 64), b"payload", raw)


def test_an_envelope_is_void_on_every_other_topic() -> None:
    raw = seal(SEAT, TOPIC, b"payload")

    for elsewhere in ("signer.v1.peer2", "demo.signer.v1.peer1", "demo.signer.v1.peer22"):
        refused("wrong-topic", lambda topic=elsewhere: open_envelope(raw, topic, keys_of))  # type: ignore[misc]


def test_a_seat_cannot_speak_for_another_seat_or_for_an_api_pod() -> None:
    for liar in (Signer(Role.SIGNER, 2, BOOT, PRIVATE), Signer(Role.API, 1, BOOT, PRIVATE)):
        raw = seal(liar, TOPIC, b"payload")
        refused("bad-signature", lambda raw=raw: open_envelope(raw, TOPIC, keys_of))  # type: ignore[misc]


def test_a_seat_that_the_roster_does_not_have_is_unknown() -> None:
    refused("unknown-sender", lambda: open_envelope(seal(replace(SEAT, index=3), TOPIC, b"payload"), TOPIC, keys_of))


def test_an_api_pod_may_sign_with_any_edge_key_of_the_roster() -> None:
    for private in (EDGE_PRIVATE, OTHER_PRIVATE):
        raw = seal(Signer(Role.API, 0, BOOT, private), TOPIC, b"beat")
        assert open_envelope(raw, TOPIC, keys_of).role is Role.API


def test_no_bit_of_an_envelope_can_be_changed() -> None:
    raw = seal(SEAT, TOPIC, b"payload", Offset(3), fill(4, 64))

    for at in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[at] ^= 1 << bit
            with pytest.raises(BadInput):
                open_envelope(bytes(changed), TOPIC, keys_of)


def test_the_boot_id_is_signed() -> None:
    envelope = codec.decode(seal(SEAT, TOPIC, b"payload"), Envelope)
    forged = codec.encode(replace(envelope, boot_id=BootId(OTHER_BOOT)))

    refused("bad-signature", lambda: open_envelope(forged, TOPIC, keys_of))


def request() -> MsgToSign:
    return replace(MSG_TO_SIGN, edge_key_id=edge_key_id(EDGE_PUBLIC))


EDGE_KEYS = {edge_key_id(EDGE_PUBLIC): EDGE_PUBLIC, edge_key_id(OTHER_PUBLIC): OTHER_PUBLIC}


def test_a_request_stands_with_the_edge_key_that_it_names() -> None:
    raw = sign_request(request(), EDGE_PRIVATE)

    check_request(raw, codec.decode(raw, MsgToSign), EDGE_KEYS)


def test_a_request_with_anything_changed_is_nobodys() -> None:
    raw = sign_request(request(), EDGE_PRIVATE)
    decoded = codec.decode(raw, MsgToSign)

    for change in (
        {"reply_to": "signer.v1.resp1"},
        {"instance_id": BootId(OTHER_BOOT)},
        {"items": decoded.items[:1]},
        {"items": (replace(decoded.items[0], message=b"another message"),)},
        {"items": (replace(decoded.items[0], deadline_ms=Instant(decoded.items[0].deadline_ms + 1)),)},
        {"edge_key_id": edge_key_id(OTHER_PUBLIC)},
    ):
        other = replace(decoded, **change)
        refused(
            "bad-edge-signature",
            lambda other=other: check_request(codec.encode(other), other, EDGE_KEYS),  # type: ignore[misc]
        )


def test_an_edge_key_that_the_roster_revoked_cannot_ask() -> None:
    raw = sign_request(request(), EDGE_PRIVATE)
    left = {name: key for name, key in EDGE_KEYS.items() if key != EDGE_PUBLIC}

    refused("bad-edge-signature", lambda: check_request(raw, codec.decode(raw, MsgToSign), left))


def test_an_edge_key_is_named_by_the_start_of_its_hash() -> None:
    # SHA-256 of 32 zero bytes: 66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925
    assert edge_key_id(bytes(32)) == "66687aadf862bd77"


def test_bytes_signed_as_one_thing_are_valid_as_no_other() -> None:
    roster = codec.encode(SAMPLES[Roster])
    domains = (signatures.REQUEST_DOMAIN, signatures.ENVELOPE_DOMAIN, signatures.ROSTER_DOMAIN)
    assert sign_roster(SAMPLES[Roster], PRIVATE) == signatures.sign_bytes(signatures.ROSTER_DOMAIN, roster, PRIVATE)

    for signed in domains:
        raw = signatures.sign_bytes(signed, roster, PRIVATE)
        assert [signatures.is_signed_by(domain, raw, PUBLIC) for domain in domains] == [d == signed for d in domains]


def test_no_domain_is_the_beginning_of_another() -> None:
    domains = (signatures.REQUEST_DOMAIN, signatures.ENVELOPE_DOMAIN, signatures.ROSTER_DOMAIN)

    assert not any(a is not b and a.startswith(b) for a in domains for b in domains)


def test_who_seals_does_not_print_the_key() -> None:
    assert fill(1, 32).hex() not in repr(SEAT)
    assert repr(fill(1, 32)) not in repr(SEAT)
