"""Our processes: each dies with its parent and leaves no core dump; how one kills exactly another."""

import ctypes
import json
import os
import resource
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
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
    with _opened(identity_of_one) as descriptor:
        if descriptor is None:
            return True
        if json.loads(identity_of_one)["pid"] == os.getpid():
            return False
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            return True
        return _has_ended(descriptor, within_seconds)


def ends(identity_of_one: bytes, *, within_seconds: float) -> bool:
    """Wait for the end of exactly this process; True when all that it had open is closed.

    Its locks may be free before: the kernel closes an ended process's files one by one.
    """
    with _opened(identity_of_one) as descriptor:
        return descriptor is None or _has_ended(descriptor, within_seconds)


@contextmanager
def _opened(identity_of_one: bytes) -> Iterator[int | None]:
    """Open what names one process for good (pidfd_open(2)); None if it is no more."""
    named = json.loads(identity_of_one)
    pid = int(named["pid"])
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # The number cannot be given again while the descriptor is open, so checking now is no race.
        yield descriptor if _start_of(pid) == named["start"] else None
    finally:
        os.close(descriptor)


def _has_ended(descriptor: int, within_seconds: float) -> bool:
    # Readable when its last thread has ended, which is after its files were closed.
    return bool(select.select([descriptor], [], [], within_seconds)[0])


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
