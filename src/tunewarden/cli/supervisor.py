"""The supervisor: starts workers, runner and engine, and starts again what dies.

It serves nothing itself. The listening socket is opened here and shared, so that a worker that is
stopped or dead leaves no connection waiting in a queue of its own.
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tunewarden import config, processes
from tunewarden.app import App
from tunewarden.errors import Error, Kind
from tunewarden.registry import bases

# What the embedded engine and the runner run; tests put stand-ins here.
ENGINE = "tunewarden.engine.worker"
RUNNER = "tunewarden.cli.runner"
POLL_SECONDS = 0.05
STOP_SECONDS = 15.0
# A process that dies again within this time is started again after it, not at once.
BACKOFF_SECONDS = 1.0
# A process that is stopped may hold a lock that others need; half of what a deletion may take (I13).
FROZEN_SECONDS = 5.0

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Child:
    name: str
    command: list[str]
    descriptors: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started: float = float("-inf")
    stopped_since: float | None = None


class Supervisor:
    """All processes of one server."""

    def __init__(self, app: App, listening: socket.socket) -> None:
        self._app = app
        self._children: list[_Child] = []
        self._stop = threading.Event()
        self._has_engine = False
        # Workers read from it before they serve; it ends when `run` closes our side.
        gate, self._gate = os.pipe()
        self._data, self._pid = str(app.config.data), str(os.getpid())
        descriptors = (listening.fileno(), gate)
        for number in range(app.config.workers):
            command = ["tunewarden.cli.worker", self._data, *map(str, descriptors), self._pid]
            self._children.append(_Child(f"worker {number}", command, descriptors))

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Have the workers load their code while the block prepares what they will serve."""
        try:
            for child in self._children:
                self._keep(child)
            yield
        except BaseException:
            self._stop_all()
            raise

    def run(self, while_starting: Callable[[], bool]) -> None:
        """Keep everything running until SIGTERM or SIGINT, then stop it all.

        `while_starting` is called again and again until it returns True.
        """
        for stopping in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stopping, lambda *_: self._stop.set())
        os.close(self._gate)
        self._children.append(_Child("runner", [RUNNER, self._data, self._pid]))
        is_ready = False
        try:
            while not self._stop.is_set():
                self._want_engine()
                for child in self._children:
                    self._keep(child)
                is_ready = is_ready or while_starting()
                self._stop.wait(POLL_SECONDS)
        finally:
            self._stop_all()

    def _want_engine(self) -> None:
        """Have an engine as soon as a local base is registered."""
        if self._has_engine:
            return
        if bases.local(self._app.database):
            self._has_engine = True
            socket_path = str(self._app.config.engine_socket)
            command = [ENGINE, "--socket", socket_path, "--parent", self._pid]
            if self._app.config.engine_threads:
                command += ["--threads", str(self._app.config.engine_threads)]
            if self._app.config.engine_dtype != "float32":  # its own default
                command += ["--dtype", self._app.config.engine_dtype]
            self._children.append(_Child("engine", command))

    def _keep(self, child: _Child) -> None:
        """Start a child that is not running, at once or after a pause if it died just before."""
        now = self._app.clock.monotonic()
        if child.process is not None:
            status = child.process.poll()
            if status is None:
                self._end_if_frozen(child, now)
            if status is None or now - child.started < BACKOFF_SECONDS:
                return
            logger.warning("%s ended with status %s and is started again", child.name, status)
            # Without this, receipts would name every worker that ever died.
            self._app.fence.sweep()
        child.started, child.stopped_since = now, None
        child.process = subprocess.Popen(
            [sys.executable, "-m", *child.command],
            pass_fds=child.descriptors,
            env=config.child_environment(),
            # A terminal's Ctrl-C must reach the supervisor alone, which then stops in order.
            start_new_session=True,
        )

    def _end_if_frozen(self, child: _Child, now: float) -> None:
        """Kill a child that was stopped (SIGSTOP, a frozen terminal) and holds up the others' locks."""
        if child.process is None or not processes.is_stopped(child.process.pid):
            child.stopped_since = None
            return
        child.stopped_since = child.stopped_since or now
        if now - child.stopped_since > FROZEN_SECONDS:
            logger.warning("%s was stopped for too long and is killed", child.name)
            child.process.kill()

    def _stop_all(self) -> None:
        """Ask every child to stop, workers first to finish what runs; kill what does not."""
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = self._app.clock.monotonic() + STOP_SECONDS
        for process in running:
            try:
                process.wait(timeout=max(0.0, deadline - self._app.clock.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket. Raises Error(UNAVAILABLE)."""
    try:
        return socket.create_server((host, port), family=_family(host), backlog=2048)
    except OSError as error:
        raise Error(
            Kind.UNAVAILABLE,
            f"Cannot listen on {host}:{port}: {error.strerror}. Choose another with --port.",
        ) from error


def note_address(app: App, url: str) -> None:
    """Tell the commands that are run on this data directory where its server listens."""
    path = app.config.run / "server.json"
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"url": url, "pid": os.getpid()}), "utf-8")
    new.rename(path)  # a command that reads it meanwhile finds the old one or the new one, whole


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
