"""Process control: die with the parent, no core dumps, and race-free kill by pidfd."""

import ctypes
import json
import os
import resource
import select
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
# Indexes, among the fields that `_stat` returns, of the addresses where a process's arguments begin and end (proc(5)).
ARG_START, ARG_END = 45, 46


def keep_secrets_in_memory() -> None:
    """Disable core dumps and ptrace by other processes (PR_SET_DUMPABLE, prctl(2)). I16."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(PR_SET_DUMPABLE, 0)


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends for any reason (PR_SET_PDEATHSIG)."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)  # the parent ended before prctl


def adopt_orphans() -> None:
    """Become the parent of all descendants whose parent ends (PR_SET_CHILD_SUBREAPER); `ended` collects them."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def start_module(module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Start `python -m module`, with the inheritable descriptors, in a new session; return its pid.

    A terminal's Ctrl-C must reach the supervisor only, which then shuts down gracefully.
    """
    command = [sys.executable, "-m", module, *arguments]
    return os.posix_spawn(
        sys.executable, command, environment, setsid=True, setsigdef=[signal.SIGPIPE]
    )


def ended() -> Iterator[tuple[int, int]]:
    """Yield pid and status, negative for a signal, of each child that has ended since."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def set_command_line(command: Sequence[str]) -> None:
    """Set what `ps` shows of this process, as far as there is room."""
    fields = _stat(os.getpid())
    start, end = int(fields[ARG_START]), int(fields[ARG_END])
    room = end - start
    shown = "\0".join(command).encode()[: room - 1].ljust(room, b"\0")
    ctypes.memmove(start, shown, room)


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped by a signal: state T in proc(5)'s stat."""
    return _stat(pid)[:1] == ["T"]


def identity(pid: int | None = None) -> bytes:
    """Return a unique identity (pid and start time) of a process, this one by default: pids are reused."""
    number = os.getpid() if pid is None else pid
    return json.dumps({"pid": number, "start": start_of(number)}).encode()


def start_of(pid: int) -> str:
    """Return a process's start time in clock ticks since boot."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def is_gone(pid: int, start: str) -> bool:
    """Return whether the process that had this pid and start time has ended."""
    return start_of(pid) != start


def kill(identity_of_one: bytes, *, within_seconds: float) -> bool:
    """SIGKILL this process, never another with a reused pid; True once it has ended."""
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
    """Wait for this process's end; True once all its descriptors are closed.

    Its locks may be free earlier: the kernel closes an exiting process's files one by one.
    """
    with _opened(identity_of_one) as descriptor:
        return descriptor is None or _has_ended(descriptor, within_seconds)


def time_used(identity_of_one: bytes) -> int:
    """Return the CPU time of this process in clock ticks (proc(5)); 0 if it has ended."""
    named = json.loads(identity_of_one)
    fields = _stat(int(named["pid"]))
    return int(fields[11]) + int(fields[12]) if fields and fields[19] == named["start"] else 0


@contextmanager
def _opened(identity_of_one: bytes) -> Iterator[int | None]:
    """Open a pidfd (pidfd_open(2)); None if the process has ended."""
    named = json.loads(identity_of_one)
    pid = int(named["pid"])
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # The pid cannot be reused while the pidfd is open, so checking the identity now is race-free.
        yield descriptor if start_of(pid) == named["start"] else None
    finally:
        os.close(descriptor)


def _has_ended(descriptor: int, within_seconds: float) -> bool:
    # A pidfd is readable when the last thread has ended, which is after the files were closed.
    return bool(select.select([descriptor], [], [], within_seconds)[0])


def _stat(pid: int) -> list[str]:
    """Return the fields of proc(5)'s stat from the third (state) on; none if the process has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return stat.rpartition(")")[2].split()


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")
