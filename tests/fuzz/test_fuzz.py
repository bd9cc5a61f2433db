"""Every decoder stands its corpus and a short seeded round of hostile inputs; and the harness finds what is planted."""

from collections.abc import Iterator
from pathlib import Path
from random import Random  # noqa: TID251 - seeded

import pytest

from common.errors import BadInput
from common.wire import codec
from common.wire import messages as m
from common.wire.shapes import SHAPES
from tests.fuzz import changes, edge, running
from tests.fuzz.decoders import all_decoders
from tests.fuzz.running import CORPUS, Decoder, Watch, play
from tests.wire.samples import SAMPLES

DECODERS = all_decoders()


@pytest.fixture(scope="module", autouse=True)
def _edge_ends() -> Iterator[None]:
    yield
    edge.EDGE.close()


@pytest.mark.parametrize("name", DECODERS)
def test_p7_no_input_brings_anything_but_a_refusal_out_of_a_decoder(name: str) -> None:
    decoder = DECODERS[name]
    watch = play(decoder, "make test", decoder.rounds)
    assert watch.inputs >= decoder.rounds
    assert not watch.findings, [(each.place, each.error, each.data) for each in watch.findings]


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_takes_what_its_inputs_begin_with(name: str) -> None:
    # Otherwise nothing behind its first check would ever be reached.
    watch = Watch(DECODERS[name])
    for seed in DECODERS[name].seeds():
        watch.feed(seed)
    assert watch.inputs > 0
    assert watch.taken > 0 or name in NEVER_TAKEN, "no seed is taken"


NEVER_TAKEN = frozenset({"points"})
"""Several readers of one input, of which no input pleases all."""


def test_every_record_has_its_decoder_here_and_every_corpus_too() -> None:
    assert {f"record-{kind.__name__}" for kind in SHAPES} <= DECODERS.keys()
    assert {folder.name for folder in CORPUS.iterdir() if folder.is_dir()} <= DECODERS.keys()


def _brittle(data: bytes) -> None:
    if data.startswith(b"good") and len(data) > 8:
        raise IndexError(data[8])
    if not data.startswith(b"good"):
        raise BadInput("bad", "not good")


def test_what_a_decoder_lets_through_is_found_once_and_can_be_had_again(tmp_path: Path) -> None:
    brittle = Decoder("brittle", _brittle, (BadInput,), lambda: [b"good"])
    first, again = (play(brittle, "seed", 500) for _ in range(2))
    assert [each.data for each in first.findings] == [each.data for each in again.findings]
    (finding,) = first.findings
    assert finding.place.startswith("IndexError at test_fuzz.py:")
    assert finding.kept(tmp_path).read_bytes() == finding.data


def test_what_takes_too_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LONGEST_S", 0.0)
    watch = Watch(Decoder("slow", len, (), list))
    watch.feed(b"x")
    assert [each.error.startswith("took") for each in watch.findings] == [True]


def test_values_of_a_record_are_changed_and_it_stays_a_record() -> None:
    raw, dice = codec.encode(SAMPLES[m.SignPackage]), Random(1)
    changed = [changes.change_values(raw, dice) for _ in range(200)]
    assert len(set(changed)) > 100
    taken = 0
    for each in changed:
        try:
            codec.decode(each, m.SignPackage)
            taken += 1
        except BadInput:
            continue
    assert 20 < taken < 190, "some are inside all bounds, some are not"
