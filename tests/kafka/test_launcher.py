"""``make kafka``: it says when it serves, and leaves nothing running."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.brokers import _LAUNCHER, launcher

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def _run(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(_LAUNCHER), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def test_ctrl_c_stops_the_broker_in_order(apache: str) -> None:
    name = f"launcher-{uuid.uuid4().hex[:8]}"
    instance = launcher().Instance(name)
    process = _run("run", "--port", "0", "--name", name)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready: Apache Kafka on 127.0.0.1:"), process.stderr
        port = int(line.split(" (")[0].rpartition(":")[2])
        broker = instance.pid()
        assert broker is not None
        assert launcher().serves(port)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=40)
        assert (process.returncode, out, err) == (0, "stopped\n", "")
        assert not Path(f"/proc/{broker}").exists()
        assert (instance.folder / "data" / ".kafka_cleanshutdown").exists(), "an orderly stop leaves this mark"
    finally:
        process.kill()
        instance.stop(kill=True)
        shutil.rmtree(instance.folder, ignore_errors=True)


def test_a_taken_port_is_said_in_one_line(apache: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = _run("start", "--port", str(taken.getsockname()[1]), "--name", f"launcher-{uuid.uuid4().hex[:8]}")
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "is taken" in err
    assert err.count("\n") == 1


def test_stop_never_ends_a_process_that_is_not_its_own(tmp_path: Path) -> None:
    instance = launcher().Instance("launcher-stale")
    instance.folder = tmp_path
    instance.pid_file = tmp_path / "pid"
    instance.config = tmp_path / "server.properties"
    instance.pid_file.write_text(str(os.getpid()))  # the id of a broker long gone, used again
    assert instance.pid() is None
    assert instance.stop() is False
