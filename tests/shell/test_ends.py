"""What ends a replica by itself, each with one line that says why; and a clock that goes wrong."""

import json
import uuid
from pathlib import Path
from typing import Any

import anyio
import pytest

from common import ed25519
from common.ids import RequestId
from common.wire import topics
from common.wire.messages import Outcome, RefusalCode, Refused, Signed
from tests.brokers import Broker, apache, broker
from tests.shell.changed import SECRET
from tests.shell.road import DEFAULT, Pod, Signers, signers

__all__ = ["apache", "broker", "signers"]

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(150)]
SKEW = "signer_flow_clock_skew_seconds "
NOTHING = Outcome(RequestId(str(uuid.UUID(int=0))), Refused(RefusalCode.OVERLOADED, "no answer", True))

only_embedded = pytest.mark.parametrize("broker", ["embedded"], indirect=True)
only_apache = pytest.mark.parametrize("broker", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True)


async def ended(signers: Signers, seat: int, within_s: float = 60.0) -> int:
    """The exit code of a process that ends by itself."""
    process = signers.processes.pop(seat)
    try:
        return await anyio.to_thread.run_sync(process.wait, within_s)
    finally:
        if process.poll() is None:
            process.kill()


def lines(log: Path) -> list[dict[str, Any]]:
    """What a process said: each line is one JSON object. One that it is in the middle of is none yet."""
    return [json.loads(line) for line in log.read_text().rpartition("\n")[0].splitlines()]


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
    assert "another system on this broker with the same topic prefix" in said["reason"]


@only_apache
async def test_a_clock_that_differs_is_measured_said_makes_a_replica_unready_and_nothing_wrong(
    broker: Broker, signers: Signers
) -> None:
    async def page(seat: int, path: str) -> tuple[int, str]:
        return await anyio.to_thread.run_sync(signers.page, seat, path)

    async def skew_s(seat: int) -> float:
        (line,) = [line for line in (await page(seat, "/metrics"))[1].splitlines() if line.startswith(SKEW)]
        return float(line.split()[1])

    signers.start(1, 2, 3)
    async with Pod(broker.settings, signers.keys, signers) as pod:
        await pod.until_serving(1, 2, 3)
        key = pod.records[DEFAULT].public_key
        # 0.3 s would show as less where the way to the broker takes time: see tests/common/test_clock_skew.py.
        for ahead_ms, unready in ((500, False), (2_000, True), (-60_000, True)):
            await anyio.to_thread.run_sync(signers.terminate, 3)
            pod.beats.pop(3)
            before = len(lines(signers.log(3)))
            signers.start_changed(3, "clock-ahead", str(ahead_ms))

            def said(before: int = before) -> bool:
                return any(
                    each["event"] == "clock differs from the broker's" for each in lines(signers.log(3))[before:]
                )

            await pod.until(said, "the clock is said to be wrong")
            await pod.until(
                lambda ahead_ms=ahead_ms: 3 in pod.beats and abs(pod.beats[3][0].clock_skew_ms - ahead_ms) < 1_000,
                "its beats tell everybody",
            )
            assert abs(await skew_s(3) - ahead_ms / 1000) < 1.0
            assert abs(await skew_s(1)) < 1.0
            assert ("ms from the broker's" in (await page(3, "/readyz"))[1]) is unready
            assert "ms from the broker's" not in (await page(1, "/readyz"))[1]
            await signs_nothing_wrong(pod, key)


async def signs_nothing_wrong(pod: Pod, key: bytes) -> None:
    """Ask by each partition: in time, which somebody signs, and too late, which nobody does."""
    asked: dict[RequestId, bytes] = {}
    late: list[RequestId] = []
    for partition in range(topics.REQUEST_PARTITIONS):
        for deadline_ms, to in ((8_000, asked), (-1_500, None)):
            message = f"{partition} {deadline_ms} {len(pod.outcomes)}".encode()
            request, raw = pod.request([message], deadline_ms)
            if to is None:
                late.append(request.items[0].request_id)
            else:
                to[request.items[0].request_id] = message
            pod.send(raw, partition)

    def signed() -> list[RequestId]:
        return [each for each in asked if isinstance(pod.outcomes.get(each, NOTHING).result, Signed)]

    # Two of three clocks are right, and two sign: the third may only refuse, or not answer, what was sent to itself.
    await pod.until(lambda: len(signed()) >= topics.REQUEST_PARTITIONS // 2, "most is signed")
    for each in signed():
        result = pod.outcomes[each].result
        assert isinstance(result, Signed)
        assert ed25519.verify(key, asked[each], result.signature)
    assert not [each for each in late if isinstance(pod.outcomes.get(each, NOTHING).result, Signed)]
