"""`python -m tunewarden.server.runner`: the background runner.

It adopts orphaned deletions (D9, D10), expires files and uploads, runs fine-tuning jobs, and
keeps every local base loaded in the embedded engine. It holds the leases of other engines, makes the
audit log's digests, sends webhooks, and runs the canary.
"""

import logging
import signal
import socket
import sys
import threading
from http.client import HTTPException
from pathlib import Path

from tunewarden import config, logs, processes
from tunewarden.app import (
    App,
    audit_digests,
    clock_watch,
    expiry,
    open_app,
    reserve,
    retention_runner,
    training,
)
from tunewarden.audit import refusals, retention
from tunewarden.canary.schedule import Schedule
from tunewarden.clock import Throttle, to_micros
from tunewarden.deletion import unfinished
from tunewarden.deletion.protocol import ANSWERED_AFTER, ORDER, Step
from tunewarden.deletion.retention import expiry_pause
from tunewarden.errors import Error
from tunewarden.finetuning import runner as finetuning
from tunewarden.identity import invites
from tunewarden.metrics import recording
from tunewarden.metrics.memory import Memory
from tunewarden.registry import bases, restore_marks, usage
from tunewarden.server import metrics_server, webhook_thread
from tunewarden.server.lease_threads import LeaseThreads

POLL_SECONDS = 0.05
RETRY_SECONDS = 1.0
AUDIT_SECONDS = 5.0
AUDIT_EXPIRY_SECONDS = 600.0
SWAP_NOTED_SECONDS = 60.0
USAGE_SECONDS = 60.0
# Between two transactions that drop usage.
USAGE_PAUSE_SECONDS = 0.02
# Erasing blobs (D9) yields to incoming deletions, whose responses need the same disk and
# locks; but not for longer than this.
QUIET_MICROS = 200_000
PATIENCE_MICROS = 5_000_000
# The keyring's self-check is delayed so that it does not slow start-up.
CHECK_AFTER_SECONDS = 10.0
# Less than the supervisor's timeout: trainers save their state in this time.
JOBS_STOP_SECONDS = 12.0
OTHERS_STOP_SECONDS = 1.0

NOTHING_EXPIRES = (
    "expiry is paused: the clock jumped by more than a day, or the server was off for as long."
    " Check the machine's clock, then run `tunewarden expiry resume`"
)

logger = logging.getLogger(__name__)


def main(data: str, parent: str, slot: str = "", counters: str = "", scraped: str = "") -> None:
    """Work until SIGTERM.

    `slot` is the runner's in the memory `counters`, a descriptor; `scraped` is a listening socket for metrics.
    """
    processes.die_with(int(parent))
    processes.keep_secrets_in_memory()
    settings = config.load(data=Path(data))
    logs.to_stderr("runner[%(process)d]", settings.log_format)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if counters:
        recording.join(int(counters), int(slot))
    app = open_app(settings)
    jobs = threading.Thread(target=_run_jobs, args=(app, stop), daemon=True)
    # Concurrently with deletions: loading a large base takes minutes.
    works = (
        _keep_bases_loaded, _keep_room, _expire, _check_keyring, _watch_swap, _hold_leases, _keep_audit,
        _drop_old_usage, webhook_thread.run, _apply_retention,
    )  # fmt: skip
    others = [threading.Thread(target=work, args=(app, stop), daemon=True) for work in works]
    if settings.canary_seconds:
        canaries = Schedule(app).run
        others.append(threading.Thread(target=canaries, args=(stop,), daemon=True))
    if scraped:
        given = app, socket.socket(fileno=int(scraped)), Memory(int(counters)), stop
        others.append(threading.Thread(target=metrics_server.serve, args=given, daemon=True))
    for thread in (jobs, *others):
        thread.start()
    _resume_deletions(app, stop)
    jobs.join(JOBS_STOP_SECONDS)
    # A thread that wakes up while the interpreter finalizes is unwound through native code, which may abort the process.
    # One that waits for the engine longer than this does not wake up then.
    until = app.clock.monotonic() + OTHERS_STOP_SECONDS
    for thread in others:
        thread.join(max(0.0, until - app.clock.monotonic()))


def _hold_leases(app: App, stop: threading.Event) -> None:
    LeaseThreads(app).run(stop)


def _resume_deletions(app: App, stop: threading.Event) -> None:
    logged = Throttle(app.clock)
    seen: object = None
    due = 0.0
    while not stop.is_set():
        now = app.clock.monotonic()
        stamp = app.database.stamp()
        # Any commit may mean work; leftovers are retried after a short pause.
        if stamp != seen or now >= due:
            seen = stamp
            pause = RETRY_SECONDS
            try:
                last = _last_step(app)
                # Checked again between groups of erasures, because new deletions may arrive.
                left = app.executor.resume(
                    last=last, may_go_on=lambda: _last_step(app) is not ANSWERED_AFTER
                )
                if last is ANSWERED_AFTER:
                    left += 1  # blobs that still wait to be erased
                    pause = QUIET_MICROS / 1_000_000
            except Error as error:
                _log(logged, error)
                left = 1
            due = now + pause if left else float("inf")
        stop.wait(POLL_SECONDS)


def _last_step(app: App) -> Step:
    """Return the last step to run now: the last of all, unless deletions are arriving."""
    now = to_micros(app.clock.now())
    newest, oldest = (
        unfinished.newest_request(app.database),
        unfinished.oldest_unerased(app.database),
    )
    # A request time in the future means that the clock was set back.
    is_quiet = newest is None or not 0 <= now - newest <= QUIET_MICROS
    is_late = oldest is not None and now - oldest > PATIENCE_MICROS
    return ORDER[-1] if is_quiet or is_late else ANSWERED_AFTER


def _check_keyring(app: App, stop: threading.Event) -> None:
    """Log damaged shards, once, in the background: start-up does not decrypt every shard."""
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
    """Run fine-tuning jobs. If this thread fails, the process exits and is restarted."""
    try:
        finetuning.run(training(app), stop)
    finally:
        stop.set()


def _expire(app: App, stop: threading.Event) -> None:
    """Expire files and uploads; the resulting deletions are then resumed like any other."""
    due = expiry(app)
    logged = Throttle(app.clock)
    while not stop.wait(RETRY_SECONDS):
        try:
            due.run()
            if expiry_pause.pause_of(app.database) and logged.allows(NOTHING_EXPIRES):
                logger.warning(NOTHING_EXPIRES)
        except Error as error:
            _log(logged, error)


def _apply_retention(app: App, stop: threading.Event) -> None:
    """Run the retention rules that are due, unless the clock cannot be trusted."""
    rules, watch = retention_runner(app), clock_watch(app)
    logged = Throttle(app.clock)
    while not stop.wait(RETRY_SECONDS):
        try:
            now = watch.trusted_now()
            if now is not None:
                rules.run_due(now, is_stopping=stop.is_set)
        except Error as error:
            _log(logged, error)


def _keep_audit(app: App, stop: threading.Event) -> None:
    """Make the audit log's daily digests, count refusals, and delete what has expired: events, and invites."""
    made = audit_digests(app)
    logged = Throttle(app.clock)
    expire_at = 0.0
    while not stop.wait(AUDIT_SECONDS):
        try:
            refusals.close_hours(app.database, app.clock)
            made.run()
            now = app.clock.monotonic()
            # Not by a clock that jumped, like all that expires.
            if now >= expire_at and not expiry_pause.pause_of(app.database):
                expire_at = now + AUDIT_EXPIRY_SECONDS
                retention.apply(app.database, to_micros(app.clock.now()))
                invites.forget_expired(app.database, to_micros(app.clock.now()))
        except Error as error:
            _log(logged, error)


def _drop_old_usage(app: App, stop: threading.Event) -> None:
    """Drop usage rows that are older than they are kept, a few at a time: deletions need the same lock."""
    logged = Throttle(app.clock)
    pause = USAGE_SECONDS
    while not stop.wait(pause):
        pause = USAGE_SECONDS
        try:
            # Not by a clock that jumped, as above; but minutes would fill the disk.
            is_paused = expiry_pause.pause_of(app.database) is not None
            if usage.drop_old(app.database, only_minutes=is_paused):
                pause = USAGE_PAUSE_SECONDS
        except Error as error:
            _log(logged, error)


def _watch_swap(app: App, stop: threading.Event) -> None:
    """Record for receipts that memory may be swapped to a disk: at once, and each minute while it may."""
    noted_at = float("-inf")
    while not stop.wait(RETRY_SECONDS):
        now = app.clock.monotonic()
        if now - noted_at >= SWAP_NOTED_SECONDS and app.memory.places():
            noted_at = now
            try:
                restore_marks.see_swap(app.database)
            except Error as error:
                logger.warning("%s", error.message)


def _keep_room(app: App, stop: threading.Event) -> None:
    """Maintain the disk reserve for deletions: at once, and whenever some of it was used."""
    kept = reserve(app)
    logged = Throttle(app.clock)
    while not stop.is_set():
        try:
            kept.restore()
        except Error as error:
            _log(logged, error)
        stop.wait(RETRY_SECONDS)


def _keep_bases_loaded(app: App, stop: threading.Event) -> None:
    """Make the engine load missing local bases; it may restart at any time."""
    logged = Throttle(app.clock)
    while not stop.wait(RETRY_SECONDS):
        try:
            local = bases.local(app.database)
            loaded = app.engine.bases() if local else set()
            for base in local:
                if base.name not in loaded:
                    app.engine.load_base(base.name, base.location)
        except Error as error:
            _log(logged, error)
        except (OSError, HTTPException, ValueError):
            pass  # It is starting or restarting.


def _log(logged: Throttle, error: Error) -> None:
    """Log an error that is retried each second at most once a minute."""
    if logged.allows(error.message):
        logger.warning("%s", error.message)


if __name__ == "__main__":
    main(*sys.argv[1:])
