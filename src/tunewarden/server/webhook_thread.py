"""The runner's thread that sends webhooks, and keeps outbox and log within their bounds."""

import logging
import threading

from tunewarden.app import App
from tunewarden.clock import Throttle
from tunewarden.deletion.retention import expiry_pause
from tunewarden.errors import Error
from tunewarden.webhooks import wiring
from tunewarden.webhooks.sweeping import Sweeper

RETRY_SECONDS = 1.0
SWEEP_SECONDS = 60.0

logger = logging.getLogger(__name__)


def run(app: App, stop: threading.Event) -> None:
    """Send until `stop`. What is in flight then is sent again at the next start."""
    sender = wiring.sender(app.database, app.clock, app.config, app.open_log)
    sweeper = Sweeper(app.database)
    logged = Throttle(app.clock)
    sweep_at = 0.0
    while not stop.is_set():
        try:
            sender.turn()
            now = app.clock.monotonic()
            # Not by a clock that jumped, like all that expires.
            if now >= sweep_at and not expiry_pause.pause_of(app.database):
                sweep_at = now + (RETRY_SECONDS if sweeper.run() else SWEEP_SECONDS)
        except Error as error:
            if logged.allows(error.message):
                logger.warning("%s", error.message)
            stop.wait(RETRY_SECONDS)
        sender.wait()
    try:
        sender.stop()
    except Error as error:
        logger.warning("%s", error.message)
