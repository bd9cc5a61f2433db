"""What is done to the system, drawn from the seed: the same faults in the same order for the same numbers."""

import random  # noqa: TID251 (a plan that can be repeated; there is nothing to guess)
from collections.abc import Sequence
from dataclasses import dataclass

BROKER = "broker"
NARROW_BYTES = 1_500
"""Some of what is asked is longer (``clients``), and a record of several requests always is."""


@dataclass(frozen=True, slots=True)
class Step:
    """``kind``: ``kill`` (SIGKILL), ``term`` (SIGTERM), ``pause`` (SIGSTOP for ``pause_s``, then SIGCONT), or of the
    broker ``full``: its disk is full until it has ended or for ten seconds; emptied, it is started again; or
    ``narrow``: for ``pause_s`` it takes no longer request than ``NARROW_BYTES``."""

    kind: str
    target: str
    pause_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind} {self.target}" + (f" for {self.pause_s:.1f} s" if self.pause_s else "")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done. ``kills`` are of signers and pods, ``brokers`` are stops, crashes and pauses of the broker."""

    kills: int
    brokers: int
    signers: int
    pods: int


def draw(seed: int, scale: Scale) -> tuple[Step, ...]:
    """The faults of a run, in order. Signers and pods take turns, so that each kind is there however few there are."""
    chance = random.Random(f"faults {seed}")
    signers = _Turns(chance, [f"signer {m}" for m in range(1, scale.signers + 1)])
    pods = _Turns(chance, [f"api {n}" for n in range(scale.pods)])
    steps = []
    for number in range(scale.kills):
        # Of six: two crashes and a drain of signers, a pause of one, a crash and a drain of pods.
        match number % 6:
            case 0 | 4:
                steps.append(Step("kill", next(signers)))
            case 1:
                steps.append(Step("kill", next(pods)))
            case 2:
                steps.append(Step("term", next(signers)))
            case 3:
                steps.append(Step("term", next(pods)))
            case _:
                steps.append(Step("pause", next(signers), chance.uniform(1.0, 3.0)))
    for number in range(scale.brokers):
        kind = ("term", "kill", "pause")[number % 3]
        steps.append(Step(kind, BROKER, 3.0 if kind == "pause" else 0.0))
    chance.shuffle(steps)
    return tuple(steps)


def each_once(signers: int, pods: int) -> tuple[Step, ...]:
    """Each signer killed, each told to end, each pod told to end: what no request may fail for."""
    seats = [f"signer {m}" for m in range(1, signers + 1)]
    return (
        *(Step("kill", seat) for seat in seats),
        *(Step("term", seat) for seat in seats),
        *(Step("term", f"api {n}") for n in range(pods)),
    )


def broker_trouble() -> tuple[Step, ...]:
    """What one broker can do to everybody."""
    return (
        Step("term", BROKER),
        Step("kill", BROKER),
        Step("pause", BROKER, 3.0),
        Step("pause", BROKER, 30.0),
        Step("full", BROKER),
        Step("narrow", BROKER, 4.0),
    )


class _Turns:
    """Everybody comes once before anybody comes again, in an order by chance."""

    def __init__(self, chance: random.Random, names: Sequence[str]) -> None:
        self._chance, self._names = chance, names
        self._left: list[str] = []

    def __next__(self) -> str:
        if not self._left:
            self._left = self._chance.sample(self._names, len(self._names))
        return self._left.pop()
