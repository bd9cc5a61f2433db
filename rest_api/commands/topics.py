"""``signer-flow topics``: the broker's topics beside the table, and who may use them."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from common.errors import Unavailable
from common.kafka.port import Ensured
from common.wire import access
from common.wire.access import Acl, Principals
from rest_api.commands.options import INVALID, AsJson, note, show
from rest_api.topics_command import Cluster, System, compare_rules, create_topics

_DEFAULT = Principals()


def topics(
    kafka: Annotated[
        str | None, typer.Option("--kafka", metavar="HOST:PORT", help="The broker. Only to print rules none is needed.")
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Create what is missing. Without it, only compare.")] = False,
    acls: Annotated[
        bool,
        typer.Option("--acls", help="Print who may do what, as lines of kafka-acls.sh; nothing else is to be allowed."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="With --acls: compare with the broker's rules instead of printing.")
    ] = False,
    apply: Annotated[
        bool,
        typer.Option("--apply", help="With --acls: add the rules that are missing. What is superfluous is only named."),
    ] = False,
    apis: Annotated[int, typer.Option("--apis", min=1, max=10_000, help="Number of API pods.")] = 2,
    signers: Annotated[int, typer.Option("--signers", min=2, max=65_535, help="Number of signer replicas.")] = 3,
    replication: Annotated[int | None, typer.Option("--replication", min=1, help="Copies of each partition.")] = None,
    prefix: Annotated[str, typer.Option("--topic-prefix", help="Put before every topic name.")] = "",
    principal_api: Annotated[
        str, typer.Option(help="Name of API pod {n}, from 0, at the broker. With mutual TLS such as User:CN=api-{n}.")
    ] = _DEFAULT.api,
    principal_signer: Annotated[str, typer.Option(help="Name of signer {m}, from 1.")] = _DEFAULT.signer,
    principal_auditor: Annotated[str, typer.Option(help="Name of the auditor; empty: nobody.")] = _DEFAULT.auditor
    or "",
    principal_operator: Annotated[
        str, typer.Option(help="Name of who makes the topics; empty: nobody.")
    ] = _DEFAULT.operator or "",
    kafka_security_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="librdkafka's options for SASL and TLS, one name=value a line.")
    ] = None,
    wait_s: Annotated[
        float, typer.Option("--wait-s", min=0, max=3600, help="How long to wait for a broker that is still starting.")
    ] = 0.0,
    json: AsJson = False,
) -> None:
    """Compare the broker's topics with the table, and create the missing ones; print or compare who may use them."""
    _usage(kafka, create=create, acls=acls, check=check, apply=apply)
    system = System(apis, signers)
    cluster = Cluster(kafka or "", kafka_security_file, prefix)
    if acls:
        names = Principals(principal_api, principal_signer, principal_auditor or None, principal_operator or None)
        wanted = access.all_rules(prefix, apis, signers, names)
        if check or apply:
            _compare(cluster, system, wanted, apply=apply, json=json)
        elif json:
            show([_plain(rule) for rule in wanted])
        else:
            for line in access.command_lines(wanted, kafka):
                typer.echo(line)
    else:
        _topics(cluster, system, replication, wait_s, create=create, json=json)


def _usage(kafka: str | None, *, create: bool, acls: bool, check: bool, apply: bool) -> None:
    if create and acls:
        raise typer.BadParameter("topics and rules are made by different people: run it twice", param_hint="--create")
    if (check or apply) and not acls:
        raise typer.BadParameter("goes with --acls", param_hint="--apply" if apply else "--check")
    if check and apply:
        raise typer.BadParameter("--apply compares, too: drop one of both", param_hint="--check")
    if kafka is None and (check or apply or not acls):
        raise typer.BadParameter("say where the broker is", param_hint="--kafka")


def _topics(
    cluster: Cluster, system: System, replication: int | None, wait_s: float, *, create: bool, json: bool
) -> None:
    report = _waiting(lambda: asyncio.run(create_topics(cluster, system, replication, create=create)), wait_s)
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


def _waiting(ask: Callable[[], Ensured], wait_s: float) -> Ensured:
    """Ask again while no broker answers: each time takes some seconds itself."""
    ends_at = time.monotonic() + wait_s
    while True:
        try:
            return ask()
        except Unavailable as error:
            if time.monotonic() > ends_at:
                raise
            note(f"waiting: {error.detail}")
            time.sleep(1.0)


def _compare(cluster: Cluster, system: System, wanted: tuple[Acl, ...], *, apply: bool, json: bool) -> None:
    report = asyncio.run(compare_rules(cluster, system, wanted, apply=apply))
    missing, superfluous = report.differences.missing, report.differences.superfluous
    if json:
        found = {"added": report.added, "missing": missing, "superfluous": superfluous}
        show({name: [_plain(rule) for rule in rules] for name, rules in found.items()})
    else:
        for rule in report.added:
            typer.echo(f"added {_text(rule)}")
    for rule in missing:
        note(f"missing: {_text(rule)}")
    for rule in superfluous:
        note(f"superfluous: {_text(rule)}")
    if missing or superfluous:
        raise typer.Exit(INVALID)
    if not json:
        typer.echo("all rules are as they should be")


def _plain(rule: Acl) -> dict[str, str]:
    return {
        "principal": rule.principal,
        "host": rule.host,
        "permission": "Deny" if rule.deny else "Allow",
        "operation": rule.operation,
        "resource_type": rule.resource.kind.value,
        "pattern_type": "prefixed" if rule.resource.prefixed else "literal",
        "name": rule.resource.name,
    }


def _text(rule: Acl) -> str:
    may = "may not" if rule.deny else "may"
    beginning = " that begins with" if rule.resource.prefixed else ""
    where = "" if rule.host == access.ANY_HOST else f" from {rule.host}"
    return f"{rule.principal} {may} {rule.operation} {rule.resource.kind.value}{beginning} {rule.resource.name}{where}"
