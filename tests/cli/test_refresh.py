"""``signer-flow refresh``: asked for, watched phase by phase, refused, or not over in time."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from common.ids import Epoch, Index, Offset
from common.wire import codec
from common.wire.messages import RefusalCode
from tests.brokers import until
from tests.cli.running import cli, start
from tests.rest_api.world import CALM, DEFAULT, Pod, World, running_pod

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


def all_say(world: World, phase: str, *awaited: int) -> None:
    """What beats tell of the ceremony from now on."""
    for seat in world.committee.seats.values():
        seat.key = replace(CALM, phase=phase, attempt=1, awaited=tuple(map(Index, awaited)), fold_offset=Offset(20))


async def test_it_says_that_it_was_asked_for_and_returns(pod: Pod) -> None:
    done = await cli("refresh", "--url", pod.url)
    assert (done.code, done.err) == (0, "")
    assert done.out.decode() == "asked for a refresh of default, now in epoch 1\n"
    told = json.loads((await cli("refresh", "default", "--json", "--url", pod.url)).out)
    assert (told["key_id"], told["epoch_before"], told["epoch"]) == ("default", 1, None)
    assert told["answer"]["location"] == "/v1/keys/default"


async def test_while_it_waits_it_tells_each_phase_and_ends_with_the_new_epoch(own_world: World, tmp_path: Path) -> None:
    told_so_far = tmp_path / "stderr"

    async def heard(line: str) -> None:
        await until(lambda: f"signer-flow: default: {line}\n" in told_so_far.read_text(), line, 60)

    async with running_pod(own_world.settings()) as pod:
        await until(lambda: len(pod.gateway.routing.live()) == 3, "all seats are heard")
        running = await start("refresh", "--wait", "--json", "--url", pod.url, limit=f"exec 2> {told_so_far}")
        await until(own_world.committee.asked_items, "the request", 60)
        all_say(own_world, "announce", 2, 3)
        await heard("reshare: announce, attempt 1, awaits 2 3")
        all_say(own_world, "ready")
        await heard("reshare: ready, attempt 1")
        for seat in own_world.committee.seats.values():
            seat.key = replace(CALM, epoch=Epoch(2))
        own_world.committee.publish(codec.encode(own_world.trust.key_record(epoch=2)))
        done = await running.done()
        assert done.code == 0, told_so_far.read_text()
        told = json.loads(done.out)
        assert (told["key_id"], told["epoch_before"], told["epoch"]) == (DEFAULT, 1, 2)
        assert [(each["phase"], each["awaited"]) for each in told["phases"]] == [("announce", [2, 3]), ("ready", [])]
        assert told_so_far.read_text().startswith("signer-flow: default: asked for, now in epoch 1\n")


async def test_one_that_is_not_over_in_time_ends_with_4_and_says_how_far_it_is(pod: Pod, shared_world: World) -> None:
    nobody = await cli("refresh", "--wait", "--wait-s", "1", "--url", pod.url)
    assert (nobody.code, nobody.out) == (4, b"")
    assert "still in epoch 1 after 1 s: no replica has opened a ceremony" in nobody.err
    all_say(shared_world, "deal", 3)
    stuck = await cli("refresh", "--wait", "--wait-s", "1", "--json", "--url", pod.url)
    assert (stuck.code, json.loads(stuck.out)["epoch"]) == (4, None)
    assert stuck.err.endswith("still in epoch 1 after 1 s: reshare: deal, attempt 1, awaits 3\n")


async def test_one_that_is_refused_ends_with_3_and_the_reason(pod: Pod, shared_world: World) -> None:
    unknown = await cli("refresh", "nobody", "--wait", "--url", pod.url)
    assert (unknown.code, unknown.out) == (3, b"")
    assert "404 unknown-key" in unknown.line
    two = await cli("refresh", "default", "--key", "late", "--url", pod.url)
    assert (two.code, two.out) == (2, b"")
    shared_world.committee.all_do(lambda asked: asked.seat.refuse(asked, RefusalCode.CEREMONY_RUNNING, retryable=False))
    running = await cli("refresh", "--wait", "--url", pod.url)
    assert (running.code, running.out) == (3, b"")
    assert "409 ceremony-running" in running.line


async def test_one_that_has_too_few_holders_ends_with_4_and_names_them(pod: Pod, shared_world: World) -> None:
    for seat in (Index(1), Index(3)):
        shared_world.committee.seats[seat].key = replace(CALM, holds_share=False)

    def short() -> bool:
        seats = pod.gateway.routing.seats
        return not any(key.holds_share for seat in (Index(1), Index(3)) for key in seats[seat].beat.keys)

    await until(short, "the beats")
    done = await cli("refresh", "--wait", "--url", pod.url)
    assert (done.code, done.out) == (4, b"")
    assert "missing: replica 1 (holds no share), replica 3 (holds no share) [503 quorum-lost]" in done.line
