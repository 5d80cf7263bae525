"""What every process of ours does first: it dies with its parent, and leaves no core dump."""

import ctypes
import os
import resource
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4


def keep_secrets_in_memory() -> None:
    """Turn core dumps off and keep other users' debuggers out (prctl(2)). I16."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(PR_SET_DUMPABLE, 0)


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when the one that started it ends, however it ends."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)  # it ended before the kernel was told


def is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped by a signal: state T in proc(5)'s stat."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] == "T"


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")
