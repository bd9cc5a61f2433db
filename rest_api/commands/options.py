"""What several commands share: options, exit codes, the client, files, base64 and durations on the command line."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import orjson
import typer

from rest_api import client_wire

if TYPE_CHECKING:
    from rest_api.client import Client

DONE, INVALID, USAGE, REFUSED, UNAVAILABLE, INTERRUPTED = 0, 1, 2, 3, 4, 130
MAX_MESSAGE_BYTES: Final = 64 * 1024

EXIT_CODES: Final = (
    "Exit codes: 0 done; 1 invalid signature, or some row failed; 2 usage; 3 refused by the service (4xx); "
    "4 unavailable or deadline passed; 130 interrupted."
)
DEFAULT_URL: Final = "http://127.0.0.1:8000"

Url = Annotated[str, typer.Option("--url", envvar="SIGNER_FLOW_URL", help="Base URL of the API.")]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="SIGNER_FLOW_TOKEN",
        show_envvar=True,
        help="Bearer token, where one is asked for. Better in the environment: every user of this machine can read "
        "the arguments of a command.",
    ),
]
Key = Annotated[str | None, typer.Option("--key", help="Key id; the service's first key if not given.")]
Timeout = Annotated[int, typer.Option("--timeout-ms", min=100, max=30_000, help="Deadline of a request.")]
PublicKey = Annotated[
    str | None,
    typer.Option("--public-key", help="Base64 of the 32-byte public key, or @FILE with it: trust no other."),
]
File = Annotated[str, typer.Argument(metavar="FILE|-", help="The message: a file, or - for standard input.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def fail(code: int, line: str) -> NoReturn:
    """End with one line on standard error."""
    note(line)
    sys.exit(code)


def note(line: str) -> None:
    """Say something that is no result."""
    typer.echo(f"signer-flow: {line}", err=True)


def show(value: Any) -> None:
    """Print a result as one line of JSON."""
    typer.echo(orjson.dumps(value).decode())


def connect(
    url: str,
    token: str | None,
    timeout_ms: int = client_wire.DEFAULT_TIMEOUT_MS,
    public_key: str | None = None,
    retry_for_s: float = 10.0,
) -> "Client":
    """Return a client for the common options; a wrong one is a usage error."""
    # Imported here: what works offline does not wait for the import of an HTTP client.
    from stamina.instrumentation import set_on_retry_hooks  # noqa: PLC0415

    from rest_api.client import Client  # noqa: PLC0415

    # Of its own accord stamina tells of each retry on standard output, in the middle of the results.
    set_on_retry_hooks(())
    pinned = None if public_key is None else read_public_key(public_key)
    if token is not None and not (token.isascii() and token.isprintable() and token):
        raise typer.BadParameter("not a token: expected printable ASCII", param_hint="--token")
    try:
        return Client(url, token=token, timeout_ms=timeout_ms, public_key=pinned, retry_for_s=retry_for_s)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--url") from None


def read_message(file: str, limit: int | None = MAX_MESSAGE_BYTES) -> bytes:
    """Return a file's or standard input's bytes; more than ``limit`` is a usage error that says what to do."""
    try:
        if file == "-":
            data = sys.stdin.buffer.read() if limit is None else sys.stdin.buffer.read(limit + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read() if limit is None else stream.read(limit + 1)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {file}: {error.strerror}", param_hint="FILE") from None
    if limit is not None and len(data) > limit:
        raise typer.BadParameter(
            f"larger than {limit} bytes; sign its SHA-256 instead (sha256sum {file} | cut -d' ' -f1)", param_hint="FILE"
        )
    return data


def read_base64(name: str, text: str) -> bytes:
    """Return the bytes of option ``name``: base64, or @FILE that holds it."""
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise typer.BadParameter(f"cannot read base64 from {text[1:]}", param_hint=name) from None
    try:
        return client_wire.unb64(text.strip())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=name) from None


def read_public_key(text: str) -> bytes:
    """Return the 32 bytes of --public-key."""
    data = read_base64("--public-key", text)
    if len(data) != 32:
        raise typer.BadParameter(f"a public key is 32 bytes, this is {len(data)}", param_hint="--public-key")
    return data


_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def read_duration(name: str, text: str, least_ms: int, most_ms: int) -> int:
    """Return the milliseconds of option ``name``: a whole number and a unit (ms, s, m, h, d), such as ``20s``."""
    match = re.fullmatch(r"([0-9]{1,12})(ms|[smhd])", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no duration; write 20s, 5m or 24h", param_hint=name)
    duration = int(match[1]) * _UNITS_MS[match[2]]
    if not least_ms <= duration <= most_ms:
        raise typer.BadParameter(f"from {_words(least_ms)} to {_words(most_ms)}, not {text}", param_hint=name)
    return duration


def _words(ms: int) -> str:
    unit = max((unit for unit, size in _UNITS_MS.items() if ms % size == 0), key=lambda unit: _UNITS_MS[unit])
    return f"{ms // _UNITS_MS[unit]}{unit}"
