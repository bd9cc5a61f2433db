"""CPU time and memory of processes as the kernel counts them, and who else used the machine meanwhile."""

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_CPUCLOCK_SCHED = 2
"""As the kernel and the C library have it: a process's clock is ``~pid << 3 | 2``."""
_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


def parse_stat_ms(line: str, tick_ms: float = _TICK_MS) -> float:
    """User and system time of ``/proc/<pid>/stat``, in ms: fields 14 and 15 of proc(5), all threads, no children.

    The second field is the program's name in brackets and may hold blanks and brackets itself.
    """
    fields = line.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * tick_ms


def cpu_ms(pid: int) -> float:
    """CPU time that a process has used so far, in ms.

    Raises:
        OSError: it is gone. A process that was restarted in the middle must not look cheap.
    """
    return parse_stat_ms((_PROC / str(pid) / "stat").read_text())


def cpu_clock_ms(pid: int) -> float:
    """As ``cpu_ms``, but to the nanosecond, where /proc counts ticks of 10 ms: the process's CPU clock.

    Raises:
        OSError: it is gone.
    """
    return time.clock_gettime_ns(~pid << 3 | _CPUCLOCK_SCHED) / 1e6


def compiler_ms(pid: int) -> float:
    """CPU time that a JVM's compiler threads have used so far, in ms; 0 for a process that has none."""
    total = 0.0
    for stat in (_PROC / str(pid) / "task").glob("*/stat"):
        with contextlib.suppress(OSError):  # a thread that ended while we looked
            line = stat.read_text()
            if "CompilerThre" in line:  # the kernel keeps 15 letters of a name
                total += parse_stat_ms(line)
    return total


def peak_rss_mib(pid: int) -> float:
    """The most memory that was ever resident, in MiB."""
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no VmHWM for process {pid}")


@dataclass(frozen=True, slots=True)
class Machine:
    """The line ``cpu`` of /proc/stat, in ms over all cores."""

    busy_ms: float
    steal_ms: float
    total_ms: float


def parse_machine(line: str, tick_ms: float = _TICK_MS) -> Machine:
    """Read ``cpu user nice system idle iowait irq softirq steal …``."""
    user, nice, system, idle, iowait, irq, softirq, steal = (int(each) * tick_ms for each in line.split()[1:9])
    busy = user + nice + system + irq + softirq
    return Machine(busy, steal, busy + idle + iowait + steal)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everybody's CPU time at one moment; ``roles`` names each process, as ``signer 2``."""

    processes: Mapping[str, float]
    machine: Machine


def snapshot(pids: Mapping[str, int]) -> Snapshot:
    """Look at the processes and at the machine.

    Raises:
        OSError: a process is gone.
    """
    machine = parse_machine((_PROC / "stat").read_text().partition("\n")[0])
    return Snapshot({name: cpu_ms(pid) for name, pid in pids.items()}, machine)


def role(name: str) -> str:
    """``signer 2`` is a signer; ``api 0`` an api."""
    return name.partition(" ")[0]


def used(before: Snapshot, after: Snapshot, count: int) -> dict[str, object]:
    """CPU ms per signature by role and the machine's other users, for ``count`` signatures between two snapshots."""
    roles: dict[str, float] = {}
    for name, ms in after.processes.items():
        roles[role(name)] = roles.get(role(name), 0.0) + ms - before.processes[name]
    total = after.machine.total_ms - before.machine.total_ms
    ours = sum(roles.values())
    others = after.machine.busy_ms - before.machine.busy_ms - ours
    return {
        "cpu_ms_per_signature": {name: round(ms / count, 4) for name, ms in roles.items()} if count else None,
        "machine_busy": _share(after.machine.busy_ms - before.machine.busy_ms, total),
        "others_busy": _share(others, total),
        "steal": _share(after.machine.steal_ms - before.machine.steal_ms, total),
    }


def _share(part_ms: float, total_ms: float) -> float:
    return round(max(0.0, part_ms / total_ms), 4) if total_ms else 0.0


def make_yield(pid: int, niceness: int) -> None:
    """Let a process of ours have what others leave, with all its threads.

    A kernel that groups processes by session weighs the groups, and niceness counts only within one (sched(7)).

    Raises:
        OSError: it is gone.
    """
    for task in (_PROC / str(pid) / "task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(task.name), niceness)
    group = _PROC / str(pid) / "autogroup"
    if group.exists():
        group.write_text(str(niceness))


def children(parent: int) -> dict[str, int]:
    """Name to pid of a demo's children: ``signer 1``, ``api 0``. By the process table, as an operator would look."""
    found: dict[str, int] = {}
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) != parent:
                continue
            environment = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError, IndexError):
            continue  # it ended while we looked
        for entry in environment:
            name, _, value = entry.decode("utf-8", "replace").partition("=")
            if name == "SIGNER_SERVICE_INDEX":
                found[f"signer {value}"] = int(folder.name)
            elif name == "SIGNER_REST_API_INDEX":
                found[f"api {value}"] = int(folder.name)
    return found


def listener(port: int) -> int | None:
    """Pid of the process that listens on a TCP port of this machine; None if none can be seen."""
    wanted = f":{port:04X}"
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (_PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        fields = [line.split() for line in lines]
        inodes |= {f"socket:[{each[9]}]" for each in fields if each[1].endswith(wanted) and each[3] == "0A"}
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if any(str(fd.readlink()) in inodes for fd in (folder / "fd").iterdir()):
                return int(folder.name)
        except OSError:
            continue
    return None
