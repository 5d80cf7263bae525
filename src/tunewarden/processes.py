"""Our processes: each dies with its parent and leaves no core dump; how one kills exactly another."""

import ctypes
import json
import os
import resource
import select
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


def identity() -> bytes:
    """Return what names this process for good, for `kill`: a number alone is given again."""
    return json.dumps({"pid": os.getpid(), "start": _start_of(os.getpid())}).encode()


def kill(identity_of_one: bytes, *, within_seconds: float) -> bool:
    """SIGKILL exactly this process, never another that got its number; True when it has ended."""
    named = json.loads(identity_of_one)
    pid = int(named["pid"])
    if pid == os.getpid():
        return False
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # The descriptor names one process for good, so checking after opening it is no race.
        if _start_of(pid) != named["start"]:
            return True
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return bool(select.select([descriptor], [], [], within_seconds)[0])
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)


def _start_of(pid: int) -> str:
    """Return a process's start time in clock ticks since boot (proc(5), field 22)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat.rpartition(")")[2].split()[19]


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")
