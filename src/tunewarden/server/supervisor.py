"""The supervisor: starts workers, runner and engine, and restarts those that die.

It serves nothing itself. It opens the listening socket and shares it, so that a stopped or dead
worker leaves no connections in a backlog of its own. Workers and runner are forks of the fork server, and children of
the supervisor all the same (`server/fork_server.py`).
"""

import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tunewarden import config, processes, space
from tunewarden.app import App
from tunewarden.errors import Error, Kind
from tunewarden.metrics import families, recording
from tunewarden.metrics.memory import Memory as Counters
from tunewarden.registry import bases
from tunewarden.server.fork_server import ForkServer
from tunewarden.token_buckets.memory import Memory

# Modules of the children; tests replace some.
WORKER = "tunewarden.server.worker"
ENGINE = "tunewarden.embedded_engine.worker"
RUNNER = "tunewarden.server.runner"
POLL_SECONDS = 0.05
# Shutdown timeouts: of the runner, from when accepting stops; of the engine, from when no worker is left.
RUNNER_STOP_SECONDS = 15.0
ENGINE_STOP_SECONDS = 5.0
# A worker that has not ended this long after its drain timeout is killed.
WORKER_STOP_SECONDS = 2.0
# Time for a worker to end its streams after a second signal.
HURRY_SECONDS = 0.7
# A process that dies again within this time is restarted only after it (back-off).
BACKOFF_SECONDS = 1.0
# Back-off for an engine whose packages are missing; they may be installed in the meantime.
NOT_INSTALLED_SECONDS = 60.0
# A stopped process may hold a lock that others need: half of a deletion's timeout (I13).
FROZEN_SECONDS = 5.0

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Child:
    """`pid` is 0 while it does not run; `status` is that of its last end."""

    name: str
    start: Callable[[], int]
    pid: int = 0
    status: int | None = None
    started: float = float("-inf")
    stopped_since: float | None = None


class Supervisor:
    """All processes of one server."""

    def __init__(
        self,
        app: App,
        listening: socket.socket,
        fork_server: ForkServer,
        scraped: socket.socket | None = None,
    ) -> None:
        """`scraped` is where the runner answers with metrics, if at all."""
        self._app = app
        self._listening = listening
        self._signals = 0
        self._has_engine = False
        self._fork_server = fork_server
        workers = app.config.workers
        counters = Counters.create(workers + 2)
        recording.join(counters.descriptor, workers + 1)
        arguments = [str(app.config.data), str(os.getpid())]
        buckets = Memory.create()
        fork = fork_server.fork
        # In the order of their start.
        self._children = [_Child("fork server", fork_server.start, pid=fork_server.pid)]
        for number in range(workers):
            given = [*arguments, str(number)]
            passed = [listening.fileno(), counters.descriptor, buckets.descriptor]
            start = partial(fork, WORKER, given, *passed)
            self._children.append(_Child(f"worker {number}", start))
        passed = [counters.descriptor, *([] if scraped is None else [scraped.fileno()])]
        start = partial(fork, RUNNER, [*arguments, str(workers)], *passed)
        self._children.append(_Child("runner", start))

    def run(self, while_starting: Callable[[], bool]) -> None:
        """Keep everything running until SIGTERM or SIGINT, then shut down.

        `while_starting` is called repeatedly until it returns True.
        """
        for stopping in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stopping, self._take_signal)
        is_ready = False
        try:
            while not self._signals:
                self._want_engine()
                self._keep(self._children)
                is_ready = is_ready or while_starting()
                self._app.clock.sleep(POLL_SECONDS)
        finally:
            try:
                self._drain()
            finally:
                self._kill(self._children)

    def _take_signal(self, *_: object) -> None:
        # A counter, not an Event: the interrupted code may hold the Event's lock.
        self._signals += 1

    def _want_engine(self) -> None:
        """Start an engine once a local base is registered."""
        if self._has_engine:
            return
        if bases.local(self._app.database):
            self._has_engine = True
            socket_path = str(self._app.config.engine_socket)
            options = ["--socket", socket_path, "--parent", str(os.getpid())]
            if self._app.config.engine_threads:
                options += ["--threads", str(self._app.config.engine_threads)]
            if self._app.config.engine_dtype != "float32":  # its own default
                options += ["--dtype", self._app.config.engine_dtype]
            if self._app.config.log_format != "text":  # the same
                options += ["--log-format", self._app.config.log_format]
            # A program of its own: nothing that it imports is of use to others.
            start = partial(processes.start_module, ENGINE, options, config.child_environment())
            self._children.append(_Child("engine", start))

    def _keep(self, children: list[_Child]) -> None:
        """Start the children that do not run, after a back-off if they died just before."""
        self._collect()
        for child in children:
            now = self._app.clock.monotonic()
            if child.pid:
                self._end_if_frozen(child, now)
            elif child.status is None or now - child.started >= _pause(child.status):
                self._start(child, now)

    def _start(self, child: _Child, now: float) -> None:
        if child.status is not None:
            recording.count(families.RESTARTS, child.name.rstrip(" 0123456789"))
            if child.status != os.EX_UNAVAILABLE:
                logger.warning("%s ended with status %s and is restarted", child.name, child.status)
            # Otherwise receipts would list every worker that ever died.
            self._app.fence.sweep()
        child.started, child.stopped_since = now, None
        try:
            child.pid = child.start()
        except OSError as error:
            child.status = os.EX_OSERR
            logger.warning("%s could not be started: %s", child.name, error)

    def _collect(self) -> None:
        """Note which children have ended; the others are orphans of those."""
        for pid, status in processes.ended():
            for child in self._children:
                if child.pid == pid:
                    child.pid, child.status = 0, status

    def _end_if_frozen(self, child: _Child, now: float) -> None:
        """Kill a child that was stopped (SIGSTOP, a frozen terminal) and may hold locks that others need."""
        if not processes.is_stopped(child.pid):
            child.stopped_since = None
            return
        child.stopped_since = child.stopped_since or now
        if now - child.stopped_since > FROZEN_SECONDS:
            logger.warning("%s was stopped for too long and was killed", child.name)
            os.kill(child.pid, signal.SIGKILL)

    def _drain(self) -> None:
        """Graceful shutdown: stop accepting, drain the workers, then stop the engine.

        Returns early at a second signal; the caller then kills the rest.
        """
        config, clock = self._app.config, self._app.clock
        workers = [child for child in self._children if child.name.startswith("worker")]
        # The fork server is killed at the end: it has nothing to finish.
        fork_server = self._children[:1]
        others = [child for child in self._children if child not in [*fork_server, *workers]]
        _signal(workers, signal.SIGTERM)
        closing = clock.monotonic() + config.drain_delay_seconds
        while clock.monotonic() < closing and self._signals <= 1:
            self._keep([*fork_server, *others])
            clock.sleep(POLL_SECONDS)
        self._refuse_connections()
        _signal(
            [child for child in others if child.name == "runner"], signal.SIGTERM
        )  # Jobs save their state.
        refused = clock.monotonic()
        if not self._wait(workers, refused + config.drain_seconds + WORKER_STOP_SECONDS):
            _signal(workers, signal.SIGTERM)
            self._wait(workers, clock.monotonic() + HURRY_SECONDS, is_hurried=True)
        self._kill(workers)
        _signal(others, signal.SIGTERM)
        end = max(refused + RUNNER_STOP_SECONDS, clock.monotonic() + ENGINE_STOP_SECONDS)
        self._wait(others, end)

    def _refuse_connections(self) -> None:
        """Stop accepting on every copy of the listening socket, even a hung worker's (shutdown(2))."""
        with contextlib.suppress(OSError):  # already shut down
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _wait(self, children: list[_Child], until: float, *, is_hurried: bool = False) -> bool:
        """Wait for children to end; False at a second signal."""
        clock = self._app.clock
        while clock.monotonic() < until and any(child.pid for child in children):
            if self._signals > 1 and not is_hurried:
                return False
            clock.sleep(POLL_SECONDS)
            self._collect()
        return True

    def _kill(self, children: list[_Child]) -> None:
        _signal(children, signal.SIGKILL)
        while any(child.pid for child in children):
            self._collect()
            self._app.clock.sleep(POLL_SECONDS)


def _pause(status: int) -> float:
    return NOT_INSTALLED_SECONDS if status == os.EX_UNAVAILABLE else BACKOFF_SECONDS


def _signal(children: list[_Child], number: signal.Signals) -> None:
    for child in children:
        if child.pid:  # not collected, so nobody else can have this pid
            os.kill(child.pid, number)


def listen(host: str, port: int, *, setting: str = "--port") -> socket.socket:
    """Open a listening socket. Raises Error(UNAVAILABLE), which names the setting."""
    try:
        return socket.create_server((host, port), family=_family(host), backlog=2048)
    except OSError as error:
        raise Error(
            Kind.UNAVAILABLE,
            f"Cannot listen on {host}:{port}: {error.strerror}. Choose another with {setting}.",
        ) from error


def note_address(app: App, url: str, **also: object) -> None:
    """Write the server's address to the data directory, for commands, and what else others need of it."""
    path = app.config.run / "server.json"
    noted = {"url": url, "pid": os.getpid()} | {name: one for name, one in also.items() if one}

    def write() -> None:
        new = path.with_suffix(".new")
        with space.translated():
            new.write_text(json.dumps(noted), "utf-8")
        new.rename(path)  # atomic rename: readers see the old or the new address

    app.ballast.run(write)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
