"""``python -m signer_service run | provision | key-records | inspect | audit``.

Exit codes: 0 done or told to end; 2 usage, settings or files are wrong (starting again cannot help); 4 something that
is needed is not there now; 1 our own fault, or (audit) something does not hold. Whatever is wrong is one line on
standard error. Told to end before the first line here ran, Python itself ends by the signal (143 in a shell): nothing
had begun.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from common.collector import hold
from common.errors import BadInput, SignerFlowError, Unavailable
from common.stopping import leave_at_once

if TYPE_CHECKING:
    from signer_service.new_log import NewLog

EXIT_FAULT: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNAVAILABLE: Final = 4

cli = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="One threshold signer."
)


@cli.command()
def run(
    insecure_dev: Annotated[
        bool, typer.Option("--insecure-dev", help="Start without a sealing key: state at rest is readable.")
    ] = False,
) -> None:
    """Run one replica, configured by SIGNER_SERVICE_* variables, until SIGTERM or SIGINT."""
    # Before the imports below: they take most of the start.
    leave_at_once()
    hold()

    def start() -> int:
        # Imported here: provisioning needs neither a broker's library nor an event loop.
        from signer_service import app, settings  # noqa: PLC0415

        overrides: dict[str, Any] = {"insecure_dev": True} if insecure_dev else {}
        return app.run(settings.load(**overrides))

    raise typer.Exit(_guarded(start))


@cli.command()
def provision(
    signers: Annotated[int, typer.Option(help="How many replicas hold shares (n).")],
    threshold: Annotated[int, typer.Option(help="How many of them sign together (t).")],
    out: Annotated[
        Path, typer.Option(help="The folder for keys and roster; made if missing. With --kubernetes: where to work.")
    ],
    key: Annotated[
        list[str] | None, typer.Option(help="ID:T, a key that should exist; may be repeated. Default: default:<t>.")
    ] = None,
    replace_seat: Annotated[
        list[int] | None, typer.Option(help="Give this seat a new identity although the roster has one.")
    ] = None,
    lower_threshold_from: Annotated[
        int | None, typer.Option(metavar="T", help="Lower a threshold that is T now; without this none is lowered.")
    ] = None,
    kubernetes: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="In a pod: keep keys and roster in objects NAME-… of its namespace."),
    ] = None,
    instance: Annotated[
        str | None, typer.Option(help="With --kubernetes: the release, for labels. Default: NAME.")
    ] = None,
    key_records: Annotated[
        Path | None,
        typer.Option(help="The ceremony log is lost: begin another that goes on from these, printed by `key-records`."),
    ] = None,
    never_made: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="With --key-records: this key has no record, for no ceremony ever made it."),
    ] = None,
    topic_prefix: Annotated[str, typer.Option(help="With --key-records: what the system's topics begin with.")] = "",
) -> None:
    """Make what is missing: operator, edge and seat keys, and the signed roster. Overwrites and deletes nothing."""

    def make() -> int:
        from common.ids import parse_index  # noqa: PLC0415
        from signer_service import provision as provisioning  # noqa: PLC0415

        def plan(operator_key: Callable[[], bytes]) -> provisioning.Plan:
            return provisioning.Plan(
                signers,
                threshold,
                tuple(provisioning.parse_key(text) for text in key or ()),
                frozenset(parse_index(seat) for seat in replace_seat or ()),
                _new_log(key_records, never_made or [], topic_prefix, operator_key),
                lower_threshold_from,
            )

        if kubernetes is None:
            from signer_service.shell.keystore import read_public_key  # noqa: PLC0415

            asked = plan(lambda: read_public_key(out / "operator.pub", "operator public key"))
            done = provisioning.provision(out, asked, os.urandom)
        else:
            from common.kubernetes import Kubernetes  # noqa: PLC0415
            from signer_service import provision_kubernetes as cluster  # noqa: PLC0415

            names = cluster.Names.of(kubernetes, instance or kubernetes)
            with Kubernetes.of_this_pod(os.environ) as api:
                asked = plan(lambda: cluster.operator_key(api, names))
                done = cluster.provision_namespace(api, names, asked, os.urandom, out)
        for line in done.lines:
            typer.echo(line)
        return 0

    raise typer.Exit(_guarded(make))


def _new_log(
    path: Path | None, never_made: list[str], prefix: str, operator_key: Callable[[], bytes]
) -> "NewLog | None":
    if path is None:
        if never_made:
            raise BadInput("usage", "--never-made goes with --key-records")
        return None
    from common.ids import parse_key_id  # noqa: PLC0415
    from signer_service import key_records  # noqa: PLC0415

    return key_records.read_file(path, operator_key(), prefix, map(parse_key_id, never_made))


@cli.command("key-records")
def key_records_of_system(
    epoch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID:N",
            help="Take this epoch of a key and not the newest, from the ceremony log if need be; may be repeated.",
        ),
    ] = None,
    own_state: Annotated[
        bool, typer.Option("--own-state", help="Read this seat's state directory, too; the replica must be stopped.")
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option(help="With --epoch: look into this ceremony log, saved by `audit --save`, not the broker's."),
    ] = None,
) -> None:
    """Print the newest record of each key, for `provision --key-records`; configured by SIGNER_SERVICE_* as `run`.

    Which epochs they are, and which the seats say, goes to standard error. Refused where a seat knows a newer one.
    """

    def read() -> int:
        from signer_service import key_records, settings  # noqa: PLC0415

        asked = dict(key_records.parse_epoch(text) for text in epoch or ())
        if log is not None and not asked:
            raise BadInput("usage", "--log goes with --epoch")
        return key_records.of_system(
            settings.load(), asked, typer.echo, lambda line: typer.echo(line, err=True), own_state=own_state, log=log
        )

    raise typer.Exit(_guarded(read))


@cli.command()
def inspect(
    state_dir: Annotated[Path, typer.Option(help="A replica's state directory; the replica must not be running.")],
    seat_dir: Annotated[Path, typer.Option(help="The seat's folder, with sealing.key: seats/<i> of `provision`.")],
    operator_pub: Annotated[Path, typer.Option(help="The operator's public key.")],
    seat: Annotated[int | None, typer.Option(help="The seat; default: the folder's name.")] = None,
    insecure_dev: Annotated[bool, typer.Option("--insecure-dev", help="The replica ran without sealing key.")] = False,
) -> None:
    """Show what a state directory holds, and whether it is whole. Never a secret; nothing is changed."""

    def show() -> int:
        from signer_service import inspection  # noqa: PLC0415

        for line in inspection.inspect(state_dir, seat_dir, operator_pub, seat, insecure_dev=insecure_dev):
            typer.echo(line)
        return 0

    raise typer.Exit(_guarded(show))


@cli.command()
def audit(
    operator_pub: Annotated[Path, typer.Option(help="The operator's public key: all that is believed beforehand.")],
    kafka: Annotated[str | None, typer.Option(help="HOST:PORT: read the log from this broker.")] = None,
    log: Annotated[Path | None, typer.Option(help="Read a log that was saved with --save.")] = None,
    topic_prefix: Annotated[
        str | None, typer.Option(help="What the system's topics begin with. Default: nothing; --log: as saved.")
    ] = None,
    kafka_security_file: Annotated[
        Path | None, typer.Option(help="librdkafka options for SASL and TLS, name=value, a file private to you.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Save the log that is read to this new file as well.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Report on this key only. Everything is checked all the same.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
) -> None:
    """Check every epoch of every key again, from the ceremony log. Changes nothing.

    Ends with 0 if everything holds; with 1 and one line if something does not; 2: usage; 4: no broker or no such topic.
    """

    def check() -> int:
        from signer_service.audit import command  # noqa: PLC0415

        asked = command.Asked(operator_pub, kafka, log, topic_prefix, kafka_security_file, save, key)
        return command.audit(asked, typer.echo, lambda line: typer.echo(line, err=True), json=json)

    raise typer.Exit(_guarded(check))


def _guarded(work: Callable[[], int]) -> int:
    try:
        return work()
    except BadInput as error:
        typer.echo(f"signer_service: {error.detail}", err=True)
        return EXIT_USAGE
    except Unavailable as error:
        if error.code != "ended":  # that was logged when it happened, and is worth one line
            typer.echo(f"signer_service: {error.detail}", err=True)
        return EXIT_UNAVAILABLE
    except SignerFlowError as error:
        if error.code != "ended-by-bug":  # logged too, with where it happened
            typer.echo(f"signer_service: {error}", err=True)
        return EXIT_FAULT


if __name__ == "__main__":
    sys.exit(cli())
