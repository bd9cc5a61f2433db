"""A crowd of pages begins a few at a time, in order, and nobody else waits for all of them."""

import asyncio
import contextlib
import json
from typing import Any

import pytest

from rest_api import turns, web
from rest_api.turns import PER_TURN, InTurn, Turns
from tests.brokers import until
from tests.rest_api.connections import connected
from tests.rest_api.test_websocket import a_refusal, answer, socket
from tests.rest_api.world import Pod, World

pytestmark = pytest.mark.anyio


async def nothing() -> Any:
    raise AssertionError("nobody reads here")


async def write(_: Any) -> None:
    return


async def test_so_many_begin_in_a_turn_and_the_others_wait_in_order() -> None:
    turn, begun = 0, []

    async def page(scope: Any, *_: Any) -> None:
        begun.append((turn, scope["number"]))

    app = InTurn(page, Turns(per_turn=4))

    crowd = [asyncio.create_task(app({"type": "http", "number": n}, nothing, write)) for n in range(50)]
    while not all(task.done() for task in crowd):
        await asyncio.sleep(0)
        turn += 1
        assert turn < 100
    assert [number for _, number in begun] == list(range(50))
    turns_used = [turn for turn, _ in begun]
    assert max(turns_used.count(each) for each in turns_used) <= 4
    # Nobody waits for a crowd that is over.
    before = turn
    await app({"type": "http", "number": 50}, nothing, write)
    assert turn == before


async def test_one_that_was_given_up_while_it_waited_takes_nobodys_turn() -> None:
    begun = []

    async def page(scope: Any, *_: Any) -> None:
        begun.append(scope["number"])

    app = InTurn(page, Turns(per_turn=1))
    crowd = [asyncio.create_task(app({"type": "http", "number": n}, nothing, write)) for n in range(4)]
    await asyncio.sleep(0)
    crowd[2].cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    assert begun == [0, 1, 3]


async def test_one_whose_client_has_gone_takes_nobodys_turn_and_nothing_is_made_for_it() -> None:
    turn, begun = 0, []

    async def page(scope: Any, *_: Any) -> None:
        begun.append((turn, scope["number"]))

    app, ghosts = InTurn(page, Turns(per_turn=1)), set(range(1, 100))
    crowd = [
        asyncio.create_task(app({"type": "http", "number": n, turns.GONE: lambda n=n: n in ghosts}, nothing, write))
        for n in range(102)
    ]
    while not all(task.done() for task in crowd):
        await asyncio.sleep(0)
        turn += 1
        assert turn < 20, "those who have gone are passed by in one turn"
    assert [number for _, number in begun] == [0, 100, 101]
    assert len({turn for turn, _ in begun}) == 3


async def test_where_too_many_wait_the_next_is_refused_and_told_when_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "MOST_WAITING", 5)
    said: list[Any] = []

    async def note(message: Any) -> None:
        said.append(message)

    async def page(scope: Any, *_: Any) -> None:
        return

    app = InTurn(page, Turns(per_turn=1))
    scope = {"type": "http", "signer_flow.request_id": "a"}
    crowd = [asyncio.create_task(app(dict(scope), nothing, note)) for _ in range(7)]
    await asyncio.gather(*crowd)
    assert [message["status"] for message in said if "status" in message] == [503]
    assert (b"retry-after", b"1") in said[0]["headers"]
    # It is over, and so is the refusing.
    await asyncio.gather(*(app(dict(scope), nothing, note) for _ in range(6)))
    assert len([message for message in said if "status" in message]) == 1


async def test_the_wait_for_a_turn_is_a_part_of_the_deadline(pod: Pod, shared_world: World) -> None:
    """Whoever gave half a second is not answered after a second, nor signed for."""
    line: list[asyncio.Future[None]] = []

    async def wait(*_: Any) -> None:
        line.append(asyncio.get_running_loop().create_future())
        await line[-1]

    headers = {"Request-Timeout-Ms": "500"}
    loop = asyncio.get_running_loop()
    async with socket(pod, additional_headers=headers) as opened:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Turns, "mine", wait)
            await opened.send(json.dumps({"id": "a", "text": "late"}))
            form = asyncio.create_task(pod.http.post("/sign", data={"text": "late"}, headers=headers))
            await until(lambda: len(line) == 2, "both wait for their turn")
            late_at = loop.time() + 0.5
            await until(lambda: loop.time() > late_at, "their time is over")
            for each in line:
                each.set_result(None)
            error = a_refusal(await answer(opened), "a", 503, "in-flight-limit")
            assert "nothing of it was done" in error["detail"]
            assert (await form).status_code == 503
            assert shared_world.committee.asked_items() == []
            # With a part of the time left, it is what the signers are given.
            await opened.send(json.dumps({"id": "b", "text": "soon"}))
            await until(lambda: len(line) == 3, "it waits")
            came = loop.time()
            await until(lambda: loop.time() > came + 0.1, "a part of its time is over")
            line[2].set_result(None)
            assert "signature" in await answer(opened)
    ((_, item),) = shared_world.committee.asked_items()
    assert 0 < item.deadline_ms - item.created_ms <= 401


async def test_pages_that_were_asked_for_and_left_are_made_for_nobody(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = []
    plain = web.render

    def counted(*args: Any, **more: Any) -> Any:
        rendered.append(args)
        return plain(*args, **more)

    monkeypatch.setattr(web, "render", counted)
    state = pod.server.server_state
    # Nobody's turn comes until all of them have gone.
    monkeypatch.setattr(pod.server.config.app.state.services.turns, "_per_turn", 0)  # type: ignore[union-attr]
    async with contextlib.AsyncExitStack() as stack:
        before = set(state.connections)
        writers = [(await stack.enter_async_context(connected(pod)))[1] for _ in range(40)]
        for writer in writers:
            writer.write(b"GET /docs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await until(lambda: len(state.tasks) >= 40 - PER_TURN, "they wait for their turn")
        for writer in writers:
            writer.transport.abort()
        await until(lambda: not set(state.connections) - before, "they have gone")
    monkeypatch.undo()
    monkeypatch.setattr(web, "render", counted)
    assert (await pod.http.get("/docs")).status_code == 200
    await until(lambda: not state.tasks, "nothing is left of them")
    assert len(rendered) <= PER_TURN + 1, "those that began before anybody waited, and the one that was taken"


async def test_a_crowd_of_pages_is_answered_and_what_signs_goes_past_it(pod: Pod) -> None:
    pages = [asyncio.create_task(pod.http.get("/docs")) for _ in range(30)]
    signed = await pod.http.post("/v1/sign", json={"text": "past them"}, headers={"Request-Timeout-Ms": "30000"})
    assert signed.status_code == 200
    assert {page.status_code for page in await asyncio.gather(*pages)} == {200}
