"""``signer-flow token``: for whoever lets callers in."""

from pathlib import Path
from typing import Annotated

import typer

from rest_api.commands.options import AsJson, note, show
from rest_api.token_command import make_token


def token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the caller: it stands in the audit.")],
    file: Annotated[Path, typer.Option("--file", help="The token file of the API pods; made if there is none.")],
    keys: Annotated[
        str | None, typer.Option("--keys", metavar="A,B", help="Ids of the keys it is for; all if not given.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", help="Signatures per second, minute or hour and pod: 100/second.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Make a token for a caller: its hash goes into the file, the token itself is printed once and kept nowhere."""
    allowed = None if keys is None else [key.strip() for key in keys.split(",") if key.strip()]
    secret, made = make_token(file, name, allowed, rate)
    if json:
        named = None if made.keys is None else sorted(made.keys)
        show({"token": secret, "name": made.name, "sha256": made.sha256.hex(), "keys": named, "rate": rate})
    else:
        typer.echo(secret)
    note(f"{file} has {name!r} now; this is the only time that its token is shown")
