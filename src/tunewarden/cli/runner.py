"""`python -m tunewarden.cli.runner`: the background runner.

It adopts deletions that nobody works on (D9, D10), ends files and uploads whose time is over, and sees
to it that the embedded engine has every local base.
"""

import json
import logging
import signal
import sys
import threading
from http.client import HTTPException
from pathlib import Path

from tunewarden import config, processes
from tunewarden.app import App, expiry, open_app, training
from tunewarden.clock import to_micros
from tunewarden.deletion import records
from tunewarden.deletion.protocol import ANSWERED_AFTER, ORDER, Step
from tunewarden.errors import Error
from tunewarden.finetuning import runner as finetuning
from tunewarden.registry import bases

POLL_SECONDS = 0.05
RETRY_SECONDS = 1.0
# Erasing blobs (D9) waits while deletions come in, whose answers would wait for the same disk and
# locks; but not for long.
QUIET_MICROS = 200_000
PATIENCE_MICROS = 5_000_000
# What only looks leaves the processors to what has to be ready first.
CHECK_AFTER_SECONDS = 10.0
# Less than the supervisor waits: trainers are asked for their state meanwhile.
JOBS_STOP_SECONDS = 12.0

logger = logging.getLogger(__name__)


def main(data: str, parent: str) -> None:
    """Work until SIGTERM."""
    processes.die_with(int(parent))
    processes.keep_secrets_in_memory()
    logging.basicConfig(format="%(asctime)s %(levelname)s runner[%(process)d] %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    app = open_app(config.load(data=Path(data)))
    # Beside the deletions, not before them: loading a large base takes minutes.
    threading.Thread(target=_keep_bases_loaded, args=(app, stop), daemon=True).start()
    threading.Thread(target=_expire, args=(app, stop), daemon=True).start()
    threading.Thread(target=_check_keyring, args=(app, stop), daemon=True).start()
    jobs = threading.Thread(target=_run_jobs, args=(app, stop), daemon=True)
    jobs.start()
    _resume_deletions(app, stop)
    jobs.join(JOBS_STOP_SECONDS)


def _resume_deletions(app: App, stop: threading.Event) -> None:
    seen: object = None
    due = 0.0
    while not stop.is_set():
        now = app.clock.monotonic()
        stamp = app.database.stamp()
        # Anything committed since may be work; what is left over is tried again a little later.
        if stamp != seen or now >= due:
            seen = stamp
            pause = RETRY_SECONDS
            try:
                last = _last_step(app)
                # New ones may come in while it works: it asks again between groups of erasures.
                left = app.executor.resume(
                    last=last, may_go_on=lambda: _last_step(app) is not ANSWERED_AFTER
                )
                if last is ANSWERED_AFTER:
                    left += 1  # what was not looked at: blobs that wait for quiet
                    pause = QUIET_MICROS / 1_000_000
            except Error as error:
                logger.warning("%s", error.message)
                left = 1
            due = now + pause if left else float("inf")
        stop.wait(POLL_SECONDS)


def _last_step(app: App) -> Step:
    """Return how far to go now: to the end, unless deletions are just coming in."""
    now = to_micros(app.clock.now())
    newest, oldest = records.newest_request(app.database), records.oldest_unerased(app.database)
    # One from the future came before the clock was set back.
    is_quiet = newest is None or not 0 <= now - newest <= QUIET_MICROS
    is_late = oldest is not None and now - oldest > PATIENCE_MICROS
    return ORDER[-1] if is_quiet or is_late else ANSWERED_AFTER


def _check_keyring(app: App, stop: threading.Event) -> None:
    """Say which shards are damaged, once: the start did not wait for every one to be opened."""
    if stop.wait(CHECK_AFTER_SECONDS):
        return
    try:
        for shard in app.keyring.damaged():
            logger.error(
                "shard %06d of the keyring is damaged: restore the keyring's mirror", shard
            )
    except Error as error:
        logger.warning("%s", error.message)


def _run_jobs(app: App, stop: threading.Event) -> None:
    """Work on fine-tuning jobs. Without this thread the process is of no use, and is started anew."""
    try:
        finetuning.run(training(app), stop)
    finally:
        stop.set()


def _expire(app: App, stop: threading.Event) -> None:
    """End files and uploads whose time is over; what that leaves to do is a deletion's."""
    due = expiry(app)
    while not stop.wait(RETRY_SECONDS):
        try:
            due.run()
        except Error as error:
            logger.warning("%s", error.message)


def _keep_bases_loaded(app: App, stop: threading.Event) -> None:
    """Make the engine load the local bases that it does not have; it may be started anew at any time."""
    while not stop.wait(RETRY_SECONDS):
        try:
            local = bases.local(app.database)
            loaded = app.engine.bases() if local else set()
            for base in local:
                if base.name not in loaded:
                    app.engine.load_base(base.name, base.location)
        except Error as error:
            logger.warning("%s", error.message)
        except (OSError, HTTPException, json.JSONDecodeError):
            pass  # It is starting, or being started again.


if __name__ == "__main__":
    main(*sys.argv[1:])
