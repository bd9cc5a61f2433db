"""A replica's memory comes into no file by itself: looked at in a process of its own, since it holds for one."""

import subprocess
import sys

import pytest

LOOK = """
import ctypes, resource
from types import SimpleNamespace
from signer_service import app

def look():
    # PR_GET_DUMPABLE
    print(*resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))

def stop_before_a_secret_is_read():
    look()
    raise SystemExit

as_it_may = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (as_it_may, as_it_may))
look()
app.collector.settle = stop_before_a_secret_is_read
app.run(SimpleNamespace(log_format="json", log_level="info", index=1, spans_url=None))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_replica_leaves_no_core_dump_and_nobody_attaches_to_it() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=60, check=True)
    before, after = done.stdout.splitlines()
    assert before.endswith(" 1")
    assert after == "0 0 0"
