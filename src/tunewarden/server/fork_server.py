"""The fork server: imports the code of the workers and of the runner once, and forks them from there.

    supervisor ── module, arguments, descriptors ──> fork server ── fork ──> (ends at once) ── fork ──> child
               <──────────────────────── the child's pid ────────────────────────

A fork takes milliseconds where importing takes half a second, and the children share the memory of what was imported.

The process between them ends at once, so the supervisor, as subreaper, becomes the child's parent: it collects the
child's status, the child dies with it, and the death of a fork server ends no worker.

A fork copies one thread, every lock, and every open file. So the fork server has one thread, opens nothing of a data
directory, and does nothing but this.
"""

import gc
import json
import os
import socket
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Self

from tunewarden import config, processes

IMPORTED = ("tunewarden.server.worker", "tunewarden.server.runner")
# A fork takes milliseconds, but the first one waits for the imports, on a machine that may be busy.
FORK_SECONDS = 60.0
# A killed process ends once it gets a processor.
KILL_SECONDS = 10.0
REQUEST_BYTES_MAX = 64 * 1024
DESCRIPTORS_MAX = 4


class ForkServer:
    """The supervisor's side. The process runs during the block."""

    def __init__(self) -> None:
        self._channel: socket.socket | None = None
        self.pid = 0

    def __enter__(self) -> Self:
        processes.adopt_orphans()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        processes.kill(self._identity, within_seconds=KILL_SECONDS)

    def start(self) -> int:
        """Start the process, which then imports; return its pid."""
        self._close()
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            theirs.set_inheritable(True)
            self._channel.settimeout(FORK_SECONDS)
            arguments = [str(theirs.fileno()), str(os.getpid())]
            self.pid = processes.start_module(__name__, arguments, config.child_environment())
        self._identity = processes.identity(self.pid)
        return self.pid

    def fork(self, module: str, arguments: Sequence[str], *descriptors: int) -> int:
        """Fork a child that calls `main` of this module with these arguments, then its descriptors; return its pid.

        Raises OSError if the fork server has ended or does not answer, which then ends when it can.
        """
        if self._channel is None:
            raise ConnectionError("the fork server does not answer")
        request = json.dumps({"module": module, "arguments": list(arguments)}).encode()
        try:
            socket.send_fds(self._channel, [request], list(descriptors))
            answer = self._channel.recv(REQUEST_BYTES_MAX)
        except OSError:
            self._close()
            raise
        if not answer:
            raise ConnectionError("the fork server has ended")
        return int(answer)

    def _close(self) -> None:
        """Let the process end."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def main(descriptor: str, parent: str) -> None:
    """Import, then fork a child for each request, until the supervisor closes its end."""
    processes.die_with(int(parent))
    processes.keep_secrets_in_memory()
    gc.disable()  # What is imported stays, so looking for garbage among it is in vain.
    for name in IMPORTED:
        import_module(name)
    gc.freeze()
    channel = socket.socket(fileno=int(descriptor))
    while True:
        request, descriptors, *_ = socket.recv_fds(
            channel, REQUEST_BYTES_MAX, DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
        )
        if not request:
            return
        if _fork(channel):
            break
        for one in descriptors:
            os.close(one)
    channel.close()
    gc.enable()
    read = json.loads(request)
    processes.set_command_line([sys.executable, "-m", read["module"]])
    import_module(read["module"]).main(*read["arguments"], *map(str, descriptors))


def _fork(channel: socket.socket) -> bool:
    """Fork a child whose parent is the supervisor, and send its pid; True in the child."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return False
    between, number = processes.identity(), os.getpid()
    try:
        child = os.fork()
        if child:
            channel.send(str(child).encode())
    finally:
        if os.getpid() == number:
            os._exit(0)
    os.setsid()  # A terminal's Ctrl-C must reach the supervisor only.
    processes.ends(between, within_seconds=FORK_SECONDS)
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
