"""What ends a replica by itself, each with one line that says why; and a clock that goes wrong."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from common.wire import topics
from tests.brokers import Broker, apache, broker
from tests.shell.changed import SECRET
from tests.shell.road import Pod, Signers

__all__ = ["apache", "broker"]

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(150)]
SKEW = "signer_flow_clock_skew_seconds "

only_embedded = pytest.mark.parametrize("broker", ["embedded"], indirect=True)
only_apache = pytest.mark.parametrize("broker", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True)


@pytest.fixture
def signers(broker: Broker, tmp_path: Path) -> Iterator[Signers]:
    broker.create(topics.all_topics(broker.prefix, 1, 3, 1))
    made = Signers(broker, tmp_path)
    made.provision(3, 2)
    try:
        yield made
    finally:
        made.close()


async def ended(signers: Signers, seat: int, within_s: float = 60.0) -> int:
    """The exit code of a process that ends by itself."""
    process = signers.processes.pop(seat)
    try:
        return await anyio.to_thread.run_sync(process.wait, within_s)
    finally:
        if process.poll() is None:
            process.kill()


def lines(log: Path) -> list[dict[str, Any]]:
    """What a process said: each line is one JSON object."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def errors(log: Path) -> list[dict[str, Any]]:
    return [line for line in lines(log) if line["level"] == "error"]


@only_embedded
async def test_a_bug_in_a_machine_ends_the_process_with_one_line_and_no_values(signers: Signers) -> None:
    signers.start_changed(1, "broken-machine")
    assert await ended(signers, 1) == 1
    (said,) = errors(signers.log(1))
    assert said["event"] == "a bug: the process ends"
    assert "ValueError: " in said["exception"]
    assert "an invariant does not hold" in said["exception"]
    assert "tests/shell/changed.py" in said["exception"], "it says where"
    log = signers.log(1).read_text()
    assert SECRET not in log
    assert "Traceback" not in "".join(line for line in log.splitlines() if "a bug" not in line)


@only_apache
async def test_a_replica_whose_seat_is_taken_by_another_process_ends_with_one_line(
    broker: Broker, signers: Signers, tmp_path: Path
) -> None:
    signers.start(1)
    async with Pod(broker.settings, signers.keys, signers) as pod:
        await pod.until(lambda: 1 in pod.beats and bool(pod.beats[1][0].partitions), "it is a member")
        (tmp_path / "twin").mkdir()
        twin = Signers(broker, tmp_path / "twin")
        twin.keys = signers.keys
        twin.start(1)
        try:
            assert await ended(signers, 1) == 4
        finally:
            twin.close()
    (said,) = errors(signers.log(1))
    assert said["event"] == "the process ends"
    assert "fenced" in said["reason"].lower()


@only_apache
@pytest.mark.parametrize("ahead_ms", [5_000, -5_000])
async def test_a_clock_that_differs_from_the_brokers_is_measured_said_and_makes_a_replica_unready(
    broker: Broker, signers: Signers, ahead_ms: int
) -> None:
    signers.start(1)
    signers.start_changed(2, "clock-ahead", str(ahead_ms))
    async with Pod(broker.settings, signers.keys, signers) as pod:

        def said() -> bool:
            return any(line["event"] == "clock differs from the broker's" for line in lines(signers.log(2)))

        await pod.until(said, "the clock is said to be wrong")
        await pod.until(lambda: len({1, 2} & pod.beats.keys()) == 2, "both beat")
        await pod.until(lambda: abs(pod.beats[2][0].clock_skew_ms - ahead_ms) < 2_000, "its beats tell everybody")

    async def page(seat: int, path: str) -> tuple[int, str]:
        return await anyio.to_thread.run_sync(signers.page, seat, path)

    async def skew_s(seat: int) -> float:
        (line,) = [line for line in (await page(seat, "/metrics"))[1].splitlines() if line.startswith(SKEW)]
        return float(line.split()[1])

    assert abs(await skew_s(2) - ahead_ms / 1000) < 2.0
    assert abs(await skew_s(1)) < 1.0
    status, body = await page(2, "/readyz")
    assert status == 503
    assert "ms from the broker's" in body
    assert "ms from the broker's" not in (await page(1, "/readyz"))[1]
