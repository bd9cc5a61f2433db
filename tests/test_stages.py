"""A run in stages stops at the first that fails, and says what was left out and how long each took."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stages import stage_of

TESTS = Path(__file__).parent
PASSES, FAILS = "def test_it():\n    pass\n", "def test_it():\n    raise AssertionError\n"
FILES = {
    "fast": "frost/test_a.py",
    "contract": "kafka/test_b.py",
    "integration": "system/test_c.py",
    "browser": "browser/test_d.py",
    "package": "deploy/test_e.py",
}


def run(folder: Path, fails: str, *arguments: str) -> tuple[int, dict[str, str], str]:
    """Run a small suite in which one stage fails. Returns exit code, what is said of each stage, and the last line."""
    for name in ("conftest.py", "hung.py", "stages.py"):
        (folder / "tests").mkdir(exist_ok=True)
        shutil.copy(TESTS / name, folder / "tests")
    for stage, name in FILES.items():
        file = folder / "tests" / name
        file.parent.mkdir(exist_ok=True)
        marked = "import pytest\n\npytestmark = pytest.mark.slow\n\n\n" if stage == "integration" else ""
        file.write_text(marked + (FAILS if stage == fails else PASSES))
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow: long\naddopts = -ra\n")
    # Without plugins that have no part in it: they take most of the time.
    plain = ("-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "no:hypothesispytest")
    command = [sys.executable, "-m", "pytest", "-q", *plain, *arguments, "tests"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    lines = done.stdout.splitlines()
    told = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line.startswith(tuple(FILES))}
    return done.returncode, told, lines[-1] if lines else done.stderr


@pytest.mark.parametrize("workers", ["0", "1"])
def test_what_comes_after_a_stage_that_failed_is_left_out_and_counted(tmp_path: Path, workers: str) -> None:
    code, told, last = run(tmp_path, "contract", "--stages", "-n", workers)
    assert code == 1
    assert re.fullmatch(r"1 passed in \d+ s", told["fast"])
    assert re.fullmatch(r"1 failed in \d+ s", told["contract"])
    assert {told[stage] for stage in ("integration", "browser", "package")} == {"1 skipped"}
    assert re.match(r"1 failed, 1 passed, 3 skipped in ", last)


def test_where_nothing_fails_every_stage_is_run_and_timed(tmp_path: Path) -> None:
    code, told, last = run(tmp_path, "", "--stages")
    assert code == 0
    assert list(told) == list(FILES)
    assert all(re.fullmatch(r"1 passed in \d+ s", line) for line in told.values())
    assert last.startswith("5 passed in ")


def test_without_being_asked_all_is_run_and_nothing_is_told(tmp_path: Path) -> None:
    code, told, last = run(tmp_path, "fast")
    assert (code, told) == (1, {})
    assert last.startswith("1 failed, 4 passed in ")


@pytest.mark.parametrize(
    ("path", "marks", "stage"),
    [
        ("wire/test_codec.py", set[str](), "contract"),
        ("kafka/test_both_brokers.py", {"kafka"}, "contract"),
        ("integration/test_port_contract.py", {"docker"}, "contract"),
        ("integration/test_system.py", {"docker"}, "integration"),
        ("integration/test_images.py", {"docker"}, "package"),
        ("browser/test_sign_page.py", {"slow"}, "browser"),
        ("protocol/test_coordinator.py", {"timeout"}, "fast"),
        ("protocol/test_coordinator.py", {"slow"}, "integration"),
    ],
)
def test_a_file_is_in_the_stage_of_what_it_needs(path: str, marks: set[str], stage: str) -> None:
    assert stage_of(path, marks) == stage
