"""Every message of Wycheproof's Ed25519 file, signed by a threshold of participants."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from common import ed25519
from tests.frost.keymaker import deal, sign, vectors

MESSAGES = sorted(
    {
        bytes.fromhex(test["msg"])
        for group in vectors("wycheproof-ed25519.json")["testGroups"]
        for test in group["tests"]
    }
)


@pytest.mark.parametrize("committee", [(2, 3, (1, 3)), (3, 5, (2, 4, 5))], ids=str)
def test_every_wycheproof_message_is_signed_and_verified_by_openssl_and_libsodium(committee: Any) -> None:
    threshold, size, chosen = committee
    group = deal(threshold, size)
    openssl = Ed25519PublicKey.from_public_bytes(group.public.group_key)
    assert len(MESSAGES) > 70
    assert b"" in MESSAGES
    for message in MESSAGES:
        signature = sign(group, chosen, message)
        openssl.verify(signature, message)
        assert ed25519.verify(group.public.group_key, message, signature)
        assert not ed25519.verify(group.public.group_key, message + b"\x00", signature)
