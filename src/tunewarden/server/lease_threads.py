"""Holds the leases of all replicas that adapters are pushed to: a thread of the runner for each."""

import logging
import threading

from tunewarden.app import App
from tunewarden.clock import Throttle
from tunewarden.errors import Error
from tunewarden.registry import bases, replicas
from tunewarden.registry.bases import Base
from tunewarden.registry.replicas import Replica

LOOK_SECONDS = 0.25
STOP_SECONDS = 1.0

logger = logging.getLogger(__name__)


class LeaseThreads:
    """One thread for each replica; one that failed is started again."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._running: dict[int, tuple[threading.Thread, threading.Event]] = {}

    def run(self, stop: threading.Event) -> None:
        """Hold the leases until `stop`. A replica that joins gets a thread, and one that was removed loses it."""
        logged = Throttle(self._app.clock)
        while not stop.wait(LOOK_SECONDS):
            try:
                self._look()
            except Error as error:
                if logged.allows(error.message):
                    logger.warning("%s", error.message)
        for _, stopped in self._running.values():
            stopped.set()
        until = self._app.clock.monotonic() + STOP_SECONDS
        for thread, _ in self._running.values():
            thread.join(max(0.0, until - self._app.clock.monotonic()))

    def _look(self) -> None:
        wanted = {one.n: one for one in replicas.list_all(self._app.database) if one.is_pushed_to}
        for n, (thread, stopped) in list(self._running.items()):
            if n not in wanted or not thread.is_alive():
                stopped.set()
                del self._running[n]
        for n, replica in wanted.items():
            base = bases.find(self._app.database, replica.base)
            if n not in self._running and base is not None:
                self._running[n] = self._started(base, replica)

    def _started(self, base: Base, replica: Replica) -> tuple[threading.Thread, threading.Event]:
        stopped = threading.Event()
        agent = self._app.new_lease_agent(base, replica)
        thread = threading.Thread(target=agent.run, args=(stopped,), daemon=True)
        thread.start()
        return thread, stopped
