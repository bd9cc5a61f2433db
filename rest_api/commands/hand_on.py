"""``signer-flow hand-on``: before signers go, those that stay have the key."""

import socket
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from common.wire import topics
from rest_api.client import PublicKey
from rest_api.commands.asking import NOBODY, Revision, Urls, WaitS, answers, connected, waited, way_past
from rest_api.commands.options import UNAVAILABLE, Token, fail, note

MOST_SIGNERS: Final = topics.REQUEST_PARTITIONS
"""The chart takes no more, so no pod of the set has a higher number."""
_UNREAD: Final = "no API pod knows the record of"


def hand_on(
    signers: Annotated[int, typer.Option(min=2, help="How many there are to be.")],
    url: Urls,
    token: Token = None,
    wait_s: WaitS = 600.0,
    was: Annotated[int, typer.Option("--was", min=0, help="How many there are now; 0: not known.")] = 0,
    pods_of: Annotated[
        str, typer.Option("--pods-of", metavar="NAME", help="The signers' Service, in which their pods are looked for.")
    ] = "",
    revision: Revision = None,
    skip_unreachable: Annotated[
        bool, typer.Option("--skip-unreachable", help="Go on although a signer goes and no API pod can be asked.")
    ] = False,
) -> None:
    """Wait until no key is held by more than so many signers: those that go have handed on what they hold. Else 4.

    Where no signer goes it ends at once, whether or not an API pod can be asked. Where one goes, not to know is a
    reason to stop: volumes stay, but too few holders share no key anew until the others are brought back.
    """
    goes = going(signers, was, pods_of)
    with connected(url, token) as pods:

        def held() -> str:
            found, why = answers(pods, lambda api: still_held(api.cluster(), api.keys(), signers))
            # Of pods that disagree one is behind: while any sees a holder that goes, it is waited for.
            return max(found, key=_weight, default=why)

        line = held()
        if _weight(line) == 1 and (skip_unreachable or not goes):
            note(f"not waiting: {line}; {goes or 'no signer'} goes")
            return
        line = waited(held, f"waiting until {signers} signers hold what is held now", wait_s)
    if _weight(line) == 1:
        fail(
            UNAVAILABLE,
            f"{line}, and {goes} would go, with what those that stay may need: bring an API pod back, and do it again. "
            f"If nobody is ever to be asked: {way_past('handOn', revision)}, or helm rollback --no-hooks",
        )
    if line:
        fail(
            UNAVAILABLE,
            f"{line} still, after {wait_s:g} s: look at `signer-flow status`, and upgrade again when it is done",
        )
    typer.echo(f"no key is held by more than {signers} signers")


def still_held(cluster: dict[str, Any], keys: Sequence[PublicKey], signers: int) -> str:
    """Keys that more than so many signers hold; else those of which a pod has read no record yet; else empty."""
    held = ", ".join(f"{key.key_id} by {key.signers}" for key in keys if key.signers > signers)
    unread = {key["key_id"] for key in cluster["keys"]} - {key.key_id for key in keys}
    return held or (f"{_UNREAD} {', '.join(sorted(unread))}" if unread else "")


def _weight(line: str) -> int:
    """0: nothing is held; 1: nobody knows; 2: something is."""
    return 0 if not line else 1 if line.startswith((NOBODY, _UNREAD)) else 2


def going(signers: int, was: int, pods_of: str) -> str:
    """A signer that would go, by number or by its pod's name; empty: none that is known of.

    A chart knows how many there were when it was rendered. What a rollback brings back was rendered long ago: then only
    the names of the pods that are there tell.
    """
    if was > signers:
        return f"signer {was}"
    if not pods_of:
        return ""
    there = {ordinal: resolves(f"{pods_of}-{ordinal}.{pods_of}") for ordinal in (0, *range(signers, MOST_SIGNERS))}
    found = next((ordinal for ordinal, is_there in there.items() if ordinal and is_there), None)
    if found is not None:
        return f"{pods_of}-{found}"
    # Where nobody answers for names outside the cluster, none that is not there is denied: one that is there tells.
    return f"a pod of {pods_of} (DNS does not tell)" if None in there.values() and not there[0] else ""


def resolves(host: str) -> bool | None:
    """Whether there is such a name; None where nobody can tell now."""
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror as error:
        return False if error.errno in {socket.EAI_NONAME, socket.EAI_NODATA} else None
    return True
