"""What processes weigh: memory, descriptors, threads and processor time, from proc(5)."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

ROLES = {
    b"tunewarden.server.worker": "worker",
    b"tunewarden.server.runner": "runner",
    b"\0serve\0": "supervisor",
    b"engine": "engine",
}
HERTZ = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Weight:
    """Of one process, at a time in seconds since the beginning. `pss_mib` shares what is shared."""

    at: float
    rss_mib: float
    pss_mib: float
    descriptors: int
    threads: int
    cpu_seconds: float


def weight(pid: int, at: float = 0.0) -> Weight | None:
    """Return what a process weighs; None if it is gone."""
    with contextlib.suppress(OSError):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in rollup}
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return Weight(
            at,
            sizes["Rss"],
            sizes["Pss"],
            len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208  names are not needed
            int(fields[17]),
            (int(fields[11]) + int(fields[12])) / HERTZ,
        )
    return None


def role(pid: int) -> str:
    """Return what a process of a server is: "worker", "runner", "engine" or "supervisor"."""
    with contextlib.suppress(OSError):
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        # In this order: the program that is told to serve may have a name with an engine in it.
        for said, name in ROLES.items():
            if said in line:
                return name
    return "other"
