"""An overload is asked as it says, and judged right. Nothing here looks at a clock."""

import asyncio
import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench import accounting, overload
from tests.bench.load import NEVER_SENT, open_loop


def _phases() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    half = {"latency": {"p99_ms": 100.0}}
    over = {
        "offered_per_s": 300.0,
        "rate_per_s": 80.0,
        "ok": 990,
        "failed": {"503 urn:x:overloaded": 2_000, "504 urn:x:deadline": 8, "connection lost": 2, NEVER_SENT: 100},
        "latency": {"p99_ms": 4_000.0},
        "refused_latency": {"p99_ms": 20.0},
        "without_retry_after": 0,
    }
    # Those that were asked in the first five seconds afterwards do not count as normal yet.
    rest = {"came_us": [3_000_000, 6_000_000, 7_000_000], "took_us": [2_900_000, 90_000, 110_000], "failed": {}}
    return half, over, rest


def test_a_process_and_its_threads_yield() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as process:
        accounting.make_yield(process.pid, 7)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 7
        group = Path(f"/proc/{process.pid}/autogroup")
        assert not group.exists() or group.read_text().split()[-1] == "7"
        assert process.stdin is not None
        process.stdin.write(b"\n")


@pytest.mark.anyio
async def test_what_finds_no_connection_is_counted_and_not_lined_up() -> None:
    answered = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await answered.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    command = {
        "urls": [f"http://127.0.0.1:{port}"],
        "public_key": base64.b64encode(bytes(32)).decode(),
        "seconds": 1.0,
        "rate": 200.0,
        "connections": 8,
    }
    asyncio.get_running_loop().call_later(1.5, answered.set)
    report_ = await open_loop(command)
    server.close()
    assert report_["failed"]["connection lost"] == 8
    assert report_["failed"][NEVER_SENT] > 100


def test_an_overload_is_judged_by_what_was_taken_and_ended_late() -> None:
    found = overload.judged(*_phases(), 100.0)
    assert found["goodput_share"] == pytest.approx(0.8)
    assert (found["taken"], found["refused"]) == (1_000, 2_000)
    assert found["late_share"] == pytest.approx(0.01)
    assert found["unsent_share"] == pytest.approx(100 / 3_100)
    assert found["after_p99_ms"] == 110.0
    assert {line[3] for line in overload.lines({**found, "resent": 99})} == {"", "must"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("goodput_share", 0.59), ("late_share", 0.02), ("signed_p99_ms", 5_001.0), ("refused_p99_ms", 900.0)),
        *(
            ("unsent_share", 0.06),
            ("without_retry_after", 1),
            ("resent", 200),
            ("after_p99_ms", 400.0),
            ("after_p99_ms", None),
        ),
    ],
)
def test_each_figure_of_an_overload_can_be_missed(name: str, value: float | None) -> None:
    found = {**overload.judged(*_phases(), 100.0), "resent": 0, name: value}
    assert sum(line[3] == "missed" for line in overload.lines(found)) == 1
