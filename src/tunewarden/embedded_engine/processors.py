"""The number of cores for the engine: physical cores, within the container's CPU quota."""

import math
import os
from pathlib import Path

ROOT = Path("/")


def threads_by_default(root: Path = ROOT) -> int:
    """Return the number of cores minus one, at least one: the gateway and this process's event loop need one.

    Two threads on one core's two hardware threads share its arithmetic units, and threads beyond a
    container's quota (cgroup v2, `cpu.max`) are all throttled together. With one
    thread a core nothing is pinned: the scheduler can move them out of the gateway's way.
    """
    return max(1, min(_cores(root), _share(root)) - 1)


def _cores(root: Path) -> int:
    """Count the cores that this process may run on, hardware threads of one core as one."""
    cores = set()
    for number in os.sched_getaffinity(0):
        topology = root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"
        cores.add(_read(topology) or str(number))
    return len(cores)


def _share(root: Path) -> int:
    """Return the smallest CPU quota, in processors, of this process's cgroup and its ancestors."""
    path = _read(root / "proc/self/cgroup").rpartition("0::")[2].split("\n")[0]
    group = root / "sys/fs/cgroup" / path.lstrip("/")
    least = math.inf
    while group.is_relative_to(root / "sys/fs/cgroup"):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            least = min(least, int(quota) / int(period))
        group = group.parent
    return max(1, math.floor(least)) if least < math.inf else 2**31


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""
