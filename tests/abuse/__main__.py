"""``make abuse``: one attack after another on a demo, and a table of what was seen.

Exit code 1 if a limit was broken: fewer than 95 % of honest requests signed at the first try, a probe of the admin port
that was not green, more memory than a pod of the chart may have, or memory that is not given back.
"""

import argparse
import asyncio
import json
import resource
import sys
from pathlib import Path
from typing import Any, Final

from rest_api.doors import KEPT_BACK, MOST_CONNECTIONS
from tests.abuse.attacks import ATTACKS
from tests.abuse.measure import Seen, at, descriptors, resident_mib, watch
from tests.system.running_demo import running_demo, wait_until

LEAST_SHARE: Final = 0.95
MOST_MIB: Final = 512
"""What a pod of the chart may have."""
OVER_WITHIN_S: Final = 120.0
"""Heads end after 10 s, bodies after 31, WebSockets that answer no ping after 65."""


def main() -> int:
    """Attack, and tell."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.abuse", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=40, help="for each attack (default 40)")
    parser.add_argument("--attack", action="append", choices=ATTACKS, help="only this one; may be repeated")
    parser.add_argument("--kafka", help="a real broker; without it the embedded one")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    asked = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else 2**20
    print(f"descriptors: {soft} (ulimit -n), at most {most}")
    if most < asked.connections + 200:
        print(
            f"too few for {asked.connections} connections: run `ulimit -Hn {asked.connections + 1000}` as root before"
        )
        return 2
    if most < MOST_CONNECTIONS + KEPT_BACK:
        needs = MOST_CONNECTIONS + KEPT_BACK
        print(f"the pod will hold fewer than its {MOST_CONNECTIONS} connections: it would need {needs}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    arguments = [] if asked.kafka is None else ["--kafka", asked.kafka]
    with running_demo(*arguments, apis=1) as demo:
        demo.wait_ready()
        demo.wait_until_whole()
        pid = demo.children()["api 0"]
        told = [run(demo.port, demo.admin_port + 100, pid, each, asked) for each in (None, *(asked.attack or ATTACKS))]
    broken = [f"{each['attack']}: {wrong}" for each in told for wrong in each["broken"]]
    print("\n".join(broken) or "no limit was broken")
    if asked.json is not None:
        asked.json.write_text(json.dumps(told, indent=1))
    return 1 if broken else 0


def run(port: int, admin_port: int, pid: int, attack: str | None, asked: Any) -> dict[str, Any]:
    """One attack (None: nobody attacks), from quiet to quiet."""
    before, open_before = resident_mib(pid), descriptors(pid)
    command = None
    if attack is not None:
        command = [sys.executable, "-m", "tests.abuse.attacks", attack, "--port", str(port)]
        command += ["--connections", str(asked.connections), "--seconds", str(asked.seconds)]
    seen, said = asyncio.run(watch(port, admin_port, pid, min(asked.seconds, 10), command))
    wait_until(lambda: descriptors(pid) <= open_before + 20, OVER_WITHIN_S, "the connections are over")
    after, _ = asyncio.run(watch(port, admin_port, pid, 3))
    told = figures(attack or "nobody", before, seen, after)
    told["connections"] = json.loads(said) if said else {}
    parts = (
        f"{told['attack']:20} honest {told['share']:7.2%} of {told['asked']:4}",
        f"p50 {told['p50_ms']:5.0f} p99 {told['p99_ms']:5.0f} ms",
        f"probes {told['probes']:4}, {told['red']} red, slowest {told['probe_ms']:5.0f} ms",
        f"{before:4.0f} to {told['most_mib']:4.0f}, then {told['after_mib']:4.0f} MiB",
        f"{told['descriptors']:5} descriptors",
        str(told["connections"]),
    )
    print(" | ".join(parts), flush=True)
    return told


def figures(attack: str, before: float, seen: Seen, after: Seen) -> dict[str, Any]:
    """What was seen, and which limits it breaks."""
    most = max(seen.mib, default=0.0)
    told: dict[str, Any] = {
        "attack": attack,
        "share": seen.share,
        "asked": len(seen.served) + len(seen.failed),
        "failed": sorted(set(seen.failed)),
        "p50_ms": at(seen.served, 0.5),
        "p99_ms": at(seen.served, 0.99),
        "probes": len(seen.probes),
        "red": len(seen.red),
        "probe_ms": max(seen.probes, default=0.0),
        "before_mib": before,
        "most_mib": most,
        "after_mib": at(after.mib, 0.5),
        "descriptors": max(seen.descriptors, default=0),
    }
    broken = []
    if seen.share < LEAST_SHARE:
        broken.append(f"{seen.share:.1%} of honest requests were signed ({', '.join(told['failed'])})")
    if seen.red:
        broken.append(f"{len(seen.red)} probes were not green: {', '.join(sorted(set(seen.red)))}")
    if most > MOST_MIB:
        broken.append(f"{most:.0f} MiB, a pod may have {MOST_MIB}")
    if after.share < 1:
        broken.append("not all requests were signed after it was over")
    told["broken"] = broken
    return told


if __name__ == "__main__":
    sys.exit(main())
