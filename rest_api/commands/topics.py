"""``signer-flow topics``: the broker's topics beside the table."""

import asyncio
from typing import Annotated

import typer

from rest_api.commands.options import INVALID, AsJson, note, show
from rest_api.topics_command import create_topics


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
