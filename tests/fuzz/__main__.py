"""``make fuzz SECONDS=60``: look for inputs that a decoder does not stand, and say what was tried.

``SECONDS`` is for each decoder. Guided by coverage if atheris is installed (``make fuzz`` sees to that); with
``--unguided`` by seeded changes alone, in one process, whose memory is then the decoders' and nobody else's.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from tests.fuzz.decoders import all_decoders
from tests.fuzz.running import ROOT, Decoder, one_line, play, resident_mib

FOLDER: Final = ROOT / ".fuzz"
START_S: Final = 600
"""How much longer than asked a decoder's process may take, to start and to end."""


def main() -> int:
    """Run, print a table, and return 1 if anything was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=10, help="for each decoder (default 10)")
    parser.add_argument("--decoder", action="append", help="only this one (a beginning is enough); may be repeated")
    parser.add_argument("--jobs", type=int, default=1, help="decoders at the same time (default 1)")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 2**31, help="of the dice (default: the time)")
    parser.add_argument("--unguided", action="store_true", help="without atheris, all in this process")
    parser.add_argument("--list", action="store_true", help="names only")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    asked = parser.parse_args()
    chosen = [
        each for name, each in all_decoders().items()
        if asked.decoder is None or any(name.startswith(begin) for begin in asked.decoder)
    ]  # fmt: skip
    if asked.list:
        print("\n".join(each.name for each in chosen))
        return 0
    if not chosen:
        print("no decoder has such a name: see --list", file=sys.stderr)
        return 2
    if not asked.unguided and find_spec("atheris") is None:
        print("atheris is not installed: run `make fuzz`, or give --unguided", file=sys.stderr)
        return 2
    print(f"{len(chosen)} decoders, {asked.seconds} s each, {asked.jobs} at a time, seed {asked.seed}", flush=True)
    with ThreadPoolExecutor(1 if asked.unguided else asked.jobs) as pool:
        run = _unguided if asked.unguided else _guided
        told = list(pool.map(lambda each: _shown(run(each, asked.seconds, asked.seed)), chosen))
    total = sum(each["inputs"] for each in told)
    found = [finding for each in told for finding in each["findings"]]
    print(f"{total:,} inputs, {len(found)} findings")
    if asked.json is not None:
        asked.json.write_text(json.dumps({"seed": asked.seed, "inputs": total, "decoders": told}, indent=1))
    return 1 if found else 0


def _guided(decoder: Decoder, seconds: int, seed: int) -> dict[str, Any]:
    FOLDER.mkdir(exist_ok=True)
    report = FOLDER / f"{decoder.name}.json"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.guided", decoder.name, "--seconds", str(seconds), "--seed", str(seed)]
    log = FOLDER / f"{decoder.name}.log"
    with log.open("wb") as out:
        child = subprocess.Popen([*command, "--folder", str(FOLDER)], cwd=ROOT, stdout=out, stderr=out)
        try:
            code: int | None = child.wait(seconds + START_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            code = None
    told: dict[str, Any] = {"decoder": decoder.name, "inputs": 0, "findings": []}
    if report.exists():
        told = json.loads(report.read_text())
    if code != 0:
        why = "did not end" if code is None else f"ended with {code}"
        told["findings"].append({"place": why, "error": f"see {log.relative_to(ROOT)} and .fuzz/found/"})
    return told


def _unguided(decoder: Decoder, seconds: int, seed: int) -> dict[str, Any]:
    play(decoder, f"{seed} warm", 500, seconds / 4)
    warm, began = resident_mib(), time.monotonic()
    watch = play(decoder, str(seed), 10**9, seconds)
    for finding in watch.findings:
        finding.kept(FOLDER / "found")
    told = one_line(watch)
    told |= {"seconds": round(time.monotonic() - began, 1), "mib_warm": round(warm, 1), "mib": round(resident_mib(), 1)}
    return told


def _shown(told: dict[str, Any]) -> dict[str, Any]:
    memory = f"{told.get('mib_warm', 0):7.1f} to {told.get('mib', 0):7.1f} MiB"
    slowest = f"slowest {told.get('slowest_ms', 0):8.1f} ms"
    print(f"{told['decoder']:24} {told['inputs']:>10,} inputs  {memory}  {slowest}", flush=True)
    for finding in told["findings"]:
        print(f"    {finding['place']}: {finding['error']}", flush=True)
    return told


if __name__ == "__main__":
    sys.exit(main())
