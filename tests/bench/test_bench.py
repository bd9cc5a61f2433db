"""The benchmark counts right. Nothing here looks at a clock: speed is measured by ``make bench``, and is not a test."""

import asyncio
import base64
import itertools
import json
import os
import random  # noqa: TID251 (values to sort)
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common import ed25519
from tests.bench import accounting, report, stats, system
from tests.bench.http1 import LOST, NOT_CONNECTED, Answer, Connection
from tests.bench.load import Tally, fresh_message
from tests.bench.plan import TARGETS

PRIVATE, PUBLIC = ed25519.generate_keypair(bytes(32))


# --- percentiles and spread


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.001, 1), (0.991, 100)]
)
def test_a_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    assert stats.percentile(range(1, 101), share) == expected


def test_the_percentile_of_one_value_is_that_value() -> None:
    assert {stats.percentile([7], share) for share in (0.01, 0.5, 0.99, 1)} == {7}


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1], 0), ([1], 1.01), ([1], 99)])
def test_a_percentile_of_nothing_or_beyond_everything_is_refused(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match=r"no values|a share"):
        stats.percentile(values, share)


def test_latencies_are_milliseconds_whatever_the_order() -> None:
    values = [n * 1_000_000 for n in range(1, 1001)]
    random.Random(1).shuffle(values)
    assert stats.latencies(values) == {"p50_ms": 500, "p95_ms": 950, "p99_ms": 990, "max_ms": 1000}
    assert stats.latencies([]) is None


def test_a_floor_that_moves_by_more_than_fifteen_percent_is_noise() -> None:
    assert not stats.noisy([1.0, 1.07, 1.14])
    assert stats.noisy([1.0, 1.0, 1.16])
    assert not stats.noisy([1.0])


# --- Prometheus' text


def test_stage_means_come_from_what_grew_during_the_phase_over_all_processes() -> None:
    head = "# HELP stage Time.\n# TYPE stage histogram\n"
    before = head + 'stage_sum{stage="round"} 5.0\nstage_count{stage="round"} 10.0\n'
    after = head + (
        'stage_bucket{stage="round",le="+Inf"} 30.0\n'
        'stage_sum{stage="round"} 6.0\nstage_count{stage="round"} 30.0\n'
        'stage_sum{stage="queue"} 0.5\nstage_count{stage="queue"} 5.0\n'
        'stage_sum{stage="answer"} 0.0\nstage_count{stage="answer"} 0.0\n'
    )
    other = 'stage_sum{stage="round"} 2.0\nstage_count{stage="round"} 10.0\n'
    grown = [
        stats.growth(stats.scrape(before), stats.scrape(after)),
        stats.growth(stats.scrape(""), stats.scrape(other)),
    ]
    means = stats.histogram_means(grown, "stage")
    assert means == {'stage="round"': pytest.approx(0.1), 'stage="queue"': pytest.approx(0.1)}


# --- CPU time and memory


def test_cpu_time_is_user_and_system_time_whatever_the_program_calls_itself() -> None:
    numbers = "S 1 1 1 0 -1 4194304 101 7 0 0 250 50 9999 9999 20 0 4 0 258958 3133440 380"
    assert accounting.parse_stat_ms(f"42 (python) {numbers}", 10.0) == 3000.0
    assert accounting.parse_stat_ms(f"42 (a) b (c) 1 2) {numbers}", 10.0) == 3000.0


def test_the_machines_idle_and_stolen_time_is_nobodys_work() -> None:
    machine = accounting.parse_machine("cpu  100 1 20 300 40 5 6 7 0 0", 10.0)
    assert machine == accounting.Machine(busy_ms=1320.0, steal_ms=70.0, total_ms=4790.0)


def test_cost_is_summed_by_role_and_what_is_nobodys_is_the_others() -> None:
    before = accounting.Snapshot({"api 0": 100.0, "signer 1": 50.0, "signer 2": 0.0}, accounting.Machine(0, 0, 0))
    after = accounting.Snapshot(
        {"api 0": 200.0, "signer 1": 350.0, "signer 2": 100.0}, accounting.Machine(600, 50, 1000)
    )
    assert accounting.used(before, after, 100) == {
        "cpu_ms_per_signature": {"api": 1.0, "signer": 4.0},
        "machine_busy": 0.6,
        "others_busy": 0.1,
        "steal": 0.05,
    }
    assert accounting.used(before, after, 0)["cpu_ms_per_signature"] is None


def test_a_process_that_works_is_seen_to_work_and_one_that_is_gone_is_an_error() -> None:
    before = accounting.cpu_ms(os.getpid())
    total = os.times()
    while os.times().user + os.times().system < total.user + total.system + 0.05:
        pass
    assert accounting.cpu_ms(os.getpid()) >= before + 40
    assert 5 < accounting.peak_rss_mib(os.getpid()) < 4096
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with pytest.raises(OSError, match=str(gone.pid)):
        accounting.cpu_ms(gone.pid)


# --- what an answer counts as


def _tally() -> Tally:
    return Tally(PUBLIC, seconds=3600.0)


def _signed(message: bytes) -> dict[str, Any]:
    return {"signature": base64.b64encode(ed25519.sign(PRIVATE, message)).decode()}


def _ok(body: object) -> Answer:
    return Answer(200, json.dumps(body).encode())


def test_messages_never_repeat() -> None:
    messages = [fresh_message() for _ in range(1000)]
    assert len(set(messages)) == 1000
    assert {len(message) for message in messages} == {64}


def test_only_a_signature_over_this_message_counts() -> None:
    tally = _tally()
    assert tally.answered(_ok(_signed(b"a")), [b"a"], 0, batch=False)
    others: list[object] = [_signed(b"b"), {}, {"signature": "!"}, {"signature": ""}, [], None, "text"]
    for body in others:
        assert not tally.answered(_ok(body), [b"a"], 0, batch=False)
    assert not tally.answered(Answer(200, b"not JSON"), [b"a"], 0, batch=False)
    assert (tally.ok, tally.wrong, tally.requests, len(tally.taken_ns)) == (1, 8, 9, 1)
    assert not tally.failed


def test_each_item_of_a_batch_is_judged_alone_and_a_missing_one_is_wrong() -> None:
    tally = _tally()
    messages = [b"a", b"b", b"c", b"d"]
    results = [_signed(b"a"), {"error": {"type": "urn:x"}}, _signed(b"not c")]
    assert not tally.answered(_ok({"results": results}), messages, 0, batch=True)
    assert (tally.ok, tally.wrong, dict(tally.failed)) == (1, 2, {"item: urn:x": 1})
    assert tally.answered(_ok({"results": [_signed(m) for m in messages]}), messages, 0, batch=True)
    assert (tally.ok, tally.in_time, len(tally.taken_ns)) == (5, 5, 1)


def test_a_refusal_is_a_failure_by_its_problem_and_no_wrong_signature() -> None:
    tally = _tally()
    problem = Answer(503, b'{"type":"urn:signer-flow:problem:overloaded"}')
    for answer in (problem, Answer(500, b"oops"), LOST):
        assert not tally.answered(answer, [b"a"], 0, batch=False)
    assert dict(tally.failed) == {"503 urn:signer-flow:problem:overloaded": 1, "500": 1, "connection lost": 1}
    assert (tally.ok, tally.wrong) == (0, 0)


# --- connections


def _serve(answers: list[list[bytes]]) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    """A server that answers each request with the next pieces, and hangs up after an empty one."""
    left = iter(answers)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for pieces in left:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                for piece in pieces:
                    if not piece:
                        return
                    writer.write(piece)
                    await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    return handle


def _post(answers: list[list[bytes]], times: int) -> list[Answer]:
    async def run() -> list[Answer]:
        server = await asyncio.start_server(_serve(answers), "127.0.0.1", 0)
        async with server:
            connection = Connection(*server.sockets[0].getsockname())
            got = [await asyncio.wait_for(connection.post("/x", b"{}"), 10) for _ in range(times)]
            connection.close()
            return got

    return asyncio.run(run())


def test_one_connection_carries_many_answers_in_any_pieces() -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    chunked = b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
    pieces = [[whole], [bytes([each]) for each in chunked], [whole[:30], whole[30:]]]
    assert _post(pieces, 3) == [Answer(200, b"hello"), Answer(503, b"abcd"), Answer(200, b"hello")]


def test_a_connection_that_the_server_ends_is_made_again_for_the_next_request() -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    answers = [[said, b""], [whole[:20], b""], [b"no HTTP at all\r\n\r\n", b""], [whole]]
    assert _post(answers, 4) == [Answer(200, b"ok"), LOST, LOST, Answer(200, b"ok")]


def test_a_server_that_is_not_there_is_an_answer_too() -> None:
    async def run() -> Answer:
        server = await asyncio.start_server(_serve([]), "127.0.0.1", 0)
        place = server.sockets[0].getsockname()
        server.close()
        await server.wait_closed()
        return await Connection(*place).post("/x", b"{}")

    assert asyncio.run(run()) == NOT_CONNECTED


# --- the report


def _row(name: str, **more: Any) -> dict[str, Any]:
    latency = {"p50_ms": 8.04, "p95_ms": 20.0, "p99_ms": 41.5, "max_ms": 60.0}
    phase = {
        "ok": 1000,
        "wrong": 0,
        "failed": {},
        "rate_per_s": 1234.5,
        "latency": latency,
        "cpu_ms_per_signature": {"api": 0.5, "signer": 0.75, "broker": 0.2, "client": 0.1},
        "ratio": 2.0,
        "floor_ms": 0.625,
        "others_busy": 0.01,
        "steal": 0.0,
    }
    memory = {"api 0": 61.0, "signer 1": 79.0, "broker": 900.0, "client": 500.0}
    phases = {name: dict(phase) for name in ("alone", "full", "half", "batch")}
    return {"name": name, **phases, "noisy": False, "floor_spread": 0.01, "memory_mib": memory, **more}


def _report(**more: Any) -> dict[str, Any]:
    return {
        "when": "2026-01-02T03:04:05+00:00",
        "mode": "quick",
        "machine": {"cpu": "A CPU", "cores": 2, "memory_gib": 24, "kernel": "6.1", "python": "3.11.2"},
        "kafka": {"what": "Apache Kafka", "jvm": ["-XX:+UseG1GC"]},
        "apis": 1,
        "rows": [_row("2-of-3")],
        "replicas": [],
        "baseline": _row("one process"),
        **more,
    }


def test_the_markdown_is_a_table_with_a_cell_for_each_system_in_each_line() -> None:
    text = report.markdown(_report())
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == len(report.LINES) + 2
    assert {line.count("|") for line in table} == {4}
    assert "| signatures/s at saturation | 1,234 | 1,234 |" in table
    assert "| one caller: p50 / p95 / p99, ms | 8.0 / 20.0 / 41.5 | 8.0 / 20.0 / 41.5 |" in table
    assert "| memory of the largest process, MiB | 79 | 79 |" in table
    assert "8,000 signatures" in text
    assert "2 cores (A CPU)" in text


def test_the_markdown_does_not_hide_noise_failures_or_what_is_missing() -> None:
    noisy = _row("2-of-3", noisy=True, floor_spread=0.4)
    noisy["half"] |= {"failed": {"504 late": 3}, "wrong": 1, "others_busy": 0.3}
    text = report.markdown(
        _report(rows=[noisy, {"name": "3-of-5", "error": "did not start"}], replicas=[_row("2-of-2")])
    )
    assert "2-of-3 (noisy)" in text
    for remark in ("moved by 40%", "half: 3 not signed: 504 late", "1 WRONG", "others used 30%", "did not start"):
        assert remark in text
    assert "against the number of replicas" in text


def test_a_target_is_reached_on_its_right_side_only() -> None:
    for target in TARGETS:
        better, worse = (1.001, 0.999) if target.at_least else (0.999, 1.001)
        assert target.verdict(target.goal * better) == target.verdict(target.goal) == "goal"
        assert target.verdict(target.goal * worse) == target.verdict(target.must) == "must"
        assert target.verdict(target.must * worse) == "missed"
        assert target.of(_row("2-of-3")) is not None
        assert target.of({}) is None


def test_the_reports_command_reads_what_the_run_wrote(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(_report()))
    command = [sys.executable, "-m", "tests.bench.report"]
    root = Path(__file__).resolve().parent.parent.parent
    done = subprocess.run([*command, str(file)], cwd=root, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == report.markdown(_report())
    assert subprocess.run(command, cwd=root, capture_output=True, check=False, timeout=60).returncode != 0


def test_a_run_of_refreshes_alone_has_no_empty_table() -> None:
    text = report.markdown(_report(rows=[], baseline=None, mode="refreshes", refreshes=[]))
    assert "a run of refreshes alone" in text
    assert "|" not in text


def test_every_column_is_as_wide_as_its_head() -> None:
    lines = report.markdown(_report(replicas=[_row("2-of-2"), _row("2-of-3")])).splitlines()
    tables = [
        list(group) for is_table, group in itertools.groupby(lines, lambda line: line.startswith("|")) if is_table
    ]
    assert len(tables) == 2
    for table in tables:
        assert len({line.count("|") for line in table}) == 1


def test_an_answer_that_is_larger_than_a_pipe_arrives_whole_and_so_does_the_next(tmp_path: Path) -> None:
    speaks = "from tests.bench.talk import say; input(); say({'taken': list(range(300_000))}); say({'taken': [1]})"
    with system.running([sys.executable, "-c", speaks], tmp_path / "log", talks=True) as process:
        talker = system.Talker(process, "speaker")
        talker.tell({})
        assert talker.hear(60.0) == {"taken": list(range(300_000))}
        assert talker.hear(60.0) == {"taken": [1]}
