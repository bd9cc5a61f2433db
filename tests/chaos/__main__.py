"""``python -m tests.chaos``: a run of chaos on Apache Kafka, and the check of it.

Exit codes: 0 nothing is wrong; 1 something is, or the run could not be done to its end; 2 usage; 130 interrupted. What
a run wrote down stays in its folder when something is wrong, or with ``--keep``.
"""

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos import plan, report
from tests.chaos.faults import ChaosError
from tests.chaos.run import Options, Run, judge


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make chaos SEED=… ARGS=…",
        description="Ask, while processes and broker are killed and keys are refreshed; then prove from all records "
        "that nothing was lost and nothing wrong. Runs on KAFKA_BOOTSTRAP, else on a broker of its own.",
    )
    parser.add_argument("--seed", type=int, default=1, help="what happens, and when (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=4_000, help="messages to sign, at least (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=6, help="faults of signers and pods (default: %(default)s)")
    parser.add_argument("--brokers", type=int, default=2, help="stops, crashes, pauses of it (default: %(default)s)")
    parser.add_argument("--refreshes", type=int, default=3, help="new epochs, at least (default: %(default)s)")
    parser.add_argument("--rate", type=float, help="messages a second (default: as answers come)")
    parser.add_argument("--callers", type=int, nargs=3, default=(6, 2, 2), metavar=("SINGLE", "BATCH", "SOCKET"))
    parser.add_argument("--timeout-ms", type=int, default=5_000, help="deadline of each (default: %(default)s)")
    parser.add_argument("--most-s", type=float, default=900.0, help="begin nothing new after (default: %(default)s)")
    parser.add_argument(
        "--each-once",
        action="store_true",
        help="instead of chaos: at half of the measured load, kill each signer, stop each signer and each pod, in turn",
    )
    parser.add_argument(
        "--broker-trouble",
        action="store_true",
        help="instead of chaos: what one broker can do: restart, crash, stand still, a full disk (needs root), a limit",
    )
    parser.add_argument("--bench-jvm", action="store_true", help="give the broker the JVM of a measured one")
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="only check what an earlier run left")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what is written down, there")
    return parser.parse_args()


def _options(given: argparse.Namespace) -> Options:
    scale = plan.Scale(given.kills, given.brokers, signers=3, pods=2)
    steps = plan.each_once(3, 2) if given.each_once else plan.draw(given.seed, scale)
    if given.broker_trouble:
        steps = plan.broker_trouble()
    return Options(
        seed=given.seed,
        requests=0 if given.each_once else given.requests,
        steps=steps,
        refreshes=0 if given.each_once else given.refreshes,
        rate=given.rate,
        callers=(256, 0, 0) if given.each_once else tuple(given.callers),
        timeout_ms=given.timeout_ms,
        most_s=given.most_s,
        half=given.each_once and given.rate is None,
        bench=given.bench_jvm or given.each_once,
    )


def main() -> int:
    """Run and check; see the module's docstring for the exit codes."""
    given = _arguments()
    folder: Path = given.check or given.keep or Path(tempfile.mkdtemp(prefix="signer-flow-chaos-"))
    began = time.monotonic()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # Both by hand: started in the background of a script, Python finds SIGINT ignored and would leave it so. Either
    # way demo and broker are ended in order.
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} {line}", file=sys.stderr, flush=True)

    try:
        if given.check is None:
            folder.mkdir(parents=True, exist_ok=True)
            say(f"writing to {folder}")
            asyncio.run(Run(_options(given), folder, say).all(os.environ.get("KAFKA_BOOTSTRAP")))
        outcome = judge(folder)
    except ChaosError as error:
        print(f"chaos: {error}; what there is: {folder}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print("\n".join(report.lines(outcome)))
    bad = bool(outcome.findings or outcome.broken)
    if bad:
        print(f"everything that was written down: {folder}")
    elif given.check is None and given.keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
