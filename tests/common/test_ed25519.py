"""Ed25519 is strict, and the expanded key does not outlive the secret it came from."""

import gc
from typing import Any
from weakref import ref

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common import ed25519
from common.errors import BadInput
from common.secret import Secret
from tests.frost.keymaker import entropy, vectors

CASES = [
    pytest.param(group["publicKey"]["pk"], test, id=f"{test['tcId']}-{test['result']}")
    for group in vectors("wycheproof-ed25519.json")["testGroups"]
    for test in group["tests"]
]


def test_the_wycheproof_file_is_whole() -> None:
    assert len(CASES) == vectors("wycheproof-ed25519.json")["numberOfTests"] == 151


@pytest.mark.parametrize(("public", "test"), CASES)
def test_wycheproof_says_the_same(public: str, test: Any) -> None:
    verdict = ed25519.verify(bytes.fromhex(public), bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
    assert verdict is (test["result"] == "valid")


def test_what_we_sign_openssl_verifies_and_makes_the_same() -> None:
    seed = entropy("seed", 32)
    private, public = ed25519.generate_keypair(seed)
    for message in (b"", b"x", entropy("long", 65536)):
        signature = ed25519.sign(private, message)
        assert signature == Ed25519PrivateKey.from_private_bytes(seed).sign(message)
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        assert ed25519.verify(public, message, signature)
    assert ed25519.public_key(Secret(seed)) == public


def test_a_key_or_signature_of_another_length_is_invalid_and_reads_no_memory_beyond_it() -> None:
    private, public = ed25519.generate_keypair(entropy("seed", 32))
    signature = ed25519.sign(private, b"m")
    for wrong in (b"", public[:31], public + b"\x00"):
        assert not ed25519.verify(wrong, b"m", signature)
    for wrong in (b"", signature[:63], signature + b"m"):
        assert not ed25519.verify(public, b"m", wrong)
    assert not ed25519.verify(public, b"", signature + b"m")


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_private_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(BadInput) as caught:
        ed25519.generate_keypair(bytes(length))
    assert caught.value.code == "ed25519-seed"


def test_an_expanded_key_goes_with_its_secret() -> None:
    private, _ = ed25519.generate_keypair(entropy("short-lived", 32))
    ed25519.sign(private, b"m")
    gc.collect()  # of what other tests left
    gone, before = ref(private), len(ed25519._expanded)
    del private
    gc.collect()
    assert gone() is None
    assert len(ed25519._expanded) == before - 1
