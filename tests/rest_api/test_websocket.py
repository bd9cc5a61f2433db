"""WS /sign/ws: many messages on one connection, each with its one answer, and nobody else harmed by a bad client."""

import asyncio
import base64
import contextlib
import hashlib
import json
import socket as network
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from common import ed25519
from common.wire.messages import RefusalCode
from rest_api import models, sockets
from rest_api.routes import sign_ws
from tests.brokers import until
from tests.rest_api.test_sign import KIB64
from tests.rest_api.world import Asked, Pod, World, running_pod

pytestmark = pytest.mark.anyio

RESTART = "this pod is going away; what has no answer was not taken: send it again"


def address(pod: Pod) -> str:
    return pod.url.replace("http", "ws", 1) + "/sign/ws"


@contextlib.asynccontextmanager
async def socket(pod: Pod, **more: Any) -> AsyncIterator[ClientConnection]:
    async with connect(address(pod), proxy=None, compression=None, max_size=None, **more) as opened:
        yield opened


async def ask(opened: ClientConnection, message: object) -> dict[str, Any]:
    """Send one message and return the next answer."""
    await opened.send(message if isinstance(message, str | bytes) else json.dumps(message))
    return await answer(opened)


async def answer(opened: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(15):
        return orjson.loads(await opened.recv())  # type: ignore[no-any-return]


def a_refusal(got: dict[str, Any], client_id: str | None, status: int, code: str) -> dict[str, Any]:
    assert set(got) == {"id", "error"}, got
    assert got["id"] == client_id
    error: dict[str, Any] = dict(got["error"])
    retry_after_s = error.pop("retry_after_s", None)
    models.ProblemBody.model_validate(error)
    assert (error["status"], error["type"]) == (status, f"urn:signer-flow:problem:{code}"), error
    assert (retry_after_s is not None) == (status in {429, 503}), got
    return error


async def still_serves(pod: Pod) -> None:
    assert (await pod.http.post("/v1/sign", json={"text": "others"})).status_code == 200
    async with socket(pod) as other:
        assert "signature" in await ask(other, {"id": "o", "text": "others"})


async def closed(opened: ClientConnection) -> tuple[int, str]:
    """Wait for the end, and say how it was given."""
    async with asyncio.timeout(15):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await opened.recv()
        await opened.wait_closed()
    assert opened.close_code is not None
    return opened.close_code, opened.close_reason or ""


async def test_a_message_comes_back_signed_under_the_id_that_the_client_gave(pod: Pod, shared_world: World) -> None:
    async with socket(pod) as opened:
        for message, signed in (({"text": "grüße"}, "grüße".encode()), ({"data": "AAEC"}, bytes([0, 1, 2]))):
            got = await ask(opened, {"id": "a \u2713 1", **message})
            assert got.pop("id") == "a \u2713 1"
            models.SignResponse.model_validate(got)
            assert ed25519.verify(shared_world.trust.group_pub, signed, base64.b64decode(got["signature"]))
            assert got["message_sha256"] == hashlib.sha256(signed).hexdigest()


async def test_answers_come_as_they_are_done_not_as_they_were_asked(pod: Pod, shared_world: World) -> None:
    held: list[Asked] = []
    shared_world.committee.all_do(
        lambda asked: held.append(asked) if asked.request.items[0].message == b"slow" else asked.seat.sign(asked)
    )
    async with socket(pod) as opened:
        await opened.send(json.dumps({"id": "slow", "text": "slow"}))
        await until(lambda: bool(held), "the slow one is held")
        assert (await ask(opened, {"id": "quick", "text": "quick"}))["id"] == "quick"
        held[0].seat.sign(held[0])
        assert (await answer(opened))["id"] == "slow"


@pytest.mark.parametrize(
    ("sent", "client_id", "status", "code"),
    [
        ("not json", None, 400, "invalid-json"),
        ("", None, 400, "invalid-json"),
        ('{"id": "a", "text": "b"', None, 400, "invalid-json"),
        (b'{"id": "a", "text": "b"}', None, 400, "invalid-json"),
        ("[]", None, 422, "invalid-request"),
        ("[" * 100_000, None, 400, "invalid-json"),
        ({"text": "a"}, None, 422, "invalid-request"),
        ({"id": 1, "text": "a"}, None, 422, "invalid-request"),
        ({"id": "", "text": "a"}, None, 422, "invalid-request"),
        ({"id": "x" * 65, "text": "a"}, None, 422, "invalid-request"),
        ({"id": "a"}, "a", 422, "invalid-request"),
        ({"id": "a", "text": "a", "data": "AAEC"}, "a", 422, "invalid-request"),
        ({"id": "a", "data": "AAE"}, "a", 422, "invalid-request"),
        ({"id": "a", "text": 1}, "a", 422, "invalid-request"),
        ({"id": "a", "text": "a", "other": 1}, "a", 422, "invalid-request"),
        ({"id": "a", "text": "a", "key_id": "none"}, "a", 404, "unknown-key"),
        ({"id": "a", "text": "a", "key_id": "late"}, "a", 503, "no-key-yet"),
        ({"id": "a", "text": "x" * (KIB64 + 1)}, "a", 413, "message-too-large"),
        ({"id": "a", "data": base64.b64encode(bytes(KIB64 + 1)).decode()}, "a", 413, "message-too-large"),
        ({"id": "a", "text": "signer-flow/internal/v1\0x"}, "a", 422, "reserved-prefix"),
        ({"id": "a", "token": ""}, "a", 422, "invalid-request"),
    ],
)
async def test_a_bad_message_fails_alone_and_says_why(
    pod: Pod, shared_world: World, sent: object, client_id: str | None, status: int, code: str
) -> None:
    async with socket(pod) as opened:
        a_refusal(await ask(opened, sent), client_id, status, code)
        assert shared_world.committee.asked_items() == []
        assert "signature" in await ask(opened, {"id": "next", "text": "x" * KIB64})


async def test_what_the_signers_refuse_is_an_error_for_that_message(pod: Pod, shared_world: World) -> None:
    shared_world.committee.all_do(lambda asked: asked.seat.refuse(asked, RefusalCode.QUORUM_LOST, retryable=True))
    async with socket(pod) as opened:
        error = a_refusal(await ask(opened, {"id": "a", "text": "a"}), "a", 503, "quorum-lost")
        assert error["retryable"]
        shared_world.committee.reset()
        assert "signature" in await ask(opened, {"id": "b", "text": "a"})


async def test_the_deadline_of_the_upgrade_holds_for_each_message(pod: Pod, shared_world: World) -> None:
    shared_world.committee.all_do(lambda asked: None)
    async with socket(pod, additional_headers={"Request-Timeout-Ms": "300"}) as opened:
        a_refusal(await ask(opened, {"id": "a", "text": "a"}), "a", 504, "deadline")


async def test_a_frame_beyond_the_cap_closes_with_the_reason(pod: Pod) -> None:
    async with socket(pod) as opened:
        await opened.send(json.dumps({"id": "a", "text": "x" * sockets.MAX_FRAME_BYTES}))
        code, _ = await closed(opened)
        assert code == 1009
    await still_serves(pod)


async def test_a_text_frame_that_is_not_utf_8_closes_with_the_reason(
    pod: Pod, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    async with socket(pod) as opened:
        await opened.send(b'{"id": "\xff"}', text=True)
        assert (await closed(opened))[0] == 1007
    await still_serves(pod)
    assert [line for line in log_lines() if line.get("level") == "error"] == [], "anybody could fill the log"


async def test_a_message_in_any_number_of_fragments_closes_with_the_reason(pod: Pod) -> None:
    reader, writer = await raw_socket(pod)
    try:
        begin, nothing = bytes([0x01, 0x80, 0, 0, 0, 0]), bytes([0x00, 0x80, 0, 0, 0, 0])
        writer.write(begin + nothing * (2 * sockets.MOST_FRAGMENTS))
        assert b"too many fragments" in await asyncio.wait_for(reader.read(), 15)
    finally:
        writer.transport.abort()
    await still_serves(pod)


async def test_a_message_in_fragments_is_signed(pod: Pod) -> None:
    async with socket(pod) as opened:
        await opened.send([*'{"id": "pieces", "text": "hello"}'])
        assert "signature" in await answer(opened)


async def test_who_pings_without_end_and_reads_nothing_is_cut_off(own_world: World) -> None:
    async with running_pod(own_world.settings()) as pod:
        registry = pod.server.config.app.state.services.sockets  # type: ignore[union-attr]
        _, writer = await raw_socket(pod)
        ping = bytes([0x89, 0x80 | 125, 0, 0, 0, 0]) + bytes(125)
        with contextlib.suppress(ConnectionError):
            for _ in range(10_000):  # 1.3 GB: far more than what lies between us takes
                writer.write(ping * 1_000)
                await asyncio.wait_for(writer.drain(), 30)
                if registry.count() == 0:
                    break
        await until(lambda: registry.count() == 0, "it is cut off", 30)
        writer.transport.abort()
        await still_serves(pod)


async def test_what_one_read_brings_is_parsed_as_it_is_needed(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not forty thousand messages at once: each would be an object of ours before any of them is looked at."""
    most = 0
    queue = sockets.SignSocketProtocol.send_receive_event_to_app

    def counted(self: sockets.SignSocketProtocol) -> None:
        nonlocal most
        queue(self)
        most = max(most, self.queue.qsize())

    monkeypatch.setattr(sockets.SignSocketProtocol, "send_receive_event_to_app", counted)
    reader, writer = await raw_socket(pod)
    writer.write(bytes([0x81, 0x81, 0, 0, 0, 0, 0x30]) * 30_000 + bytes([0x88, 0x82, 0, 0, 0, 0, 3, 0xE8]))
    got = bytearray()
    async with asyncio.timeout(60):
        while part := await reader.read(65536):
            got += part
    writer.close()
    assert most <= sockets.SLICE_BYTES // 6
    assert got.count(b'"id":null') > 29_000, "those before the goodbye are answered, but for a window of them"


async def test_ten_thousand_messages_at_once_are_all_answered_and_others_are_served(pod: Pod) -> None:
    async with socket(pod) as opened:

        async def send() -> None:
            for number in range(10_000):
                more = "" if number % 10 else ', "text": "a"'
                await opened.send(f'{{"id": "{number}"{more}}}')

        sending = asyncio.create_task(send())
        got = {(await answer(opened))["id"]}
        await still_serves(pod)
        while len(got) < 10_000:
            got.add((await answer(opened))["id"])
        await sending
        assert got == {str(number) for number in range(10_000)}


def hold(world: World) -> list[Asked]:
    """From now on messages "held" wait, and all others are signed, also those that travel in one record with them."""
    held: list[Asked] = []

    def some(asked: Asked) -> None:
        others = [item for item in asked.request.items if item.message != b"held"]
        if len(others) < len(asked.request.items):
            held.append(asked)
        if others:
            asked.seat.answer(asked, *map(world.committee.outcome, others))

    world.committee.all_do(some)
    return held


def let_go(world: World, held: list[Asked]) -> None:
    world.committee.reset()
    for asked in held:
        asked.seat.sign(asked)


LONG = {"Request-Timeout-Ms": "30000"}


async def test_no_more_than_the_window_of_one_connection_is_under_way(pod: Pod, shared_world: World) -> None:
    held = hold(shared_world)
    async with socket(pod, additional_headers=LONG) as opened:
        for number in range(sign_ws.WINDOW * 2):
            await opened.send(json.dumps({"id": str(number), "text": "held"}))
        await until(lambda: pod.gateway.pending() == sign_ws.WINDOW, "the window is full")
        await still_serves(pod)
        assert pod.gateway.pending() == sign_ws.WINDOW
        let_go(shared_world, held)
        for _ in range(sign_ws.WINDOW * 2):
            assert "signature" in await answer(opened)


async def test_all_websockets_together_leave_half_of_the_places_to_requests(own_world: World) -> None:
    held = hold(own_world)
    async with running_pod(own_world.settings(pending_limit_items=20)) as pod, contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(socket(pod, additional_headers=LONG)) for _ in range(4)]
        for each in opened:
            for number in range(10):
                await each.send(json.dumps({"id": str(number), "text": "held"}))
        await until(lambda: pod.gateway.pending() == 10, "half of the places are taken")
        for _ in range(3):
            assert (await pod.http.post("/v1/sign", json={"text": "others"})).status_code == 200
        assert pod.gateway.pending() == 10
        let_go(own_world, held)
        for each in opened:
            for _ in range(10):
                assert "signature" in await answer(each)


UPGRADE = (
    b"GET /sign/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
)


async def raw_socket(
    pod: Pod, headers: Mapping[str, str] = MappingProxyType({})
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """An open WebSocket whose other end does nothing by itself: it answers no ping and reads no further than told."""
    plain = network.socket()
    # Little of what we do not read fits on our side, so the other side has to keep the rest.
    plain.setsockopt(network.SOL_SOCKET, network.SO_RCVBUF, 4096)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", int(pod.url.rpartition(":")[2])))
    reader, writer = await asyncio.open_connection(sock=plain, limit=4096)
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(UPGRADE + more.encode() + b"\r\n")
    assert b" 101 " in await reader.readline()
    return reader, writer


async def test_a_peer_that_answers_no_ping_is_cut_off(own_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sockets.UVICORN, "ws_ping_interval", 2.0)
    monkeypatch.setitem(sockets.UVICORN, "ws_ping_timeout", 0.5)
    async with running_pod(own_world.settings()) as pod:
        registry = pod.server.config.app.state.services.sockets  # type: ignore[union-attr]
        async with socket(pod) as lively:
            reader, writer = await raw_socket(pod)
            _, stuck = await raw_socket(pod)
            body = b'{"id": "%s"}' % (b"x" * 64)
            # Answers pile up before it until nothing more is taken from it: it has to go all the same.
            stuck.write((bytes([0x81, 0x80 | len(body), 0, 0, 0, 0]) + body) * 100_000)
            await until(lambda: registry.count() == 3, "all are open")
            await until(lambda: registry.count() == 1, "both are cut off", 15)
            with contextlib.suppress(ConnectionError):
                assert b"keepalive ping timeout" in await asyncio.wait_for(reader.read(), 5)
            assert "signature" in await ask(lively, {"id": "a", "text": "a"})
            for each in (writer, stuck):
                each.transport.abort()


async def test_a_client_that_reads_nothing_is_read_no_further(pod: Pod) -> None:
    """It is not its own memory that fills up with answers, nor ours: the bytes stay on its side of the wire."""
    _, writer = await raw_socket(pod)
    try:
        body = b'{"id": "%s"}' % (b"x" * 64)
        frame = bytes([0x81, 0x80 | len(body), 0, 0, 0, 0]) + body

        async def flood() -> None:
            # 350 MB if it were all taken; each 80 bytes come back as 400.
            for _ in range(5_000):
                writer.write(frame * 1_000)
                await asyncio.wait_for(writer.drain(), 3)

        with pytest.raises(TimeoutError):
            await flood()
        await still_serves(pod)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1"},
    ],
)
async def test_a_page_of_another_site_gets_no_connection(pod: Pod, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with socket(pod, additional_headers=headers):
            pass
    assert refused.value.response.status_code == 403
    body = orjson.loads(refused.value.response.body or b"")
    assert body["type"] == "urn:signer-flow:problem:cross-site"


async def test_our_own_page_does(pod: Pod) -> None:
    for headers in ({"Origin": pod.url}, {"Sec-Fetch-Site": "same-origin", "Origin": "null"}):
        async with socket(pod, additional_headers=headers) as opened:
            assert "signature" in await ask(opened, {"id": "a", "text": "a"})


async def test_a_name_that_is_not_ours_gets_no_connection(pod: Pod) -> None:
    port = pod.url.rpartition(":")[2]
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"ws://evil.example:{port}/sign/ws", host="127.0.0.1", port=int(port), proxy=None):
            pass
    assert refused.value.response.status_code == 403
    assert b"wrong-host" in (refused.value.response.body or b"")


@pytest.mark.parametrize("given", ["0", "30001", "soon"])
async def test_a_wrong_deadline_gets_no_connection(pod: Pod, given: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with socket(pod, additional_headers={"Request-Timeout-Ms": given}):
            pass
    assert refused.value.response.status_code == 422


async def test_connections_are_bounded(pod: Pod, shared_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = pod.server.config.app.state.services.sockets  # type: ignore[union-attr]
    monkeypatch.setattr(registry, "_most", 1)
    held = hold(shared_world)
    async with socket(pod) as opened:
        await opened.send(json.dumps({"id": "a", "text": "held"}))
        await until(lambda: bool(held), "it is under way")
        with pytest.raises(InvalidStatus) as refused:
            async with socket(pod):
                pass
        assert refused.value.response.status_code == 503
        assert "retry-after" in refused.value.response.headers
        let_go(shared_world, held)
        assert "signature" in await answer(opened)
    await until(lambda: registry.count() == 0, "the place is free again")
    async with socket(pod) as opened:
        assert "signature" in await ask(opened, {"id": "a", "text": "a"})


async def test_a_client_that_leaves_in_the_middle_harms_nobody(pod: Pod, shared_world: World) -> None:
    held: list[Asked] = []
    shared_world.committee.all_do(held.append)
    async with socket(pod) as opened:
        await opened.send(json.dumps({"id": "a", "text": "a"}))
        await until(lambda: bool(held), "it is under way")
        opened.transport.abort()
    shared_world.committee.reset()
    await still_serves(pod)
    held[0].seat.sign(held[0])
    await until(lambda: pod.gateway.pending() == 0, "its answer was taken and dropped")


async def test_a_pod_that_drains_gives_the_answers_then_says_goodbye(own_world: World) -> None:
    held: list[Asked] = []
    async with running_pod(own_world.settings()) as pod, socket(pod) as opened, socket(pod) as idle:
        assert "signature" in await ask(opened, {"id": "a", "text": "a"})
        assert "signature" in await ask(idle, {"id": "a", "text": "a"})
        own_world.committee.all_do(held.append)
        await opened.send(json.dumps({"id": "b", "text": "b"}))
        await until(lambda: bool(held), "it is under way")
        pod.gateway.drain(5)
        assert await closed(idle) == (1012, RESTART)
        a_refusal(await ask(opened, {"id": "c", "text": "c"}), "c", 503, "shutting-down")
        held[0].seat.sign(held[0])
        assert (await answer(opened))["id"] == "b"
        assert await closed(opened) == (1012, RESTART)
        with pytest.raises(InvalidStatus) as refused:
            async with socket(pod):
                pass
        assert refused.value.response.status_code == 503


async def test_a_server_that_stops_ends_no_connection_before_its_answers(own_world: World) -> None:
    held: list[Asked] = []
    own_world.committee.all_do(held.append)
    async with running_pod(own_world.settings()) as pod, socket(pod) as opened:
        await opened.send(json.dumps({"id": "b", "text": "b"}))
        await until(lambda: bool(held), "it is under way")
        # As the process does when it is told to stop.
        pod.gateway.drain(5)
        pod.server.should_exit = True
        await until(lambda: not pod.server.listeners[0].is_serving(), "the server stops")
        a_refusal(await ask(opened, {"id": "c", "text": "c"}), "c", 503, "shutting-down")
        held[0].seat.sign(held[0])
        assert (await answer(opened))["id"] == "b"
        assert await closed(opened) == (1012, RESTART)


async def test_what_was_under_way_when_the_grace_ends_is_told_so(own_world: World) -> None:
    own_world.committee.all_do(lambda asked: None)
    async with running_pod(own_world.settings()) as pod, socket(pod) as opened:
        await opened.send(json.dumps({"id": "b", "text": "b"}))
        await until(lambda: pod.gateway.pending() == 1, "it is under way")
        pod.gateway.drain(0.2)
        error = a_refusal(await answer(opened), "b", 504, "interrupted")
        assert "may still be signed" in error["detail"]
        assert not error["retryable"]
        assert (await closed(opened))[0] == 1012


async def drained_under_fire(own_world: World, moment: int) -> tuple[set[bytes], set[bytes]]:
    """Drain a pod after some answers while messages keep coming. Returns what was sent, and what was answered."""
    sent: dict[str, bytes] = {}
    answered: set[bytes] = set()
    async with running_pod(own_world.settings()) as pod, socket(pod) as opened:

        async def send() -> None:
            with contextlib.suppress(ConnectionClosed):
                for number in range(2_000):
                    sent[str(number)] = f"{moment}/{number}".encode()
                    await opened.send(json.dumps({"id": str(number), "text": f"{moment}/{number}"}))
                    await asyncio.sleep(0)  # for the pod, which lives on this loop

        async def read() -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    got = await answer(opened)
                    assert "signature" in got or got["error"]["type"].endswith("shutting-down"), got
                    answered.add(sent[got["id"]])
                    if len(answered) == 1 + 3 * moment:
                        pod.gateway.drain(5)

        async with asyncio.timeout(30):
            await asyncio.gather(send(), read())
        assert (opened.close_code, opened.close_reason) == (1012, RESTART)
    return set(sent.values()), answered


async def test_what_crosses_a_goodbye_was_not_taken(own_world: World) -> None:
    crossed = 0
    for moment in range(8):
        sent, answered = await drained_under_fire(own_world, moment)
        asked = {item.message for _, item in own_world.committee.asked_items()}
        assert asked & (sent - answered) == set()
        crossed += sent != answered
    assert crossed, "some messages were on their way"


async def test_an_answer_that_does_not_leave_within_the_grace_leaves_the_outcome_open(
    own_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_ws, "LAST_ANSWERS_S", 0.1)
    own_world.committee.all_do(lambda asked: None)
    async with running_pod(own_world.settings(shutdown_grace_ms=1_000)) as pod, socket(pod) as opened:
        await opened.send(json.dumps({"id": "b", "text": "b"}))
        await until(lambda: pod.gateway.pending() == 1, "it is under way")
        pod.gateway.drain(5)
        assert await closed(opened) == (1001, "this pod is going away; what has no answer may have been signed")


async def test_messages_are_counted_by_status(pod: Pod) -> None:
    def counted(status: int) -> float:
        return pod.count("http_requests_total", route="/sign/ws", method="WS", status=str(status))

    before = counted(200), counted(422)
    async with socket(pod) as opened:
        await ask(opened, {"id": "a", "text": "a"})
        await ask(opened, {"id": "a"})
    assert (counted(200), counted(422)) == (before[0] + 1, before[1] + 1)
