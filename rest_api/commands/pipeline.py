"""Batches in flight: a bounded number, in the order of the input, in constant memory.

Each batch is sent by a thread of its own (which also verifies its signatures); the main thread reads, writes and hears
the interrupt. Threads are daemons: one that waits for an answer nobody wants any more does not hold up the end.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Final

from rest_api.client import BatchItem, Client, ClientError, ItemError, Limited, Refused, ServiceUnavailable, Signature
from rest_api.commands.csv_input import InputError, Row
from rest_api.commands.interrupts import Interrupts
from rest_api.commands.results import Result

MOST_BYTES: Final = 4 * 1024 * 1024
"""Of messages in one batch; base64 and JSON around them stay below the body's cap."""
ROUNDS: Final = 6
"""How often an item is tried that the service says may be tried again."""
LAST_ANSWERS_S: Final = 5.0
"""How long a run that ends early waits for the answers under way: what was signed is kept."""
WAIT_AT_MOST_S: Final = 30.0

Items = list[Signature | ItemError]
Land = Callable[[Sequence[tuple[Row, Result]]], None]


class Pace:
    """How many rows go into one request: half as many when answers take long, so that none comes after its deadline.

    A service that is slow (a machine with much to do) signs what it is asked in turn: with fewer rows under way each
    waits less.

    Args:
        most: Rows in one request while all is well.
        deadline_s: Of a request.
    """

    def __init__(self, most: int, deadline_s: float) -> None:
        self._most = most
        self._slow_s = deadline_s / 4
        self._quick_s = deadline_s / 16
        self.rows = most

    def took(self, seconds: float) -> None:
        """A request of any size had its answer after so long."""
        if seconds > self._slow_s:
            self.rows = max(1, self.rows // 2)
        elif seconds < self._quick_s:
            self.rows = min(self._most, 2 * self.rows)


def chunks(rows: Iterable[Row], pace: Pace) -> Iterator[list[Row]]:
    """Cut the rows into batches, each as large as the pace is then.

    What ends the input early is raised after the rows before it.
    """
    chunk: list[Row] = []
    weight = 0
    try:
        for row in rows:
            more = len(row.message or b"")
            if chunk and (len(chunk) >= pace.rows or weight + more > MOST_BYTES):
                yield chunk
                chunk, weight = [], 0
            chunk.append(row)
            weight += more
    except InputError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


class Sender:
    """Signs batches, and tries again what is safe: a rate that is used up, an item that was not taken.

    Args:
        api: Its own retries cover a service that is away for a moment.
        key_id: None: the service's first key.
    """

    def __init__(self, api: Client, key_id: str | None) -> None:
        self._api = api
        self._key_id = key_id
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Begin nothing any more."""
        self._stopped.set()

    def __call__(self, items: Sequence[BatchItem]) -> Items:
        """Return one result per item.

        Raises:
            ClientError: the batch as a whole was refused or lost, or the service can sign nothing now.
        """
        results = self._patiently(items)
        for round_number in range(ROUNDS):
            again = [n for n, one in enumerate(results) if isinstance(one, ItemError) and one.problem.get("retryable")]
            if not again or self._stopped.wait(0.25 * 2**round_number):
                break
            try:
                better = self._patiently([items[n] for n in again])
            except ServiceUnavailable:
                break  # the others of this batch are signed: they must not be lost with these
            for n, one in zip(again, better, strict=True):
                results[n] = one
        failed = [one.problem for one in results if isinstance(one, ItemError)]
        if len(failed) == len(items) and all(int(problem.get("status", 500)) >= 500 for problem in failed):
            # Not the rows' fault: errors in all that follow would help nobody.
            raise ServiceUnavailable(str(failed[0].get("detail", "no item of a batch was signed")))
        return results

    def _patiently(self, items: Sequence[BatchItem]) -> Items:
        while True:
            try:
                return self._api.sign_batch(items, key_id=self._key_id)
            except Limited as limit:
                if self._stopped.wait(min(limit.retry_after_s or 1.0, WAIT_AT_MOST_S)):
                    raise
            except Refused as refused:
                if len(items) == 1 or not str(refused.problem.get("type", "")).endswith(":batch-over-rate"):
                    raise
                half = len(items) // 2
                return [*self._patiently(items[:half]), *self._patiently(items[half:])]


@dataclass(frozen=True, slots=True)
class _Flight:
    rows: Sequence[Row]
    answer: "Future[Items]"

    def results(self) -> list[tuple[Row, Result]]:
        """The rows with what became of them; raises what the sender raised."""
        signed = iter(self.answer.result())
        return [(row, next(signed) if row.error is None else row.error) for row in self.rows]

    def is_signed(self) -> bool:
        """Whether the answer is here, and one."""
        return self.answer.done() and self.answer.exception() is None

    def failed(self, why: str) -> list[tuple[Row, Result]]:
        """The rows as errors."""
        return [(row, row.error or f"unknown-outcome: {why}") for row in self.rows]


def run(rows: Iterable[Row], sender: Sender, land: Land, *, pace: Pace, in_flight: int, interrupts: Interrupts) -> None:
    """Sign all rows and hand each to ``land``, in order.

    Raises:
        ClientError, InputError, KeyboardInterrupt, and what ``land`` raises: the run ended early; every row before the
        first that has no answer was landed, and those behind it that were signed already.
    """
    flying: deque[_Flight] = deque()
    wrong: InputError | None = None
    source = chunks(rows, pace)
    try:
        while True:
            try:
                with interrupts.welcome():
                    chunk = next(source, None)
            except InputError as error:
                wrong, chunk = error, None
            if chunk is None:
                break
            flying.append(_launch(chunk, sender, pace))
            if len(flying) >= in_flight:
                _land_first(flying, land, interrupts)
        while flying:
            _land_first(flying, land, interrupts)
    except (ClientError, KeyboardInterrupt) as reason:
        sender.stop()
        _salvage(flying, land, str(reason) or "interrupted before its answer came", interrupts)
        raise
    if wrong is not None:
        raise wrong


def _launch(chunk: Sequence[Row], sender: Sender, pace: Pace) -> _Flight:
    items = [BatchItem(row.message, row.reference) for row in chunk if row.message is not None and row.error is None]
    answer: Future[Items] = Future()
    if not items:
        answer.set_result([])
        return _Flight(chunk, answer)

    def fly() -> None:
        began = time.monotonic()
        try:
            results = sender(items)
            pace.took(time.monotonic() - began)
            answer.set_result(results)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the answer is read
            answer.set_exception(error)

    threading.Thread(target=fly, name="batch", daemon=True).start()
    return _Flight(chunk, answer)


def _land_first(flying: "deque[_Flight]", land: Land, interrupts: Interrupts) -> None:
    with interrupts.welcome():
        wait([flying[0].answer])
    done = flying[0].results()
    flying.popleft()
    land(done)


def _salvage(flying: "deque[_Flight]", land: Land, why: str, interrupts: Interrupts) -> None:
    """Keep what is signed although the run ends: everything up to the last batch that has its answer."""
    with interrupts.welcome():
        wait([flight.answer for flight in flying], timeout=LAST_ANSWERS_S)
    signed = [n for n, flight in enumerate(flying) if flight.is_signed()]
    for _ in range(max(signed, default=-1) + 1):
        flight = flying.popleft()
        land(flight.results() if flight.is_signed() else flight.failed(why))
