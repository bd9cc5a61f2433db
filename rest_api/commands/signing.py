"""``signer-flow sign`` and ``verify``: one message."""

from typing import Annotated

import typer

from common import ed25519
from rest_api import client_wire
from rest_api.commands.options import (
    DEFAULT_URL,
    INVALID,
    AsJson,
    File,
    Key,
    PublicKey,
    Timeout,
    Token,
    Url,
    connect,
    note,
    read_base64,
    read_message,
    read_public_key,
    show,
)


def sign(
    file: File,
    url: Url = DEFAULT_URL,
    key: Key = None,
    token: Token = None,
    timeout_ms: Timeout = client_wire.DEFAULT_TIMEOUT_MS,
    public_key: PublicKey = None,
    json: AsJson = False,
) -> None:
    """Sign FILE and print the signature in base64. It is verified before it is printed."""
    message = read_message(file)
    with connect(url, token, timeout_ms, public_key) as api:
        signed = api.sign(message, key_id=key)
    if json:
        show(signed.as_json())
    else:
        typer.echo(client_wire.b64(signed.signature))


def verify(
    file: File,
    signature: Annotated[str, typer.Option("--signature", help="Base64, or @FILE that holds it.")],
    public_key: PublicKey = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Check a signature over FILE: offline with --public-key, else with the key that the service at --url names."""
    message = read_message(file, limit=None)
    given = read_base64("--signature", signature)
    if public_key is not None:
        expected = read_public_key(public_key)
    else:
        with connect(url, token) as api:
            expected = api.key_or_first(key).public_key
    valid = len(given) == 64 and ed25519.verify(expected, message, given)
    if json:
        show({"valid": valid, "public_key": client_wire.b64(expected)})
    elif valid:
        typer.echo(f"valid: signed by {client_wire.b64(expected)}")
    else:
        note(f"the signature is NOT valid for this message under {client_wire.b64(expected)}")
    if not valid:
        raise typer.Exit(INVALID)
