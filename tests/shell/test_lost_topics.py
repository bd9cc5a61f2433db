"""Topics are deleted and made again under a running committee: it signs again by itself, and nobody is started anew.

That is so of every topic but the ceremony log, of which tests/shell/test_new_log.py tells.
"""

import asyncio
import time

import anyio
import pytest

from common import ed25519
from common.ids import RequestId
from common.wire import topics
from common.wire.messages import Outcome, Signed
from tests.brokers import Broker, apache, broker, made_again
from tests.shell.road import DEFAULT, Pod, Signers, signers

__all__ = ["apache", "broker", "signers"]

SEATS = (1, 2, 3)
ALARM = 'signer_flow_alarm{alarm="ceremony_log_lost"} '
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.parametrize("broker", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True),
]


async def alarms(signers: Signers) -> list[bool]:
    """Which seats say that the log is lost."""
    found = []
    for seat in SEATS:
        _, page = await anyio.to_thread.run_sync(signers.page, seat, "/metrics")
        found.append(any(line.startswith(ALARM) and float(line.split()[-1]) == 1 for line in page.splitlines()))
    return found


async def answered(pod: Pod, request_id: RequestId, within_s: float) -> Outcome | None:
    """Its outcome, if there is one in time."""
    for _ in range(int(within_s / 0.01)):
        if request_id in pod.outcomes:
            break
        await asyncio.sleep(0.01)
    return pod.outcomes.get(request_id)


async def signs(pod: Pod, what: str, key: bytes, within_s: float = 60.0) -> None:
    """Ask anew, one after another, until somebody signs: requests may be lost with the topic that they were in."""
    end = time.monotonic() + within_s
    number = 0
    while True:
        message = f"{what} {number}".encode()
        request, raw = pod.request([message], 3_000)
        pod.send(raw, number % topics.REQUEST_PARTITIONS)
        outcome = await answered(pod, request.items[0].request_id, 3.5)
        if outcome is not None and isinstance(outcome.result, Signed):
            assert ed25519.verify(key, message, outcome.result.signature)
            return
        assert time.monotonic() < end, f"nobody signs: {what}"
        number += 1


async def passes_offsets(pod: Pod, each: int) -> None:
    """Have so many requests in each partition that a topic that is made again stays below them while we look."""
    asked = [pod.request([b"before"], 10_000) for _ in range(each * topics.REQUEST_PARTITIONS)]
    for number, (_, raw) in enumerate(asked):
        pod.send(raw, number % topics.REQUEST_PARTITIONS)
    for request, _ in asked:
        assert await answered(pod, request.items[0].request_id, 10.0)


async def test_any_other_topic_is_deleted_and_made_again_and_signing_comes_back_by_itself(
    broker: Broker, signers: Signers
) -> None:
    prefix = broker.prefix
    signers.start(*SEATS)
    async with Pod(broker.settings, signers.keys, signers) as pod:
        await pod.until_serving(*SEATS)
        key = pod.records[DEFAULT].public_key
        await passes_offsets(pod, 20)
        for spec in (
            topics.requests(prefix),
            topics.responses(prefix, 0, 1),
            topics.peer(prefix, 1, 1),
            topics.presence(prefix),
            topics.audit(prefix),
        ):
            await made_again(broker, spec)
            await signs(pod, f"after {spec.name}", key)
        assert await alarms(signers) == [False] * 3
