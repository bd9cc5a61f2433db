"""``signer-flow status`` and ``refresh``: the committee as a pod hears it, and new shares for a key."""

import time
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rest_api.client import Client
from rest_api.commands.options import DEFAULT_URL, UNAVAILABLE, AsJson, Token, Url, connect, fail, note, show

POLL_EVERY_S: Final = 0.1
ASK_FOR_S: Final = 3.0
"""What is missing is said to whoever asks rather than waited for."""


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
    name: Annotated[
        str | None, typer.Argument(metavar="KEY", help="Key id; the service's first key if not given.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="The same as KEY.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Tell each phase, and return when the new shares are in use.")
    ] = False,
    wait_s: Annotated[float, typer.Option("--wait-s", min=1, max=3600, help="How long --wait waits.")] = 120.0,
    url: Url = DEFAULT_URL,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Ask the committee for new shares of a key. The public key stays; shares of before become worthless.

    With --wait it ends with 4 if the new shares are not in use in time; the ceremony may still go on then.
    """
    if name is not None and key is not None and name != key:
        raise typer.BadParameter("names another key than KEY", param_hint="--key")
    with connect(url, token, retry_for_s=ASK_FOR_S) as api:
        before = api.key_or_first(name if name is not None else key)
        began = time.monotonic()
        answer = api.refresh(before.key_id)
    watched = _Watched(before.key_id, before.epoch)
    if wait:
        with connect(url, token) as api:
            watched.until(api, began, wait_s)
    if json:
        seconds = round(time.monotonic() - began, 3)
        told = {"epoch": watched.epoch, "phases": watched.phases, "seconds": seconds} if wait else {"epoch": None}
        show({"key_id": before.key_id, "epoch_before": before.epoch, "answer": answer, **told})
    if wait and watched.epoch is None:
        fail(UNAVAILABLE, f"{before.key_id} is still in epoch {before.epoch} after {wait_s:g} s: {watched.last}")
    if not json and watched.epoch is None:
        typer.echo(f"asked for a refresh of {before.key_id}, now in epoch {before.epoch}")
    elif not json:
        typer.echo(f"{before.key_id} is in epoch {watched.epoch}")


class _Watched:
    """A ceremony that is waited for. ``epoch`` is the new one, None before; ``phases`` are those that were seen."""

    def __init__(self, key_id: str, before: int) -> None:
        self._key_id = key_id
        self._before = before
        self.epoch: int | None = None
        self.phases: list[dict[str, Any]] = []
        self.last = "no replica has opened a ceremony"

    def until(self, api: Client, began: float, wait_s: float) -> None:
        """Look until the epoch is over, at most ``wait_s`` seconds after ``began``."""
        note(f"{self._key_id}: asked for, now in epoch {self._before}")
        while True:
            key = api.key(self._key_id)
            if key.epoch > self._before:
                self.epoch = key.epoch
                return
            self._see(key.details.get("ceremony"), time.monotonic() - began)
            if time.monotonic() - began > wait_s:
                return
            time.sleep(POLL_EVERY_S)

    def _see(self, running: dict[str, Any] | None, seconds: float) -> None:
        if running is None:
            if self.phases:
                self.last = "the attempt came to nothing, the next one follows"
            return
        seen = {name: running[name] for name in ("phase", "attempt", "awaited")}
        if self.phases and {name: self.phases[-1][name] for name in seen} == seen:
            return
        self.phases.append({**seen, "seconds": round(seconds, 3)})
        self.last = _ceremony(running)
        note(f"{self._key_id}: {self.last}")


def _ceremony(running: dict[str, Any]) -> str:
    awaited = f", awaits {_list(running['awaited'])}" if running["awaited"] else ""
    return f"{running['kind']}: {running['phase']}, attempt {running['attempt']}{awaited}"


def _keys(cluster: dict[str, Any]) -> Table:
    table = _table("Keys", "key", "epoch", "margin", "last refresh", "next", "ceremony")
    for key in cluster["keys"]:
        running = key["ceremony"]
        table.add_row(
            str(key["key_id"]),
            str(key["epoch"] or "none yet"),
            f"{key['quorum_margin']:+d}",
            _when(key.get("last_refresh")),
            _when(key.get("next_refresh")).replace(" ago", " overdue"),
            "-" if running is None else _ceremony(running),
        )
    return table


def _when(moment: str | None) -> str:
    """A time of the API as the distance from now, by this machine's clock."""
    if moment is None:
        return "-"
    try:
        seconds = (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return "-"
    size, unit = next(
        each for each in ((86_400, "d"), (3_600, "h"), (60, "min"), (0, "s")) if abs(seconds) >= 2 * each[0]
    )
    count = f"{abs(seconds) / max(1, size):.0f} {unit}"
    return f"in {count}" if seconds > 0 else f"{count} ago"


def _replicas(cluster: dict[str, Any]) -> Table:
    table = _table("Replicas", "replica", "state", "epochs", "heard", "in flight", "queue", "skew", "partitions")
    for replica in cluster["replicas"]:
        epochs = ", ".join(f"{key} {epoch}" for key, epoch in replica["epochs"].items())
        table.add_row(
            str(replica["index"]),
            str(replica["state"]),
            epochs or "-",
            _ms(replica["last_seen_ms"]),
            str(replica["in_flight"]),
            _ms(replica.get("queue_wait_ms")),
            _ms(replica.get("skew_ms")),
            _list(replica["partitions"]),
        )
    return table


def _apis(cluster: dict[str, Any]) -> Table:
    table = _table("API pods", "pod", "instance", "heard", "skew")
    for pod in cluster["apis"]:
        table.add_row(str(pod["index"]), str(pod["instance_id"]), _ms(pod["last_seen_ms"]), _ms(pod.get("skew_ms")))
    return table


def _table(title: str, *columns: str) -> Table:
    """Without lines between columns, so that those of a replica fit into 80 characters."""
    return Table(*columns, title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


def _ms(value: int | None) -> str:
    return "-" if value is None else f"{value} ms"


def _list(values: list[int]) -> str:
    return " ".join(map(str, values)) or "-"
