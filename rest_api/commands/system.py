"""``signer-flow demo``, ``topics`` and ``token``: for whoever runs the system."""

import asyncio
from pathlib import Path
from typing import Annotated, Final

import typer

from rest_api import demo as demos
from rest_api.commands.options import INVALID, AsJson, note, read_duration, show
from rest_api.token_command import make_token
from rest_api.topics_command import create_topics

Kafka = Annotated[
    str | None, typer.Option("--kafka", metavar="HOST:PORT", help="Use this broker, not the embedded one.")
]

LEAST_REFRESH_MS: Final = 3_000
"""A seat of a demo opens no two ceremonies of a key within two seconds."""
MOST_REFRESH_MS: Final = 7 * 86_400_000


def topics(
    kafka: Annotated[str, typer.Option("--kafka", metavar="HOST:PORT", help="The broker.")],
    create: Annotated[bool, typer.Option("--create", help="Create what is missing. Without it, only compare.")] = False,
    apis: Annotated[int, typer.Option("--apis", min=1, max=10_000, help="Number of API pods.")] = 2,
    signers: Annotated[int, typer.Option("--signers", min=2, max=65_535, help="Number of signer replicas.")] = 3,
    replication: Annotated[int | None, typer.Option("--replication", min=1, help="Copies of each partition.")] = None,
    prefix: Annotated[str, typer.Option("--topic-prefix", help="Put before every topic name.")] = "",
    json: AsJson = False,
) -> None:
    """Compare the broker's topics with the table, and create the missing ones."""
    report = asyncio.run(create_topics(kafka, prefix, apis, signers, replication, create=create))
    if json:
        fields = ("topic", "what", "found", "wanted")
        differences = [{name: str(getattr(each, name)) for name in fields} for each in report.differences]
        show({"created": list(report.created), "differences": differences})
    else:
        for name in report.created:
            typer.echo(f"created {name}")
    for difference in report.differences:
        note(f"differs {difference.topic}: {difference.what} is {difference.found}, should be {difference.wanted}")
    if report.differences:
        raise typer.Exit(INVALID)
    if not json:
        typer.echo("all topics are as they should be")


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


def demo(
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
    refresh_interval: Annotated[
        str | None,
        typer.Option(metavar="20s|5m|24h", help="Replace the shares this often, give or take a tenth; daily if unset."),
    ] = None,
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
    interval_ms = None
    if refresh_interval is not None:
        interval_ms = read_duration("--refresh-interval", refresh_interval, LEAST_REFRESH_MS, MOST_REFRESH_MS)
    plan = demos.Plan(
        port=port,
        apis=apis,
        signers=signers,
        threshold=threshold,
        kafka=kafka,
        state_dir=state_dir,
        admin_port=admin_port,
        log_level=log_level,
        refresh_interval_ms=interval_ms,
    )
    raise typer.Exit(demos.run(plan))
