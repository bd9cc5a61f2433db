"""The benchmark of refreshes counts right. No process starts here, and nothing looks at a clock to judge by it."""

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from common import ed25519
from signer_service.frost import group, sealing
from tests.bench import accounting, refresh_floor, refresh_report
from tests.bench.ceremonies import Idle, Key, summary
from tests.bench.dip import Dip, Span
from tests.bench.plan import REFRESH_TARGETS, Committee
from tests.bench.refresh_floor import Counts, Operations
from tests.bench.system import BenchError
from tests.world import World

S = 1_000_000_000

# --- the floor

DONE_BY = {
    (group, "crypto_scalarmult_ed25519_base_noclamp"): "base",
    (group, "crypto_scalarmult_ed25519_noclamp"): "mul",
    (group, "crypto_core_ed25519_add"): "add",
    (group, "crypto_core_ed25519_sub"): "add",
    (group, "crypto_core_ed25519_is_valid_point"): "valid",
    (sealing, "crypto_aead_xchacha20poly1305_ietf_encrypt"): "seal",
    (sealing, "crypto_aead_xchacha20poly1305_ietf_decrypt"): "unseal",
    (ed25519, "crypto_sign_open"): "verify",
}


def _played(t: int, n: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What all ceremony machines together do in one refresh. Signing session, nonces and envelopes are others' work."""
    world = World(t, n)
    world.lazy = True
    world.start()
    world.run(lambda: world.holds(1))
    world.run_for(5_000)
    done: Counter[str] = Counter()
    for (module, name), kind in DONE_BY.items():
        monkeypatch.setattr(module, name, _counted(getattr(module, name), kind, done))
    # Whoever asks is no replica, and the world's stand-in for the signing session signs in nobody's name.
    session = World._session
    monkeypatch.setattr(World, "_session", _uncounted(session, done))
    world.ask_refresh(1)
    world.run(lambda: world.holds(2))
    world.run_for(3_000)
    return done


def _counted(call: Any, kind: str, done: Counter[str]) -> Any:
    def wrapped(*args: Any) -> Any:
        done[kind] += 1
        return call(*args)

    return wrapped


def _uncounted(call: Any, done: Counter[str]) -> Any:
    def wrapped(*args: Any) -> None:
        before = done.copy()
        call(*args)
        done.clear()
        done.update(before)

    return wrapped


@pytest.mark.parametrize(("t", "n"), [(2, 3), (3, 5)])
def test_the_floor_of_a_refresh_is_what_the_machines_do_and_no_operation_more(
    t: int, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = refresh_floor.steps(t, n)
    machines = ("open", "announce", "deal", "verdict", "result", "ready", "committed", "erased")
    needed = sum((steps[name] for name in machines), Counts()).named()
    done = _played(t, n, monkeypatch)
    for kind in set(DONE_BY.values()):
        assert needed[kind] <= done[kind], f"{kind}: the floor counts what nobody does"
    # A sub-share is opened once more when QUAL is known: what was opened before that is not kept.
    assert done["unseal"] == 2 * needed["unseal"]
    assert done["mul"] == needed["mul"] + n * n
    assert done["add"] == needed["add"]
    assert done["seal"] == needed["seal"]


def test_counts_grow_with_the_committee_and_every_operation_has_a_cost() -> None:
    names = Counts().named().keys()
    assert names == Operations().by_name.keys() == refresh_report.OPERATIONS.keys() == set(DONE_BY.values()) | {"sign"}
    assert all(cost > 0 for cost in Operations().cost_us().values())
    small, large = refresh_floor.counts(2, 3).named(), refresh_floor.counts(7, 10).named()
    assert all(0 < small[name] < large[name] for name in names)


def test_the_floor_of_a_replica_is_the_sum_of_counts_times_costs_over_all_replicas() -> None:
    free = dict.fromkeys(Counts().named(), 0.0)
    assert refresh_floor.per_replica_ms(2, 3, free | {"seal": 1000.0}) == pytest.approx(3.0)
    assert refresh_floor.per_replica_ms(7, 10, free | {"seal": 1000.0, "unseal": 500.0}) == pytest.approx(15.0)


# --- one committee, idle


def test_cpu_of_a_refresh_is_the_median_per_replica_beside_the_floor() -> None:
    costs = dict.fromkeys(Counts().named(), 0.0)
    found = [Idle(100.0, 90.0, 30.0), Idle(300.0, 60.0, 60.0), Idle(200.0, 6000.0, 90.0)]
    told = summary(Committee(2, 3), found, [costs | {"seal": each} for each in (500.0, 2000.0, 9000.0)])
    assert (told["wall_median_ms"], told["wall_worst_ms"]) == (200.0, 300.0)
    assert (told["cpu_ms_per_replica"], told["idle_cpu_ms_per_s"]) == (30.0, 20.0)
    assert (told["floor_ms"], told["ratio"]) == (6.0, 5.0)
    assert (told["floor_spread"], told["noisy"]) == (4.25, True)
    row = {"name": "2-of-3", "threshold": 2, "signers": 3, "idle": told}
    assert "moved by 425%" in "".join(refresh_report.remarks({"refreshes": [row]}))


def test_a_processs_cpu_clock_says_what_proc_says_and_one_that_is_gone_is_an_error() -> None:
    exact, ticks = accounting.cpu_clock_ms(os.getpid()), accounting.cpu_ms(os.getpid())
    assert ticks - 20 <= exact <= accounting.cpu_ms(os.getpid()) + 20
    with pytest.raises(OSError, match="Invalid argument"):
        accounting.cpu_clock_ms(2**22 + 1)  # above the largest pid of Linux


# --- under load


def _steady(begin: int, end: int, gap: int, took: int) -> list[tuple[int, int]]:
    return [(at, took) for at in range(begin, end, gap)]


def test_a_dip_is_what_is_missing_in_the_seconds_of_refreshes() -> None:
    dip = Dip()
    # 100 a second, but 50 in the second after each refresh was asked for, which itself took 0.3 s.
    answers = [
        *_steady(0, 2 * S, S // 100, 10**6),
        *_steady(2 * S, 3 * S, S // 50, 2 * 10**6),
        *_steady(3 * S, 6 * S, S // 100, 10**6),
    ]
    dip.add(0, 6 * S, answers, [Span(2 * S, 2 * S + 3 * S // 10)])
    told = dip.report()
    assert told["dip"] == 0.5
    assert (told["during"]["seconds"], told["otherwise"]["seconds"]) == (1.0, 5.0)
    assert (told["during"]["rate_per_s"], told["otherwise"]["rate_per_s"]) == (50.0, 100.0)
    assert told["during"]["latency"]["p99_ms"] == 2.0
    assert told["otherwise"]["latency"]["p99_ms"] == 1.0
    dip.add(0, 6 * S, _steady(0, 6 * S, S // 100, 10**6), [Span(2 * S, 3 * S)])
    assert dip.report()["dip"] == 0.25


def test_a_slow_refresh_counts_until_its_end_and_seconds_count_once() -> None:
    dip = Dip()
    dip.add(0, 10 * S, [], [Span(S, 4 * S), Span(3 * S, 3 * S + 1), Span(9 * S + S // 2, 20 * S)])
    assert (dip.during.seconds, dip.otherwise.seconds) == (3.5, 6.5)
    assert dip.report()["dip"] is None


def test_a_request_that_waited_in_a_refresh_is_one_of_its_latencies_wherever_it_was_answered() -> None:
    dip = Dip()
    dip.add(0, 10 * S, [(4 * S, S), (5 * S, 3 * S), (5 * S, S // 2), (11 * S, 9 * S), (2 * S, S)], [Span(3 * S, 4 * S)])
    assert sorted(dip.during.taken_ns) == [S, 3 * S]
    assert sorted(dip.otherwise.taken_ns) == [S // 2, S]
    assert (dip.during.answers, dip.otherwise.answers) == (0, 4)


# --- a key that is refreshed


@contextmanager
def _pod(answers: list[tuple[int, dict[str, Any]]]) -> Iterator[str]:
    """A pod that gives these answers, one after another, and the last for ever."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = answers.pop(0) if len(answers) > 1 else answers[0]
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_POST = do_GET  # noqa: N815 (the base class names it)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()


def test_a_refresh_lasts_from_the_ask_that_was_accepted_to_the_epoch_that_is_believed() -> None:
    said: list[tuple[int, dict[str, Any]]] = [
        (200, {"epoch": 3}),
        (409, {"type": "refresh-too-soon"}),
        (503, {"type": "quorum-lost"}),
        (202, {}),
        (200, {"epoch": 3}),
        (200, {"epoch": 4}),
    ]
    asks: list[int] = []
    with _pod(said) as url, Key(url) as key:
        span = key.refresh(lambda: asks.append(len(said)))
    assert asks == [5, 4, 3]
    assert span.wall_ms > 0
    assert len(said) == 1


@pytest.mark.parametrize("refused", [(404, {"type": "unknown-key"}), (500, {})])
def test_a_refresh_that_cannot_be_is_an_error_of_one_line(refused: tuple[int, dict[str, Any]]) -> None:
    with _pod([(200, {"epoch": 1}), refused]) as url, Key(url) as key, pytest.raises(BenchError, match="no refresh: "):
        key.refresh()


# --- the report


def _side(rate: float, p99: float) -> dict[str, Any]:
    return {"seconds": 5.0, "rate_per_s": rate, "latency": {"p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": p99, "max_ms": p99}}


def _row(t: int, n: int, **more: Any) -> dict[str, Any]:
    costs = dict.fromkeys(Counts().named(), 10.0)
    phase = {
        "refreshes": 5,
        "ok": 5000,
        "wrong": 0,
        "failed": {},
        "during": _side(360.4, 41.5),
        "otherwise": _side(400.0, 30.25),
        "dip": 0.099,
        "wall_median_ms": 400.0,
        "wall_worst_ms": 900.0,
    }
    idle = summary(Committee(t, n), [Idle(250.0, 90.0, 1.0)], [costs])
    return {
        "name": f"{t}-of-{n}",
        "threshold": t,
        "signers": n,
        "idle": idle,
        "half": dict(phase),
        "full": dict(phase),
        **more,
    }


def test_the_tables_of_refreshes_have_a_cell_for_each_committee_and_nothing_that_was_not_measured() -> None:
    rows = [_row(2, 3), {**_row(7, 10), "half": None, "full": None}]
    (head, figures), (floor_head, floor) = refresh_report.tables({"refreshes": rows})
    assert head == ["refresh", "2-of-3", "7-of-10"]
    assert all(len(line) == 3 for line in figures)
    assert ["half load: p99 during / otherwise, ms", "41.5 / 30.2", "-"] in figures
    assert ["full load: not signed", "0 of 5,000, 5 refreshes", "-"] in figures
    assert floor_head[2:] == ["2-of-3", "7-of-10"]
    assert ["sub-shares sealed", "10.0", "3", "10"] in floor
    assert refresh_report.tables({"refreshes": []}) == refresh_report.tables({}) == []
    only_load = {"name": "2-of-3", "half": _row(2, 3)["half"]}
    assert [len(table[1]) for table in refresh_report.tables({"refreshes": [only_load]})] == [4]


def test_what_a_refresh_owes_is_judged_by_the_committees_that_owe_it() -> None:
    owed = refresh_report.targets({"refreshes": [_row(2, 3), _row(3, 5)]})
    assert [line[0].partition(":")[0] for line in owed] == ["3-of-5", *["2-of-3", "3-of-5"] * 4]
    bad = _row(3, 5)
    bad["half"] |= {"failed": {"503": 1}, "dip": 0.21}
    bad["idle"] |= {"wall_median_ms": 1000.1, "ratio": 1.51}
    missed = [line[0] for line in refresh_report.targets({"refreshes": [bad]}) if line[-1] == "missed"]
    assert len(missed) == len(REFRESH_TARGETS) - 1
    assert "503" in "".join(refresh_report.remarks({"refreshes": [bad]}))


def test_an_error_of_refreshes_is_said() -> None:
    broken = {"name": "7-of-10", "threshold": 7, "signers": 10, "error": "it took too long"}
    assert refresh_report.remarks({"refreshes": [broken]}) == ["7-of-10, refreshes: not measured: it took too long"]
    assert refresh_report.tables({"refreshes": [broken]}) == []
