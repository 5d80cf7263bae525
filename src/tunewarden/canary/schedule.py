"""When the canary runs: on each base in each interval, one base after the other. A thread of the runner."""

import json
import logging
import threading
from http.client import HTTPException

from tunewarden.app import App
from tunewarden.canary import adapter, runs
from tunewarden.canary.account import Account
from tunewarden.canary.run import Canary
from tunewarden.canary.runs import Outcome, Result
from tunewarden.clock import Throttle, to_micros
from tunewarden.errors import Error
from tunewarden.metrics import families, recording
from tunewarden.registry import bases
from tunewarden.registry.bases import Base, BaseKind

LOOK_SECONDS = 1.0
# What could not be done is tried again after so long, if the interval is longer.
RETRY_SECONDS = 60.0
MICROS = 1_000_000

logger = logging.getLogger(__name__)


class Schedule:
    """The runs of one server."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._account = Account(app.database)
        self._logged = Throttle(app.clock)
        # Each run is a line, also one that passed.
        logger.setLevel(logging.INFO)

    def run(self, stop: threading.Event) -> None:
        """Run until `stop`."""
        while not stop.wait(LOOK_SECONDS):
            try:
                for base in self._due():
                    if not stop.is_set():
                        self._try(base, stop)
            except Error as error:
                if self._logged.allows(error.message):
                    logger.warning("the canary cannot run: %s", error.message)

    def _due(self) -> list[Base]:
        now, last = to_micros(self._app.clock.now()), runs.last(self._app.database)
        found = [one for one in bases.list_all(self._app.database) if adapter.can_be_made(one)]
        due = [base for base in found if self._is_due(last.get(base.name), now)]
        return [base for base in due if self._is_loaded(base)]

    def _is_loaded(self, base: Base) -> bool:
        """Return whether the engine has a base; of remote ones, the run will show it."""
        if base.kind is not BaseKind.LOCAL:
            return True
        try:
            return base.name in self._app.engine.bases(within_seconds=LOOK_SECONDS)
        except (OSError, HTTPException, ValueError):
            return False  # It is starting or restarting.

    def _is_due(self, run: runs.Run | None, now: int) -> bool:
        if run is None:
            return True
        pause = self._app.config.canary_seconds
        if run.outcome.result is Result.NOT_DONE:
            pause = min(pause, RETRY_SECONDS)
        # An end in the future means that the clock was set back.
        return not 0 <= now - run.ended_at < pause * MICROS

    def _try(self, base: Base, stop: threading.Event) -> None:
        began_at = to_micros(self._app.clock.now())
        # Written anew at each start, and read each time: the supervisor may write it after this thread began.
        noted = self._app.config.run / "server.json"
        try:
            url = str(json.loads(noted.read_text("utf-8"))["url"])
        except FileNotFoundError:
            return
        outcome = Canary(self._app, self._account, url).run(base)
        if stop.is_set():
            return  # The server is stopping, so nothing is known.
        runs.record(self._app.database, base.name, outcome, began_at)
        self._tell(base, outcome)

    def _tell(self, base: Base, outcome: Outcome) -> None:
        recording.count(families.CANARY_RUNS, base.name, outcome.result.value)
        if outcome.deletion_micros is not None:
            seconds = outcome.deletion_micros / MICROS
            recording.observe(families.CANARY_DELETION, seconds, "answered")
        if outcome.erased_micros is not None:
            recording.observe(families.CANARY_DELETION, outcome.erased_micros / MICROS, "erased")
        said = "; ".join(outcome.found)
        if outcome.result is Result.FAILED:
            logger.error("the canary of %s FAILED: %s", base.name, said)
        elif outcome.result is Result.NOT_DONE:
            if self._logged.allows(said):
                logger.warning("the canary of %s was not done: %s", base.name, said)
        else:
            logger.info("the canary of %s passed: %s", base.name, times(outcome))


def times(outcome: Outcome) -> str:
    """Return an outcome's times in words."""
    deletion, erased = outcome.deletion_micros, outcome.erased_micros
    if deletion is None or erased is None:
        return "no times"
    return (
        f"DELETE answered after {deletion / 1000:.0f} ms, blobs erased after {erased / 1000:.0f} ms"
    )
