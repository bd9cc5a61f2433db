"""A test that hangs past its time-out ends its process, and the run comes to its summary all the same."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

NEVER_ENDS = """
import asyncio
import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1)]

@pytest.fixture
async def something():
    yield  # its teardown awaits the runner of the test, which was interrupted and goes on

async def test_never_ends(something):
    while True:
        await asyncio.sleep(0.01)

async def test_after_it(something):
    pass
"""
DEAF = """
import ctypes
import pytest

@pytest.mark.timeout(1)
def test_in_c():
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):  # no signal ends the second, and it holds the interpreter's lock
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)

def test_after_it():
    pass
"""


@pytest.mark.parametrize(("text", "stack"), [(NEVER_ENDS, "run_until_complete"), (DEAF, "test_in_c")])
def test_a_test_that_hangs_past_its_timeout_is_one_failure(tmp_path: Path, text: str, stack: str) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    for name in ("conftest.py", "hung.py", "stages.py"):
        shutil.copy(TESTS / name, folder)
    watch = folder / "hung.py"
    watch.write_text(watch.read_text().replace("GRACE_S: Final = 60.0", "GRACE_S: Final = 1.0"))
    (folder / "test_it.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -ra\ntimeout = 50\n")
    plain = ("-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "no:hypothesispytest")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "1", *plain, "tests"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Timeout (0:00:0" in done.stderr
    assert stack in done.stderr
    assert "1 passed" in done.stdout.splitlines()[-1]
    assert "failed" in done.stdout.splitlines()[-1]
