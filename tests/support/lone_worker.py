"""One real gateway worker and nothing beside it: no runner, so that rows stay as a test wrote them."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from tests.support import servers
from tests.support.servers import Server

from tunewarden.metrics.memory import Memory
from tunewarden.token_buckets import memory as token_buckets


class LoneWorker(Server):
    """A worker as the supervisor starts it, on a data directory that the test prepared."""

    program: ClassVar[str] = "tunewarden.server.worker"

    def _start(self) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as listening,
            self._file("stdout").open("ab") as out,
            self._file("stderr").open("ab") as err,
        ):
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
            self.counters = Memory.create(1)
            self.buckets = token_buckets.Memory.create()
            descriptors = (
                listening.fileno(),
                self.counters.descriptor,
                self.buckets.descriptor,
            )
            given = [str(os.getpid()), "0", *map(str, descriptors)]
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.program, str(self.data), *given],
                stdout=out,
                stderr=err,
                pass_fds=descriptors,
                env=servers.environment(self.settings) | {"TMPDIR": str(self.tmp)},
            )
        servers.wait_until(self._is_ready, "the worker answers", servers.START_SECONDS)

    def stop(self) -> None:
        """SIGTERM; it must end by it in time."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=servers.STOP_SECONDS)
        shutil.rmtree(self.scratch, ignore_errors=True)
        assert self.process.returncode == 0, self.log()

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log()
        with contextlib.suppress(OSError):
            return self.get("/readyz").status == 200
        return False


@contextlib.contextmanager
def serving(data: Path) -> Iterator[LoneWorker]:
    """Run one with the tiny base for a block."""
    servers.prepare_local_base(data)
    worker = LoneWorker(data)
    with servers.stopped_after(worker):
        yield worker
