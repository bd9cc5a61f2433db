"""``signer-flow demo``: the whole system on this machine."""

from pathlib import Path
from typing import Annotated, Final

import typer

from rest_api import demo as demos
from rest_api.commands.options import read_duration

Kafka = Annotated[
    str | None, typer.Option("--kafka", metavar="HOST:PORT", help="Use this broker, not the embedded one.")
]

LEAST_REFRESH_MS: Final = 3_000
"""A seat of a demo opens no two ceremonies of a key within two seconds."""
MOST_REFRESH_MS: Final = 7 * 86_400_000


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
    tokens_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Ask callers for a token of this file (signer-flow token)."),
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
        tokens_file=tokens_file,
    )
    raise typer.Exit(demos.run(plan))
