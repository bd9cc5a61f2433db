"""``signer-flow upgrade-check`` and ``prove``: what the chart's Jobs and tests ask of a running system."""

import os
import secrets
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from common import ed25519
from common.kubernetes import Kubernetes
from rest_api import client_wire
from rest_api.client import Client
from rest_api.commands.asking import (
    NOBODY,
    POLL_EVERY_S,
    Revision,
    Urls,
    WaitS,
    answers,
    connected,
    waited,
    way_past,
)
from rest_api.commands.options import (
    DEFAULT_URL,
    INVALID,
    UNAVAILABLE,
    Key,
    PublicKey,
    Token,
    Url,
    connect,
    fail,
    note,
    read_public_key,
)


def upgrade_check(url: Urls, token: Token = None, wait_s: WaitS = 60.0, revision: Revision = None) -> None:
    """Wait until no ceremony runs and every replica is ready in one epoch; else end with 4 and say what to do.

    An upgrade restarts one replica after the other: in a ceremony, or with one away already, that is one too many.
    """
    with connected(url, token) as pods:

        def wrong() -> str:
            found, why = answers(pods, lambda api: "; ".join(unsettled(api.cluster())))
            # A pod that hears all replicas is right; one that is cut off complains of all of them.
            return min(found, key=len, default=why)

        line = waited(wrong, "waiting", wait_s)
    if line:
        never = "; an install that never came up is uninstalled and installed right: its keys stay"
        fail(
            UNAVAILABLE,
            f"not to be upgraded now ({line}): wait for it or mend it, and upgrade again. If the upgrade is to mend "
            f"just that: {way_past('upgradeCheck', revision)}{never if line.startswith(NOBODY) else ''}",
        )
    typer.echo("no ceremony is running, and all replicas are ready in one epoch")


def unsettled(cluster: dict[str, Any]) -> list[str]:
    """Why a system (``GET /v1/cluster``) is not to be upgraded now, a sentence each; empty: it may be."""
    wrong = []
    for key in cluster["keys"]:
        running = key["ceremony"]
        if running is not None:
            wrong.append(
                f"a ceremony of {key['key_id']} is running ({running['kind']}, phase {running['phase']}, awaits "
                f"{running['awaited'] or 'nobody'})"
            )
        if not key["epoch"]:
            wrong.append(f"{key['key_id']} is not generated yet")
        epochs = {replica["epochs"].get(key["key_id"], 0) for replica in cluster["replicas"] if replica["epochs"]}
        if len(epochs) > 1:
            wrong.append(f"replicas are in different epochs of {key['key_id']}: {', '.join(map(str, sorted(epochs)))}")
    return wrong + [
        f"replica {replica['index']} is {replica['state']}"
        for replica in cluster["replicas"]
        if replica["state"] != "ready"
    ]


def prove(
    url: Url = DEFAULT_URL,
    token: Token = None,
    key: Key = None,
    public_key: PublicKey = None,
    count: Annotated[int, typer.Option("--count", min=1, max=10_000, help="How many messages to sign.")] = 5,
    evict: Annotated[
        str | None, typer.Option("--evict", metavar="POD", help="In a pod: evict this one, and sign until it is back.")
    ] = None,
    wait_s: WaitS = 180.0,
) -> None:
    """Sign random messages and verify each offline, with --evict while a signer is away. 1: a signature is wrong."""
    with connect(url, token) as api:
        if public_key is None:
            expected = api.key_or_first(key).public_key
            note(f"no key is pinned; the service says {client_wire.b64(expected)}")
        else:
            expected = read_public_key(public_key)
        signers = {seat for _ in range(count) for seat in _sign(api, key, expected)}
        typer.echo(f"{count} signatures are valid under {client_wire.b64(expected)}, made by {sorted(signers)}")
        if evict is not None:
            with Kubernetes.of_this_pod(os.environ) as cluster:
                made = sum(1 for _ in _while_away(cluster, evict, wait_s) if _sign(api, key, expected))
            typer.echo(f"{evict} was evicted and is ready again; {made} signatures meanwhile, each valid")


def _sign(api: Client, key: str | None, expected: bytes) -> tuple[int, ...]:
    """One random message, signed and verified; who did it."""
    message = secrets.token_bytes(64)
    signed = api.sign(message, key_id=key)
    if not ed25519.verify(expected, message, signed.signature):
        fail(INVALID, f"a signature does NOT verify under {client_wire.b64(expected)}: {signed.request_id}")
    return signed.signers


def _while_away(cluster: Kubernetes, pod: str, wait_s: float) -> Iterator[None]:
    """Evict a pod, and yield until another one of that name is ready."""
    ends_at = time.monotonic() + wait_s
    before = _uid(cluster.get("Pod", pod))
    if not before:
        fail(UNAVAILABLE, f"there is no pod {pod}")
    while not cluster.evict(pod):
        if time.monotonic() > ends_at:
            fail(UNAVAILABLE, f"{pod} could not be evicted in {wait_s:g} s: its disruption budget forbids it")
        time.sleep(POLL_EVERY_S)
    while True:
        yield
        found = cluster.get("Pod", pod)
        if found is not None and _uid(found) != before and _ready(found):
            return
        if time.monotonic() > ends_at:
            fail(UNAVAILABLE, f"{pod} was not ready again within {wait_s:g} s")


def _uid(pod: dict[str, Any] | None) -> str:
    return str(pod["metadata"]["uid"]) if pod else ""


def _ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
