"""What a dealer sealed opens for the one who holds the other half, in this context, unchanged; else not at all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import BadInput, Bug
from signer_service.frost.errors import UnsealFailed
from signer_service.frost.group import IDENTITY, base_mul, mul
from signer_service.frost.sealing import TAG_BYTES, open_sealed, seal
from tests.frost.keymaker import entropy, scalar
from tests.frost.test_proofs import flipped

DEALER, RECIPIENT = scalar("ephemeral"), scalar("transport")
SHARED = mul(base_mul(RECIPIENT), DEALER)
CONTEXT = b"attempt, dealer, recipient, E, X"
PLAINTEXT = entropy("sub-share", 32)
SEALED = seal(SHARED, CONTEXT, PLAINTEXT)


def test_the_recipient_opens_what_the_dealer_sealed() -> None:
    assert open_sealed(mul(base_mul(DEALER), RECIPIENT), CONTEXT, SEALED) == PLAINTEXT
    assert len(SEALED) == len(PLAINTEXT) + TAG_BYTES
    assert PLAINTEXT not in SEALED


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=50))
def test_any_plaintext_comes_back_in_its_context(plaintext: bytes, context: bytes) -> None:
    assert open_sealed(SHARED, context, seal(SHARED, context, plaintext)) == plaintext


def test_sealed_bytes_fail_under_any_change() -> None:
    for sealed in (*flipped(SEALED), SEALED[:-1], SEALED + b"\x00", SEALED[:TAG_BYTES], SEALED[:15], b""):
        with pytest.raises(UnsealFailed):
            open_sealed(SHARED, CONTEXT, sealed)


def test_sealed_bytes_fail_in_any_other_context() -> None:
    for context in (*flipped(CONTEXT), b"", CONTEXT + b"\x00", CONTEXT[:-1]):
        with pytest.raises(UnsealFailed):
            open_sealed(SHARED, context, SEALED)


def test_sealed_bytes_fail_under_another_key_and_say_nothing_of_it() -> None:
    with pytest.raises(UnsealFailed) as caught:
        open_sealed(base_mul(scalar("other")), CONTEXT, SEALED)
    assert isinstance(caught.value, BadInput)
    assert caught.value.__cause__ is None
    assert SHARED.hex() not in str(caught.value)


def test_every_context_has_a_key_stream_of_its_own() -> None:
    """With one key stream for two deals, their ciphertexts would tell the difference of the sub-shares."""
    contexts = [CONTEXT, *(CONTEXT + bytes([i]) for i in range(20))]
    streams = {seal(SHARED, context, bytes(32))[:-TAG_BYTES] for context in contexts}
    assert len(streams) == len(contexts)


def test_the_identity_is_no_shared_secret() -> None:
    with pytest.raises(Bug):
        seal(IDENTITY, CONTEXT, PLAINTEXT)
    with pytest.raises(Bug):
        open_sealed(IDENTITY, CONTEXT, SEALED)
