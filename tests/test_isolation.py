"""What one file of tests does to its process is not what the next one meets."""

import shutil
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent

CONFIGURES = """
import io
from common.observability.logging import LogFormat, configure

def test_it():
    configure(LogFormat.JSON, "error", "rest_api", 0, io.StringIO())
"""
LISTENS = """
import logging

def test_it(caplog):
    logging.getLogger("common.kafka.owner").warning("it is heard")
    assert "it is heard" in caplog.text
"""


def test_a_file_that_configures_logging_does_not_decide_what_the_next_one_hears(tmp_path: Path) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    for name in ("conftest.py", "hung.py", "stages.py"):
        shutil.copy(TESTS / name, folder)
    (folder / "test_a.py").write_text(CONFIGURES)
    (folder / "test_b.py").write_text(LISTENS)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {TESTS.parent}\n")
    plain = ("-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "no:hypothesispytest", "--import-mode=importlib")
    command = [sys.executable, "-m", "pytest", "-q", *plain, "tests"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout.splitlines()[-1].startswith("2 passed"), done.stdout + done.stderr
