"""``signer-flow batch``: order, constant memory, a bad row that fails alone, and nothing lost when it stops."""

import asyncio
import base64
import io
import json
import os
import pty
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.wire.messages import RefusalCode
from rest_api import token_file
from rest_api.commands.csv_input import CsvInput, Row
from rest_api.commands.pipeline import Pace, chunks
from rest_api.commands.results import Results, open_to_resume, resume
from rest_api.token_file import Rate, Token
from tests.brokers import until
from tests.cli.running import check_signed, cli, pod_process, start, table
from tests.rest_api.world import Asked, Pod, World, running_pod

pytestmark = pytest.mark.anyio


def write(path: Path, rows: int, size: int = 10) -> Path:
    with path.open("w") as file:
        file.write("reference,text\n")
        for n in range(rows):
            file.write(f"r{n},{'x' * size} {n}\n")
    return path


def whole_rows(path: Path) -> int:
    return path.read_bytes().count(b"\n") - 1 if path.exists() else 0


def test_fewer_rows_are_under_way_where_answers_take_long() -> None:
    pace = Pace(250, 30.0)
    rows = iter([Row(n, ("", "x"), None, b"x", None) for n in range(2_000)])
    sizes = chunks(rows, pace)
    assert len(next(sizes)) == 250
    for _ in range(3):
        pace.took(10.0)  # a deadline of 30 s would not be kept for much longer
    assert [len(next(sizes)) for _ in range(2)] == [31, 31]
    pace.took(4.0)
    assert len(next(sizes)) == 31
    for _ in range(9):
        pace.took(0.5)
    assert len(next(sizes)) == 250, "and never more than was said"
    for _ in range(20):
        pace.took(31.0)
    assert len(next(sizes)) == 1


@pytest.mark.slow
async def test_ten_thousand_rows_in_order_and_in_the_memory_of_a_hundred(
    pod: Pod, shared_world: World, tmp_path: Path
) -> None:
    few = await cli("batch", str(write(tmp_path / "few.csv", 1000, 2000)), "--url", pod.url)
    assert few.code == 0, few.err
    source = write(tmp_path / "many.csv", 10_000, 2000)
    many = await cli("batch", str(source), "--url", pod.url)
    assert many.code == 0, many.err
    assert many.line == "10000 rows done, 10000 signed, 0 failed"
    rows = table(many.out)
    assert [row["reference"] for row in rows] == [f"r{n}" for n in range(10_000)]
    check_signed(rows[::97], shared_world.trust.group_pub)
    # The file alone is 20 MB, its results 24 MB.
    assert many.peak_kib < few.peak_kib + 16_000, (few.peak_kib, many.peak_kib)


async def test_a_bad_row_fails_alone_and_the_run_ends_with_1(pod: Pod, shared_world: World, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    rows = [
        b"a,good",
        b"b," + b"x" * 65 * 1024,
        b"c,broken \xff\xfe bytes",
        b"d",
        b"e,too,many",
        b"x" * 300 + b",long reference",
        b"g,signer-flow/internal/v1\x00",
        b'h,"two\nlines, and a comma"',
        b"",
        b"i,",
        "j,grüße".encode(),
    ]
    source.write_bytes(b"\xef\xbb\xbfreference,text\r\n" + b"\r\n".join(rows) + b"\r\n")
    done = await cli("batch", str(source), "--url", pod.url, "--batch-items", "3")
    assert done.code == 1
    assert done.line == "10 rows done, 4 signed, 6 failed"
    found = table(done.out)
    check_signed([row for row in found if not row["error"]], shared_world.trust.group_pub)
    assert [row["error"].partition(":")[0] for row in found] == [
        "", "message-too-large", "bad-row", "bad-row", "bad-row", "bad-row", "reserved-prefix", "", "", ""
    ]  # fmt: skip
    assert found[2]["text"] == "broken \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER} bytes"
    assert "66560 bytes" in found[1]["error"]
    assert found[7]["text"] == "two\nlines, and a comma"


async def test_bytes_come_as_base64_and_a_wrong_one_fails_alone(pod: Pod, shared_world: World) -> None:
    from common import ed25519

    stdin = b"data_base64,reference\nAAEC,a\nAAE,b\n,c\n"
    done = await cli("batch", "-", "--url", pod.url, stdin=stdin)
    assert done.code == 1
    good, bad, empty = table(done.out)
    for row, message in ((good, bytes([0, 1, 2])), (empty, b"")):
        assert ed25519.verify(shared_world.trust.group_pub, message, base64.b64decode(row["signature"]))
    assert bad["error"] == "bad-row: data_base64: not base64 (standard alphabet, padded)"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"r1,hello\nr2,world\n", "row 1 is no header"),
        (b"reference,text,colour\n", "unknown column 'colour'"),
        (b"reference,text,data_base64\n", "both text and data_base64"),
        (b"reference\n", "no column text or data_base64"),
        (b"text,text\n", "a column stands twice"),
        (b"\xff\xfe\x00r\n", "row 1 is no header"),
        (b'"text\n', "not closed"),
    ],
)
async def test_a_file_that_is_no_such_csv_is_one_line_and_no_output(content: bytes, said: str) -> None:
    done = await cli("batch", "-", "--url", "http://127.0.0.1:1", stdin=content)
    assert (done.code, done.out) == (2, b"")
    assert said in done.line


async def test_a_header_alone_is_a_result_without_rows(pod: Pod) -> None:
    done = await cli("batch", "-", "--url", pod.url, stdin=b"reference,text\n")
    assert done.code == 0
    assert table(done.out) == []
    assert done.out.startswith(b"reference,text,signature,")


async def test_a_quote_that_nobody_closed_ends_the_run_and_keeps_what_was_signed(pod: Pod, shared_world: World) -> None:
    stdin = b"reference,text\n" + b"".join(b"r%d,ok\n" % n for n in range(7)) + b'r7,"open\n' + b"r8,ok\n" * 5
    done = await cli("batch", "-", "--url", pod.url, "--batch-items", "3", stdin=stdin)
    assert done.code == 2
    assert "row 8 (line 14): the file ends within quotes" in done.line
    rows = table(done.out)
    assert len(rows) == 7
    check_signed(rows, shared_world.trust.group_pub)


async def test_nobody_there_is_one_line_and_nothing_written(tmp_path: Path) -> None:
    done = await cli("batch", "-", "--url", "http://127.0.0.1:1", "--help")
    assert done.code == 0
    refused = await cli("batch", str(tmp_path / "none.csv"))
    assert (refused.code, refused.out) == (2, b"")
    assert "cannot read" in refused.line


async def test_json_gives_an_object_a_line(pod: Pod) -> None:
    done = await cli("batch", "-", "--url", pod.url, "--json", stdin=b"reference,text\na,good\nb\n")
    assert done.code == 1
    good, bad = (json.loads(line) for line in done.out.splitlines())
    assert (good["row"], good["reference"], good["text"], good["algorithm"]) == (1, "a", "good", "Ed25519")
    assert bad == {"row": 2, "reference": "b", "text": "", "error": {"detail": "bad-row: it has 1 cells, the header 2"}}


async def test_a_killed_pod_stops_the_run_and_resume_completes_it(own_world: World, tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.csv", 3000), tmp_path / "out.csv"
    arguments = ("batch", str(source), "--resume", str(out), "--batch-items", "50")
    async with pod_process(own_world) as pod:
        running = await start(*arguments, "--url", pod.url)
        await until(lambda: whole_rows(out) >= 200, "some rows are done", 60)
        await pod.kill()
        stopped = await running.done()
        assert stopped.code == 4
        assert "--resume" in stopped.err
        before = table(out.read_bytes())
        assert 200 <= len(before) < 3000
        # As a machine that lost its power would leave it: half of a row.
        out.write_bytes(out.read_bytes() + b'r99999,"half of')
        await pod.start()
        done = await cli(*arguments, "--url", pod.url)
    assert done.code == (1 if any(row["error"] for row in before) else 0), done.err
    rows = table(out.read_bytes())
    assert [row["reference"] for row in rows] == [f"r{n}" for n in range(3000)]
    assert rows[: len(before)] == before
    check_signed([row for row in rows if not row["error"]], own_world.trust.group_pub)
    # Only what was under way when the pod died may be without a signature.
    assert sum(bool(row["error"]) for row in rows) <= 3 * 50


async def test_resume_signs_what_is_missing_and_nothing_else(pod: Pod, shared_world: World, tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.csv", 40), tmp_path / "out.csv"
    arguments = ("batch", str(source), "--resume", str(out), "--url", pod.url)
    assert (await cli(*arguments)).code == 0
    whole = out.read_bytes()
    shared_world.committee.reset()
    out.write_bytes(b"".join(whole.splitlines(keepends=True)[:21]) + b'r20,"open\n')
    assert (await cli(*arguments)).code == 0
    assert out.read_bytes()[:-1].splitlines()[:21] == whole.splitlines()[:21]
    rows = table(out.read_bytes())
    assert [row["reference"] for row in rows] == [f"r{n}" for n in range(40)]
    check_signed(rows, shared_world.trust.group_pub)
    assert len(shared_world.committee.asked_items()) == 20
    shared_world.committee.reset()
    assert (await cli(*arguments)).code == 0
    assert shared_world.committee.asked_items() == []


@pytest.mark.parametrize("kept", range(7))
@pytest.mark.parametrize("torn", [b"", b"r", b'r1,"open\n', b'r1,"open, "" and', b"r1,a,b,c,d,e,f,g,", b"\xff"])
def test_only_whole_rows_count_as_done(tmp_path: Path, kept: int, torn: bytes) -> None:
    """``kept`` lines of a result file: its header and five rows, the third of which is three lines long."""
    given = b'reference,text\na,1\nb,2\n"c ""\n""\n",3\nd,4\n'
    source = CsvInput(io.BytesIO(given), "in.csv")
    path = tmp_path / "out.csv"
    descriptor = open_to_resume(path)
    try:
        out = Results(descriptor, source.columns)
        for row in source:
            out.write([(row, "failed: on purpose")])
        whole = path.read_bytes().splitlines(keepends=True)
        assert len(whole) == 7
        path.write_bytes(b"".join(whole[:kept]) + torn)
        again = CsvInput(io.BytesIO(given), "in.csv")
        todo = iter(again)
        done, failed = resume(descriptor, "out.csv", again.columns, todo)
        # Lines 4 to 6 are one row.
        assert done == failed == {0: 0, 1: 0, 2: 1, 3: 2, 4: 2, 5: 2, 6: 3}[kept]
        assert path.read_bytes() == b"".join(whole[: {4: 3, 5: 3}.get(kept, kept)])
        out = Results(descriptor, again.columns, fresh=path.stat().st_size == 0)
        out.write([(row, "failed: on purpose") for row in todo])
        assert path.read_bytes() == b"".join(whole)
    finally:
        os.close(descriptor)


@pytest.fixture(scope="module")
async def results_of_eight(shared_pod: Pod, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a run over the eight rows of ``write`` leaves."""
    folder = tmp_path_factory.mktemp("eight")
    out = folder / "out.csv"
    source = write(folder / "in.csv", 8)
    assert (await cli("batch", str(source), "--resume", str(out), "--url", shared_pod.url)).code == 0
    return out.read_bytes()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw.replace(b"\nr3,", b"\nr33,"),
        lambda raw: raw.replace(b"xx 3,", b"xx 4,"),
        lambda raw: raw.replace(b"reference,text", b"reference,data_base64", 1),
        lambda raw: raw + raw.splitlines(keepends=True)[-1],
        lambda raw: raw.replace(b"\nr3,", b'\nr3",'),
        lambda raw: b"something else\n" + raw,
        lambda raw: raw.replace(b"\nr3,", b"\nr3\nr3,"),
    ],
)
async def test_results_of_another_input_are_refused_and_left_alone(
    pod: Pod, tmp_path: Path, results_of_eight: bytes, spoil: Callable[[bytes], bytes]
) -> None:
    source, out = write(tmp_path / "in.csv", 8), tmp_path / "out.csv"
    spoiled = spoil(results_of_eight)
    assert spoiled != results_of_eight
    out.write_bytes(spoiled)
    done = await cli("batch", str(source), "--resume", str(out), "--url", pod.url)
    assert done.code == 2
    assert str(out) in done.line
    assert out.read_bytes() == spoiled


async def test_the_input_is_never_the_output(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", 3)
    before = source.read_bytes()
    done = await cli("batch", str(source), "--resume", str(source))
    assert done.code == 2
    assert "is the input itself" in done.line
    assert source.read_bytes() == before


async def test_an_interrupt_keeps_what_was_signed_in_whole_rows(own_world: World, tmp_path: Path) -> None:
    def slow(asked: Asked) -> None:
        asyncio.get_running_loop().call_later(0.2, asked.seat.sign, asked)

    source, out = write(tmp_path / "in.csv", 2000), tmp_path / "out.csv"
    arguments = ("batch", str(source), "--resume", str(out), "--batch-items", "20")
    async with running_pod(own_world.settings()) as pod:
        own_world.committee.all_do(slow)
        running = await start(*arguments, "--url", pod.url)
        await until(lambda: whole_rows(out) >= 100, "some rows are done", 60)
        running.interrupt()
        stopped = await running.done()
        assert stopped.code == 130
        assert "--resume" in stopped.line
        before = table(out.read_bytes())
        assert 100 <= len(before) < 2000
        check_signed(before, own_world.trust.group_pub)
        # Everything that was asked for is in the file: nothing signed was thrown away.
        assert len(own_world.committee.asked_items()) == len(before)
        own_world.committee.reset()
        done = await cli(*arguments, "--url", pod.url)
        assert done.code == 0
        assert len(own_world.committee.asked_items()) == 2000 - len(before)
    rows = table(out.read_bytes())
    assert len(rows) == 2000
    check_signed(rows, own_world.trust.group_pub)


async def test_an_interrupt_is_heard_while_the_input_is_awaited(pod: Pod) -> None:
    import sys

    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "rest_api.cli",
            "batch",
            "-",
            "--url",
            pod.url,
            "--batch-items",
            "1",
            "--in-flight",
            "1",
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"reference,text\na,one\nb,two\n")
    await process.stdin.drain()
    assert (await asyncio.wait_for(process.stdout.readline(), 60)).startswith(b"reference,text,")
    assert (await asyncio.wait_for(process.stdout.readline(), 60)).startswith(b"a,one,")
    process.send_signal(2)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130, err
    assert out == b""


@pytest.mark.parametrize("place", ["full device", "file limit"])
async def test_a_full_disk_is_one_line_and_leaves_whole_rows(pod: Pod, tmp_path: Path, place: str) -> None:
    source, out = write(tmp_path / "in.csv", 300), tmp_path / "out.csv"
    arguments = ("batch", str(source), "--url", pod.url, "--batch-items", "20")
    if place == "full device":
        full = os.open("/dev/full", os.O_WRONLY)
        try:
            done = await cli(*arguments, stdout=full)
        finally:
            os.close(full)
        assert "the disk is full" in done.line
    else:
        done = await cli(*arguments, "--resume", str(out), limit="ulimit -f 16")
        assert 0 < len(table(out.read_bytes())) < 300
        assert (await cli(*arguments, "--resume", str(out))).code == 0
        assert len(table(out.read_bytes())) == 300
    assert done.code == 4
    assert "cannot write the results" in done.line


async def test_one_file_is_written_by_one_run(own_world: World, tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.csv", 50), tmp_path / "out.csv"
    async with running_pod(own_world.settings()) as pod:
        own_world.committee.all_do(lambda asked: None)
        first = await start("batch", str(source), "--resume", str(out), "--url", pod.url)
        await until(lambda: own_world.committee.asked_items() != [], "the first run has asked", 20)
        second = await cli("batch", str(source), "--resume", str(out), "--url", pod.url)
        assert second.code == 4
        assert "another run is writing it" in second.line
        first.process.kill()
        await first.done()


async def test_a_quorum_that_is_lost_stops_the_run_instead_of_failing_every_row(own_world: World) -> None:
    async with running_pod(own_world.settings()) as pod:
        own_world.committee.all_do(lambda asked: None)
        rows = b"".join(b"r%d,a\n" % n for n in range(10))
        done = await cli("batch", "-", "--url", pod.url, "--timeout-ms", "500", stdin=b"reference,text\n" + rows)
        assert (done.code, done.out) == (4, b"")
        assert "outcome is unknown" in done.line


async def test_an_item_that_may_be_tried_again_is_tried_again(own_world: World) -> None:
    seen: set[bytes] = set()

    def unwilling_once(asked: Asked) -> None:
        first = {item.message for item in asked.request.items} - seen
        seen.update(first)
        if first:
            asked.seat.refuse(asked, RefusalCode.OVERLOADED, retryable=True)
        else:
            asked.seat.sign(asked)

    async with running_pod(own_world.settings()) as pod:
        own_world.committee.all_do(unwilling_once)
        done = await cli("batch", "-", "--url", pod.url, stdin=b"reference,text\na,1\nb,2\nc,3\n")
        assert done.code == 0, done.err
        check_signed(table(done.out), own_world.trust.group_pub)


async def test_a_rate_slows_the_run_down_and_fails_no_row(own_world: World, tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.touch(mode=0o600)
    path.write_text(token_file.entry(Token("slow", token_file.digest("sft_slow"), None, Rate(30, "second"))))
    async with running_pod(own_world.settings(tokens_file=path)) as pod:
        source = write(tmp_path / "in.csv", 75)
        without = await cli("batch", str(source), "--url", pod.url)
        assert (without.code, without.out) == (3, b"")
        assert "401 unauthorized" in without.line
        # 50 at once never fit: the client cuts them down.
        done = await cli(
            "batch", str(source), "--url", pod.url, "--batch-items", "50", env={"SIGNER_FLOW_TOKEN": "sft_slow"}
        )
        assert done.code == 0, done.err
        check_signed(table(done.out), own_world.trust.group_pub)


async def test_a_bar_is_shown_on_a_terminal_only(pod: Pod, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", 500)
    main, side = pty.openpty()
    import sys

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rest_api.cli", "batch", str(source), "--url", pod.url),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=side,
    )
    os.close(side)
    shown = bytearray()
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            shown.extend(os.read(main, 65536))
        except OSError:
            loop.remove_reader(main)

    loop.add_reader(main, read)
    assert await asyncio.wait_for(process.wait(), 60) == 0
    await until(lambda: b"500 signed" in shown, "the end is told", 5)
    loop.remove_reader(main)
    os.close(main)
    assert b"%" in shown


def test_the_columns_of_results_are_those_that_the_help_promises() -> None:
    from rest_api.commands.results import RESULT_COLUMNS

    given: Any = RESULT_COLUMNS
    assert given == ("signature", "key_id", "epoch", "public_key", "signers", "request_id", "error")
