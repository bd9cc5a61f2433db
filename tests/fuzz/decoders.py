"""Every decoder, by name. What stands here is held by `make test` and looked at by `make fuzz`.

A record's decoder is given the body after its header, so that no input is wasted on eight bytes that have to be right;
``any-record`` is given all of it. Where a signature stands before a decoder, inputs are signed: behind it is where a
stolen key, or one of ours, could do harm.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final, get_args

import schemas
from common import trust
from common.errors import BadInput, PeerFault
from common.wire import codec, envelope, topics
from common.wire import messages as m
from common.wire.shapes import SHAPES
from common.wire.signatures import ENVELOPE_DOMAIN, REQUEST_DOMAIN, ROSTER_DOMAIN, check_request, sign_bytes
from signer_service.frost import group, nonces, proofs
from signer_service.shell.poison import error_answer
from tests import test_trust
from tests.fuzz import edge, formats, machines
from tests.fuzz.changes import change_values
from tests.fuzz.running import Decoder
from tests.wire.samples import SAMPLES, header

CANONICAL: Final = frozenset(get_args(m.CeremonyRecord))
SIGNATURE: Final = 64


def _holds(data: bytes, *kinds: type[Any]) -> None:
    """What is decoded is inside all bounds: it can be encoded; and what is kept for ever has one encoding."""
    value = codec.decode(data, *kinds)
    again = codec.encode(value)
    assert codec.decode(again, *kinds) == value, "another value comes back"
    if type(value) in CANONICAL and data[:10] == again[:10]:
        assert again == data, "a second encoding was taken"


def _of_record(kind: type[Any]) -> Decoder:
    head = header(kind.__name__)
    return Decoder(
        f"record-{kind.__name__}",
        lambda data: _holds(head + data, kind),
        (BadInput,),
        lambda: [codec.encode(SAMPLES[kind])[10:]],
        vary=lambda data, dice: change_values(head + data, dice)[10:],
        rounds=80,
    )


def _samples() -> list[bytes]:
    """One of each record; and of each schema of the past its header before the body of today."""
    older = [
        b"\xc3\x01" + mark + codec.encode(SAMPLES[entry.kind])[10:]
        for mark, text in schemas.history().items()
        if (entry := codec._BY_NAME.get(codec._parse(text)["name"])) is not None
    ]
    return [*map(codec.encode, SAMPLES.values()), *older]


def _addressee(data: bytes) -> None:
    answer = error_answer("", data, BadInput("fuzz", "any"))
    if answer is not None:
        codec.encode(answer[1])


# --- behind a signature -----------------------------------------------------------------------------------------------

_TOPIC: Final = topics.ceremony("demo.").name
_EDGE: Final = {envelope.edge_key_id(test_trust.EDGE_PUBLIC): test_trust.EDGE_PUBLIC}
_ASKED: Final = replace(SAMPLES[m.MsgToSign], edge_key_id=envelope.edge_key_id(test_trust.EDGE_PUBLIC))


def _identity(role: m.Role, index: int) -> Sequence[bytes]:
    if role is m.Role.API:
        return (test_trust.EDGE_PUBLIC,)
    return (test_trust.pair(index)[1],) if 1 <= index <= 3 else ()


def _signed(domain: bytes, data: bytes, private: Any) -> bytes:
    return sign_bytes(domain, data + bytes(SIGNATURE), private)


def _envelope(data: bytes) -> None:
    raw = header("Envelope") + data
    envelope.open_envelope(raw, _TOPIC, _identity)


def _sealed(data: bytes) -> None:
    """The same with the signature of seat 1 at its end, whatever stands before it."""
    raw = _signed(ENVELOPE_DOMAIN, header("Envelope") + data, test_trust.pair(1)[0])
    codec.decode_ceremony(envelope.open_envelope(raw, _TOPIC, _identity).payload)


@cache
def _envelopes() -> tuple[bytes, ...]:
    signer = envelope.Signer(m.Role.SIGNER, 1, test_trust.BOOT, test_trust.pair(1)[0])
    said = [codec.encode(each) for each in SAMPLES.values() if type(each) in CANONICAL]
    return tuple(envelope.seal(signer, _TOPIC, each)[10:] for each in said)


def _roster(data: bytes) -> None:
    raw = _signed(ROSTER_DOMAIN, header("Roster") + data, test_trust.OPERATOR)
    roster = trust.read_roster(raw, test_trust.OPERATOR_PUBLIC)
    trust.newer(test_trust.a_roster(version=0), roster)


def _key_record(data: bytes) -> None:
    trust.check_key_record(
        header("KeyRecord") + data, test_trust.OPERATOR_PUBLIC, topic=test_trust.TOPIC, pinned=None, previous=None
    )


def _request(data: bytes) -> None:
    raw = _signed(REQUEST_DOMAIN, header("MsgToSign") + data, test_trust.EDGE)
    check_request(raw, codec.decode(raw, m.MsgToSign), _EDGE)


# --- arithmetic -------------------------------------------------------------------------------------------------------


def _each(*takes: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """Give one input to several; each must hold, and what one refuses goes to the next all the same."""

    def take(data: bytes) -> None:
        refused: Exception | None = None
        for one in takes:
            try:
                one(data)
            except (BadInput, PeerFault) as bad:
                refused = bad
        if refused is not None:
            raise refused

    return take


_POINT: Final = group.base_mul(group.Scalar(5))


@cache
def all_decoders() -> dict[str, Decoder]:
    """By name."""
    refusals = (BadInput, PeerFault)
    rosters = lambda: [codec.encode(test_trust.a_roster())[10:-SIGNATURE]]  # noqa: E731
    known = [
        *(_of_record(kind) for kind in SHAPES),
        Decoder("any-record", lambda data: _holds(data, *SHAPES), refusals, _samples, [b"\xc3\x01"], rounds=200),
        Decoder("addressee", _addressee, (), lambda: [codec.encode(SAMPLES[m.MsgToSign])]),
        Decoder("envelope", _envelope, refusals, lambda: [codec.encode(SAMPLES[m.Envelope])[10:], *_envelopes()]),
        Decoder("envelope-signed", _sealed, refusals, lambda: [each[:-SIGNATURE] for each in _envelopes()]),
        Decoder("roster", _roster, refusals, rosters),
        Decoder("key-record", _key_record, refusals, lambda: [codec.encode(test_trust.Committee().record())[10:]]),
        Decoder("request", _request, refusals, lambda: [codec.encode(_ASKED)[10:-SIGNATURE]]),
        Decoder(
            "points",
            _each(
                group.decode_element,
                group.decode_scalar,
                nonces.Commitment.from_bytes,
                lambda data: nonces.Commitment.to_multiply(data[:64]),
                lambda data: proofs.verify_proof(group.decode_element(data[:32]), b"context", data[32:]),
                lambda data: proofs.verify_equal(
                    _POINT, _POINT, group.decode_element(data[:32]), b"context", data[32:]
                ),
            ),
            refusals,
            lambda: [_POINT, bytes(_POINT) * 2, bytes(32), bytes(_POINT) + bytes(64), b"\x01" + bytes(31)],
            longest=160,
        ),
        *machines.machines(),
        *formats.formats(),
        *edge.edges(),
    ]
    names = {each.name: each for each in known}
    assert len(names) == len(known)
    return names
