"""One decoder under libFuzzer, in a process of its own: ``python -m tests.fuzz.guided NAME --seconds N --folder DIR``.

Coverage guides it: our modules are instrumented while they are imported, so this module imports none of them before.
A finding does not end the run, only a hang or a lack of memory does: an input may take 20 s, the process 2 GiB.
Prints one line of JSON when it is over; libFuzzer ends the process by itself.
"""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

LONGEST_S: Final = 20
MOST_MIB: Final = 2048
WARM_AFTER: Final = 2_000
"""Inputs after which memory is looked at first: by then everything has been imported and cached."""


def main() -> None:
    """Fuzz until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided")
    parser.add_argument("decoder")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--folder", type=Path, required=True, help="where inputs that lead on, and findings, are kept")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    # By name: it is there only where `make fuzz` was run.
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["common", "rest_api", "signer_service", "schemas"]):
        from tests.fuzz.decoders import all_decoders
    from tests.fuzz.running import Watch, corpus, one_line, resident_mib

    decoder = all_decoders()[asked.decoder]
    found: Path = asked.folder / "found"
    leading: Path = asked.folder / "leading" / decoder.name
    seeds: Path = asked.folder / "seeds" / decoder.name
    for folder in (found, leading, seeds):
        folder.mkdir(parents=True, exist_ok=True)
    watch = Watch(decoder)
    began, warm = time.monotonic(), 0.0
    report: Path = asked.folder / f"{decoder.name}.json"

    def tell() -> None:
        told: dict[str, Any] = one_line(watch)
        told |= {"seconds": round(time.monotonic() - began, 1), "mib_warm": warm, "mib": round(resident_mib(), 1)}
        report.write_text(json.dumps(told))

    def take(data: bytes) -> None:
        nonlocal warm
        before = len(watch.findings)
        watch.feed(data)
        for finding in watch.findings[before:]:
            path = finding.kept(found)
            sys.stderr.write(f"found: {finding.place}: {finding.error}: {path}\n")
        if watch.inputs == WARM_AFTER:
            warm = round(resident_mib(), 1)
        # libFuzzer leaves without a word to us: what is told is as old as this.
        if watch.inputs % 500 == 0 or before != len(watch.findings):
            tell()

    for number, data in enumerate([*decoder.seeds(), *(path.read_bytes() for path in corpus(decoder.name))]):
        (seeds / f"{number:04d}").write_bytes(data)
        take(data)
    tell()
    options = [
        f"-max_total_time={asked.seconds}", f"-max_len={decoder.longest}", f"-timeout={LONGEST_S}", "-len_control=20",
        f"-rss_limit_mb={MOST_MIB}", f"-artifact_prefix={found}/{decoder.name}-", "-verbosity=0",
        f"-seed={asked.seed}", "-print_final_stats=0", str(leading), str(seeds),
    ]  # fmt: skip
    if decoder.words:  # it takes no empty one
        words = asked.folder / f"{decoder.name}.dict"
        words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in decoder.words))
        options.append(f"-dict={words}")
    atheris.Setup([sys.argv[0], *options], take)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
