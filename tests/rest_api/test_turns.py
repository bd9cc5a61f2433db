"""A crowd of pages begins a few at a time, in order, and nobody else waits for all of them."""

import asyncio
from typing import Any

import pytest

from rest_api.turns import InTurn, Turns
from tests.rest_api.world import Pod

pytestmark = pytest.mark.anyio


async def nothing() -> Any:
    raise AssertionError("nobody reads here")


async def write(_: Any) -> None:
    return


async def test_so_many_begin_in_a_turn_and_the_others_wait_in_order() -> None:
    turn, begun = 0, []

    async def page(scope: Any, *_: Any) -> None:
        begun.append((turn, scope["number"]))

    turns = InTurn(page, Turns(per_turn=4))

    crowd = [asyncio.create_task(turns({"type": "http", "number": n}, nothing, write)) for n in range(50)]
    while not all(task.done() for task in crowd):
        await asyncio.sleep(0)
        turn += 1
        assert turn < 100
    assert [number for _, number in begun] == list(range(50))
    turns_used = [turn for turn, _ in begun]
    assert max(turns_used.count(each) for each in turns_used) <= 4
    # Nobody waits for a crowd that is over.
    before = turn
    await turns({"type": "http", "number": 50}, nothing, write)
    assert turn == before


async def test_one_that_was_given_up_while_it_waited_takes_nobodys_turn() -> None:
    begun = []

    async def page(scope: Any, *_: Any) -> None:
        begun.append(scope["number"])

    turns = InTurn(page, Turns(per_turn=1))
    crowd = [asyncio.create_task(turns({"type": "http", "number": n}, nothing, write)) for n in range(4)]
    await asyncio.sleep(0)
    crowd[2].cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    assert begun == [0, 1, 3]


async def test_a_crowd_of_pages_is_answered_and_what_signs_goes_past_it(pod: Pod) -> None:
    pages = [asyncio.create_task(pod.http.get("/docs")) for _ in range(30)]
    signed = await pod.http.post("/v1/sign", json={"text": "past them"}, headers={"Request-Timeout-Ms": "30000"})
    assert signed.status_code == 200
    assert {page.status_code for page in await asyncio.gather(*pages)} == {200}
