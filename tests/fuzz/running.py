"""One input at a time: what it may raise is told apart from what is a finding; how much time and memory it took."""

import hashlib
import random  # noqa: TID251 - a test's dice, from a seed that reproduces the run
import resource
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.fuzz.changes import change

ROOT: Final = Path(__file__).resolve().parents[2]
CORPUS: Final = Path(__file__).resolve().parent / "corpus"
LONGEST_S: Final = 5.0
"""CPU that one input may cost. All take milliseconds; on a machine that is full they still take far less than this."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """Something that reads bytes of others.

    Attributes:
        name: Of its folder in the corpus, and for ``--decoder``.
        take: Gives the bytes to the decoder, and may check what it returns by assertions.
        refusals: What may come out of it: errors of ours that say what is wrong with the bytes.
        seeds: Inputs to begin with; the good ones show that the harness reaches what is behind the first check.
        words: What such inputs are made of.
        longest: Inputs are cut there.
        vary: Changes a seed in its own way, besides changes of its bytes.
        rest: Inputs of a short round: fewer where one costs much.
    """

    name: str
    take: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    seeds: Callable[[], Sequence[bytes]]
    words: Sequence[bytes] = ()
    longest: int = 4096
    vary: Callable[[bytes, random.Random], bytes] | None = None
    rounds: int = 150


@dataclass(slots=True)
class Finding:
    """What must not come out of a decoder."""

    decoder: str
    data: bytes
    error: str
    place: str

    def kept(self, folder: Path) -> Path:
        """Write the input to a file named by its hash."""
        folder = folder / self.decoder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / hashlib.sha256(self.data).hexdigest()[:16]
        path.write_bytes(self.data)
        return path


@dataclass(slots=True)
class Watch:
    """Gives a decoder its inputs and keeps count. Each place in the code is a finding once."""

    decoder: Decoder
    inputs: int = 0
    taken: int = 0
    slowest_s: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def feed(self, data: bytes) -> None:
        """Give it one input. Never raises."""
        self.inputs += 1
        began = time.thread_time()
        try:
            self.decoder.take(data)
            self.taken += 1
        except self.decoder.refusals:
            pass
        except Exception as error:  # noqa: BLE001 - anything else is what we look for
            self._found(data, error)
        took = time.thread_time() - began
        self.slowest_s = max(self.slowest_s, took)
        if took > LONGEST_S:
            self._keep(data, f"took {took:.1f} s", "too slow")

    def _found(self, data: bytes, error: Exception) -> None:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        self._keep(data, f"{type(error).__name__}: {error}"[:300], f"{Path(frame.filename).name}:{frame.lineno}")

    def _keep(self, data: bytes, error: str, place: str) -> None:
        place = f"{error.partition(':')[0]} at {place}"
        if all(each.place != place for each in self.findings):
            self.findings.append(Finding(self.decoder.name, data, error, place))


def corpus(name: str) -> list[Path]:
    """The files of a decoder's corpus."""
    folder = CORPUS / name
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def inputs(decoder: Decoder, seed: str) -> Iterator[bytes]:
    """Inputs without end: changed seeds and corpus, the same for the same ``seed``."""
    dice = random.Random(f"{decoder.name} {seed}")
    begin = [*decoder.seeds(), *(path.read_bytes() for path in corpus(decoder.name))] or [b""]
    while True:
        data = dice.choice(begin)
        if decoder.vary is not None and dice.random() < 0.5:
            yield decoder.vary(data, dice)[: decoder.longest]
        else:
            yield change(data, dice, begin, decoder.words, decoder.longest)


def play(decoder: Decoder, seed: str, count: int, seconds: float | None = None) -> Watch:
    """Give a decoder its seeds and its corpus, then ``count`` inputs made of them (or as many as ``seconds`` allow)."""
    watch = Watch(decoder)
    for data in decoder.seeds():
        watch.feed(data)
    for path in corpus(decoder.name):
        watch.feed(path.read_bytes())
    end = None if seconds is None else time.monotonic() + seconds
    for number, data in enumerate(inputs(decoder, seed)):
        if number >= count or (end is not None and number % 64 == 0 and time.monotonic() >= end):
            break
        watch.feed(data)
    return watch


def resident_mib() -> float:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def one_line(watch: Watch) -> dict[str, Any]:
    """What a run is told by."""
    return {
        "decoder": watch.decoder.name,
        "inputs": watch.inputs,
        "taken": watch.taken,
        "slowest_ms": round(watch.slowest_s * 1000, 1),
        "findings": [{"place": each.place, "error": each.error} for each in watch.findings],
    }
