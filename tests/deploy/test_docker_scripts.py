"""What ``.ci/docker/up`` says where no daemon can be, and what ``.ci/docker/down`` leaves alone, without a daemon."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent.parent / ".ci" / "docker"
NOBODY = "exit 1\n"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of programs that stand before the machine's own: nothing is installed, and no daemon is there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("docker", "docker-compose", "dockerd", "iptables", "apt-get"):
        _write(folder / name, NOBODY)
    return folder


@pytest.fixture
def run(programs: Path, tmp_path: Path) -> Run:
    def run(name: str, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "DOCKER_UP_DIR": str(tmp_path),
            "DOCKER_HOST": "unix:///nowhere/docker.sock",
        }
        command = [*before, str(SCRIPTS / name), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)

    return run


def _write(program: Path, text: str) -> None:
    program.write_text(f"#!/bin/bash\n{text}")
    program.chmod(0o755)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that looks like the daemon which ``up`` has started."""
    with subprocess.Popen(["/bin/bash", "-c", "exec -a dockerd sleep 300"]) as process:
        (tmp_path / "dockerd.pid").write_text(str(process.pid))
        command = Path(f"/proc/{process.pid}/cmdline")
        while b"dockerd\0" not in command.read_bytes():
            assert process.poll() is None
        yield process
        process.kill()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a daemon")


@needs_root
def test_without_the_capability_that_a_daemon_needs_it_is_one_line(run: Run) -> None:
    done = run("up", before=("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "no CAP_SYS_ADMIN" in line


@needs_root
def test_a_daemon_that_ends_at_its_start_is_one_line_with_its_own_reason(run: Run, programs: Path) -> None:
    why = "failed to start daemon: Error initializing network controller: iptables not found"
    _write(programs / "dockerd", f"echo 'time=\"now\" level=info msg=\"Starting up\"' >&2; echo '{why}' >&2; exit 1\n")
    done = run("up")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("docker: no daemon can be started here (")
    assert line.endswith(why)


@needs_root
def test_a_package_that_cannot_be_had_is_one_line_with_the_reason(run: Run, programs: Path) -> None:
    (programs / "dockerd").unlink()
    reason = "E: Unable to locate package docker.io"
    _write(programs / "apt-get", f"[ $1 = update ] || {{ echo {reason} >&2; exit 100; }}\n")
    for name in ("bash", "flock", "grep", "head", "mkdir", "sed", "timeout"):
        (programs / name).symlink_to(str(shutil.which(name)))
    # A machine that has nothing else: on this one there may be a daemon to start.
    done = run("up", before=("/usr/bin/env", f"PATH={programs}"))
    assert (done.returncode, done.stdout) == (1, "docker: installing docker.io iptables\n")
    (line,) = done.stderr.splitlines()
    assert line.endswith(reason)


def test_where_nothing_was_started_there_is_nothing_to_end(run: Run) -> None:
    done = run("down")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_number_that_lives_again_as_another_process_is_left_alone(run: Run, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "300"]) as other:
        (tmp_path / "dockerd.pid").write_text(str(other.pid))
        done = run("down")
        assert (done.returncode, done.stderr) == (0, "")
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize(
    ("docker", "why"),
    [(NOBODY, "does not say whether containers run in it"), ("echo 0123456789ab\n", "containers run in it")],
)
def test_a_daemon_in_which_containers_may_run_is_ended_only_on_demand(
    run: Run, programs: Path, tmp_path: Path, daemon: "subprocess.Popen[bytes]", docker: str, why: str
) -> None:
    _write(programs / "docker", docker)
    done = run("down")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert why in line
    assert daemon.poll() is None
    assert (tmp_path / "dockerd.pid").exists()


def test_an_idle_daemon_is_ended(run: Run, programs: Path, tmp_path: Path) -> None:
    _write(programs / "docker", "exit 0\n")
    # Nobody's child but init's, as a daemon is: one of ours would stay in the process table until we look.
    made = "exec -a dockerd sleep 300 >/dev/null 2>&1 </dev/null & echo $!"
    pid = int(subprocess.run(["/bin/bash", "-c", made], capture_output=True, text=True, check=True).stdout)
    (tmp_path / "dockerd.pid").write_text(str(pid))
    command = Path(f"/proc/{pid}/cmdline")
    while b"dockerd\0" not in command.read_bytes():
        assert command.exists()
    done = run("down")
    assert (done.returncode, done.stderr) == (0, "")
    assert not command.exists()
    assert not (tmp_path / "dockerd.pid").exists()
