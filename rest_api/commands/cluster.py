"""``signer-flow status`` and ``refresh``: the committee as a pod hears it, and new shares for a key."""

import time
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from rest_api.client import Client
from rest_api.commands.options import DEFAULT_URL, UNAVAILABLE, AsJson, Key, Token, Url, connect, fail, note, show

POLL_EVERY_S: Final = 0.5


def status(url: Url = DEFAULT_URL, token: Token = None, json: AsJson = False) -> None:
    """Show keys, replicas and API pods. Ends with 4 when some key cannot sign, or there is none yet."""
    with connect(url, token) as api:
        cluster = api.cluster()
    if json:
        show(cluster)
    else:
        console = Console(highlight=False, soft_wrap=True)
        for table in (_keys(cluster), _replicas(cluster), _apis(cluster)):
            console.print(table)
    short = [str(key["key_id"]) for key in cluster["keys"] if key["epoch"] == 0 or key["quorum_margin"] < 0]
    if short:
        note(f"cannot sign now: {', '.join(short)}")
        raise typer.Exit(UNAVAILABLE)


def refresh(
    key: Key = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the new shares are in use.")] = False,
    wait_s: Annotated[float, typer.Option("--wait-s", min=1, max=3600, help="How long --wait waits.")] = 120.0,
    url: Url = DEFAULT_URL,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Ask the committee for new shares of a key. The public key stays; shares of before become worthless."""
    with connect(url, token) as api:
        before = api.key_or_first(key)
        answer = api.refresh(before.key_id)
        epoch = _await_epoch(api, before.key_id, before.epoch, wait_s) if wait else None
    if json:
        show({"key_id": before.key_id, "epoch_before": before.epoch, "epoch": epoch, "answer": answer})
    elif epoch is None:
        typer.echo(f"asked for a refresh of {before.key_id}, now in epoch {before.epoch}")
    else:
        typer.echo(f"{before.key_id} is in epoch {epoch}")


def _await_epoch(api: Client, key_id: str, before: int, wait_s: float) -> int:
    ends_at = time.monotonic() + wait_s
    while (epoch := api.key(key_id).epoch) <= before:
        if time.monotonic() > ends_at:
            fail(UNAVAILABLE, f"{key_id} is still in epoch {epoch} after {wait_s:g} s; `signer-flow status` shows why")
        time.sleep(POLL_EVERY_S)
    return epoch


def _keys(cluster: dict[str, Any]) -> Table:
    table = Table("key", "epoch", "margin", "ceremony", title="Keys", title_justify="left")
    for key in cluster["keys"]:
        running = key["ceremony"]
        ceremony = "-"
        if running is not None:
            awaited = f", awaits {_list(running['awaited'])}" if running["awaited"] else ""
            ceremony = f"{running['kind']}: {running['phase']}, attempt {running['attempt']}{awaited}"
        table.add_row(str(key["key_id"]), str(key["epoch"] or "none yet"), f"{key['quorum_margin']:+d}", ceremony)
    return table


def _replicas(cluster: dict[str, Any]) -> Table:
    table = Table(
        "replica", "state", "epochs", "seen", "in flight", "queue", "skew", "partitions", title="Replicas",
        title_justify="left",
    )  # fmt: skip
    for replica in cluster["replicas"]:
        epochs = ", ".join(f"{key} {epoch}" for key, epoch in replica["epochs"].items())
        table.add_row(
            str(replica["index"]),
            str(replica["state"]),
            epochs or "-",
            _ms(replica["last_seen_ms"], " ago"),
            str(replica["in_flight"]),
            _ms(replica.get("queue_wait_ms")),
            _ms(replica.get("skew_ms")),
            _list(replica["partitions"]),
        )
    return table


def _apis(cluster: dict[str, Any]) -> Table:
    table = Table("pod", "instance", "seen", "skew", title="API pods", title_justify="left")
    for pod in cluster["apis"]:
        table.add_row(
            str(pod["index"]), str(pod["instance_id"]), _ms(pod["last_seen_ms"], " ago"), _ms(pod.get("skew_ms"))
        )
    return table


def _ms(value: int | None, more: str = "") -> str:
    return "-" if value is None else f"{value} ms{more}"


def _list(values: list[int]) -> str:
    return " ".join(map(str, values)) or "-"
