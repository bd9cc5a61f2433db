"""All rude clients at once against a running pod: others are served, probes are answered, and memory stays bounded."""

import asyncio
import contextlib
from typing import Final

import httpx
import pytest

from tests.abuse.__main__ import LEAST_SHARE, MOST_MIB, figures
from tests.abuse.attacks import ATTACKS, attack
from tests.abuse.measure import Seen, descriptors, watch
from tests.system.running_demo import PLAIN, RunningDemo, running_demo, wait_until

CONNECTIONS: Final = 300
SECONDS: Final = 6.0
BOUND_S: Final = 100.0


def signs(demo: RunningDemo) -> bool:
    try:
        return PLAIN.post(f"{demo.url}/v1/sign", json={"text": "after"}).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_rude_clients_of_every_kind_at_once_keep_nobody_from_being_served() -> None:
    with running_demo(apis=1) as demo:
        demo.wait_ready()
        demo.wait_until_whole()
        pid = demo.children()["api 0"]
        before = descriptors(pid)

        async def all_at_once() -> Seen:
            watching = asyncio.create_task(watch(demo.port, demo.admin_port + 100, pid, SECONDS))
            await asyncio.gather(*(attack(name, demo.port, CONNECTIONS, SECONDS) for name in ATTACKS))
            seen, _ = await watching
            return seen

        seen = asyncio.run(all_at_once())
        # How many, and how fast, is a matter of the machine: `make abuse` measures it on one that is quiet.
        assert seen.served, seen.failed
        assert seen.probes, seen.red
        assert not [each for each in seen.red if each.rpartition(" ")[2].isdigit()], "a probe was told no"
        assert max(seen.mib) < MOST_MIB
        assert max(seen.descriptors) > before + CONNECTIONS, "they were there"
        wait_until(lambda: descriptors(pid) <= before + 20, BOUND_S, "all of them are over")
        wait_until(lambda: signs(demo), BOUND_S, "signing goes on")
        assert "api 0" in demo.children()
        assert demo.children()["api 0"] == pid


def test_what_an_attack_says_that_it_does_it_does() -> None:
    """Against a server that takes everything: both kinds of those that have two, and frames after the upgrade."""
    asked: set[bytes] = set()
    frames: set[str] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            asked.add(await reader.readuntil(b"\r\n"))
            if b"Upgrade" in await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
                frames.add((await reader.readexactly(2)).hex())
            while await reader.read(65536):
                pass

    async def all_of_them() -> None:
        async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            names = ("endless-body", *(name for name in ATTACKS if name.startswith("websocket-")))
            await asyncio.gather(*(attack(name, port, 200, 1) for name in names))

    asyncio.run(all_of_them())
    assert {b"POST /v1/sign HTTP/1.1\r\n", b"POST /v1/sign/batch HTTP/1.1\r\n"} <= asked
    assert frames == {"81bf", "0180", "89fd", "8980", "81ff"}


def test_each_limit_can_be_broken() -> None:
    good = Seen(served=[1.0] * 100, probes=[1.0], mib=[80.0], descriptors=[40])
    assert figures("x", 80, good, good)["broken"] == []
    assert good.share > LEAST_SHARE
    wrong = (
        (Seen(served=[1.0], failed=["503"], probes=[1.0], mib=[80.0]), good, "50.0% of honest"),
        (Seen(served=[1.0], red=["/readyz 503"], mib=[80.0]), good, "1 probes were not green"),
        (Seen(served=[1.0], mib=[MOST_MIB + 1.0]), good, "a pod may have"),
        (good, Seen(failed=["TimeoutError"]), "after it was over"),
    )
    for seen, after, said in wrong:
        (broken,) = figures("x", 80, seen, after)["broken"]
        assert said in broken
