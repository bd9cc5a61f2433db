"""``signer-flow``: the command line of a person or a script.

Results go to standard output, everything else to standard error. Exit codes: 0 done; 1 a signature that does not
verify; 2 usage; 3 refused by the service (4xx); 4 unavailable, or the deadline passed; 130 interrupted.
"""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from common import ed25519
from common.errors import BadInput, Unavailable
from rest_api import client, client_wire, demo
from rest_api.topics_command import create_topics

DONE, INVALID, USAGE, REFUSED, UNAVAILABLE, INTERRUPTED = 0, 1, 2, 3, 4, 130
MAX_MESSAGE_BYTES = 64 * 1024

EXIT_CODES = (
    "Exit codes: 0 done; 1 invalid signature; 2 usage; 3 refused by the service (4xx); "
    "4 unavailable or deadline passed; 130 interrupted."
)

app = typer.Typer(
    name="signer-flow",
    help="Threshold signing over Kafka: plain Ed25519 signatures from a key that no machine holds.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Url = Annotated[str, typer.Option("--url", envvar="SIGNER_FLOW_URL", help="Base URL of the API.")]
Token = Annotated[
    str | None, typer.Option("--token", envvar="SIGNER_FLOW_TOKEN", help="Bearer token, where asked for.")
]
Key = Annotated[str | None, typer.Option("--key", help="Key id; the service's first key if not given.")]
Timeout = Annotated[int, typer.Option("--timeout-ms", min=100, max=30_000, help="Deadline of the request.")]
PublicKey = Annotated[
    str | None,
    typer.Option("--public-key", help="Base64 of the 32-byte public key, or @FILE with it: trust no other."),
]
File = Annotated[str, typer.Argument(metavar="FILE|-", help="The message: a file, or - for standard input.")]
Kafka = Annotated[
    str | None, typer.Option("--kafka", metavar="HOST:PORT", help="Use this broker, not the embedded one.")
]

DEFAULT_URL = "http://127.0.0.1:8000"


@app.command(epilog=EXIT_CODES)
def sign(
    file: File,
    url: Url = DEFAULT_URL,
    key: Key = None,
    token: Token = None,
    timeout_ms: Timeout = client.DEFAULT_TIMEOUT_MS,
    public_key: PublicKey = None,
) -> None:
    """Sign FILE and print the signature in base64. It is verified before it is printed."""
    message = _read_message(file)
    with _client(url, token, timeout_ms, public_key) as api:
        typer.echo(client_wire.b64(api.sign(message, key_id=key).signature))


@app.command(epilog=EXIT_CODES)
def verify(
    file: File,
    signature: Annotated[str, typer.Option("--signature", help="Base64, or @FILE that holds it.")],
    public_key: PublicKey = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    token: Token = None,
) -> None:
    """Check a signature over FILE: offline with --public-key, else with the key that the service at --url names."""
    message = _read_message(file, limit=None)
    given = _base64_option("--signature", signature)
    if public_key is not None:
        expected = _public_key(public_key)
    else:
        with _client(url, token, client.DEFAULT_TIMEOUT_MS, None) as api:
            expected = (api.key(key) if key is not None else api.keys()[0]).public_key
    if len(given) != 64 or not ed25519.verify(expected, message, given):
        _fail(INVALID, f"the signature is NOT valid for this message under {client_wire.b64(expected)}")
    typer.echo(f"valid: signed by {client_wire.b64(expected)}")


@app.command(epilog=EXIT_CODES)
def topics(
    kafka: Annotated[str, typer.Option("--kafka", metavar="HOST:PORT", help="The broker.")],
    create: Annotated[bool, typer.Option("--create", help="Create what is missing. Without it, only compare.")] = False,
    apis: Annotated[int, typer.Option("--apis", min=1, max=10_000, help="Number of API pods.")] = 2,
    signers: Annotated[int, typer.Option("--signers", min=2, max=65_535, help="Number of signer replicas.")] = 3,
    replication: Annotated[int | None, typer.Option("--replication", min=1, help="Copies of each partition.")] = None,
    prefix: Annotated[str, typer.Option("--topic-prefix", help="Put before every topic name.")] = "",
) -> None:
    """Compare the broker's topics with the table, and create the missing ones."""
    report = asyncio.run(create_topics(kafka, prefix, apis, signers, replication, create=create))
    for name in report.created:
        typer.echo(f"created {name}")
    for difference in report.differences:
        typer.echo(
            f"differs {difference.topic}: {difference.what} is {difference.found}, should be {difference.wanted}",
            err=True,
        )
    if report.differences:
        raise typer.Exit(INVALID)
    typer.echo("all topics are as they should be")


@app.command("demo", epilog="Stops on Ctrl-C within 5 s and leaves nothing behind. " + EXIT_CODES)
def run_demo(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="API pod i listens on port+i.")] = 8000,
    apis: Annotated[int, typer.Option(min=1, max=16, help="Number of API pods.")] = 2,
    signers: Annotated[int, typer.Option(min=2, max=15, help="Number of signer replicas (n).")] = 3,
    threshold: Annotated[int, typer.Option(min=2, max=15, help="Replicas that must sign together (t).")] = 2,
    kafka: Kafka = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(help="Keep keys and shares here for the next run; needs --kafka."),
    ] = None,
    admin_port: Annotated[int, typer.Option(min=1, max=65_000, help="Signer i: this+i, API pod i: this+100+i.")] = 9000,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "warning",
) -> None:
    """Run the whole system on this machine: broker, signers, API pods, each a process of its own."""
    if threshold > signers:
        raise typer.BadParameter(
            f"{threshold} of {signers} can never sign: lower it, or raise --signers", param_hint="--threshold"
        )
    if state_dir is not None and kafka is None:
        raise typer.BadParameter(
            "needs --kafka: the embedded broker forgets its log, and shares are useless without it",
            param_hint="--state-dir",
        )
    plan = demo.Plan(
        port=port,
        apis=apis,
        signers=signers,
        threshold=threshold,
        kafka=kafka,
        state_dir=state_dir,
        admin_port=admin_port,
        log_level=log_level,
    )
    raise typer.Exit(demo.run(plan))


def main() -> None:
    """Entry point: run a command, and turn every expected error into one line and its exit code."""
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        if not (line := error.format_message()):  # no command given: the help has been printed
            sys.exit(USAGE)
        _fail(USAGE, f"{line} (see --help)")
    except (typer.Abort, KeyboardInterrupt):
        _fail(INTERRUPTED, "interrupted")
    except client.WrongAnswer as error:
        _fail(INVALID, str(error))
    except client.Refused as error:
        _fail(REFUSED, str(error))
    except client.ClientError as error:
        _fail(UNAVAILABLE, str(error))
    except BadInput as error:
        _fail(USAGE, error.detail)
    except Unavailable as error:
        _fail(UNAVAILABLE, error.detail)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is left to say, and nobody to say it to.
        sys.stderr.close()
        sys.exit(DONE)
    sys.exit(code if isinstance(code, int) else DONE)


def _fail(code: int, line: str) -> NoReturn:
    typer.echo(f"signer-flow: {line}", err=True)
    sys.exit(code)


def _client(url: str, token: str | None, timeout_ms: int, public_key: str | None) -> client.Client:
    pinned = None if public_key is None else _public_key(public_key)
    try:
        return client.Client(url, token=token, timeout_ms=timeout_ms, public_key=pinned)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--url") from None


def _read_message(file: str, limit: int | None = MAX_MESSAGE_BYTES) -> bytes:
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


def _base64_option(name: str, text: str) -> bytes:
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise typer.BadParameter(f"cannot read base64 from {text[1:]}", param_hint=name) from None
    try:
        return client_wire.unb64(text.strip())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=name) from None


def _public_key(text: str) -> bytes:
    data = _base64_option("--public-key", text)
    if len(data) != 32:
        raise typer.BadParameter(f"a public key is 32 bytes, this is {len(data)}", param_hint="--public-key")
    return data


if __name__ == "__main__":
    main()
