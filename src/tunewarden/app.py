"""The composition root: Config -> App. The one place that names implementations."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tunewarden.api.operations import Operations
from tunewarden.artifacts.adapters import Limits
from tunewarden.artifacts.directory import DirectoryBlobs
from tunewarden.artifacts.disk import LocalDisk
from tunewarden.artifacts.keyring import Keyring
from tunewarden.clock import Clock, SystemClock
from tunewarden.config import Config
from tunewarden.db.database import Database
from tunewarden.db.sqlite import SqliteDatabase
from tunewarden.deletion.executor import Executor
from tunewarden.deletion.expiry import Expiry
from tunewarden.deletion.inventory import Inventory
from tunewarden.deletion.log import Log
from tunewarden.deletion.log_key import LogSigner
from tunewarden.deletion.recovery import LogMark, Recovery
from tunewarden.deletion.steps import Steps
from tunewarden.errors import Error, Kind
from tunewarden.finetuning.parts import Parts
from tunewarden.finetuning.saved_state import SavedStates
from tunewarden.ids import token
from tunewarden.locks import ByteLocks
from tunewarden.registry import models, seen
from tunewarden.registry.drafts import Drafts
from tunewarden.registry.files import Files
from tunewarden.registry.imports import Imports
from tunewarden.registry.uploads import Uploads
from tunewarden.registry.usage import UsageCounter
from tunewarden.serving import engine_keys, scratch
from tunewarden.serving.admission import Admissions
from tunewarden.serving.embedded import EmbeddedEngine
from tunewarden.serving.engine_verbs import EngineVerbs
from tunewarden.serving.gateway import Gateway
from tunewarden.serving.kernel_locks import KernelLockFence
from tunewarden.serving.remote import RemoteEngine

EVICT_SECONDS = 5.0
LOG_MARK = "log.mark"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class App:
    """Everything that runs on one data directory, wired together."""

    config: Config
    clock: Clock
    database: SqliteDatabase
    blobs: DirectoryBlobs
    keyring: Keyring
    fence: KernelLockFence
    engine: EngineVerbs
    drafts: Drafts
    imports: Imports
    files: Files
    uploads: Uploads
    executor: Executor
    open_log: Callable[[], tuple[Log, LogSigner]]
    log_mark: LogMark


def open_app(config: Config, *, migrate: bool = False) -> App:
    """Open a data directory. `migrate` is for whoever starts the server. Raises Error(UNAVAILABLE)."""
    clock = SystemClock()
    if not migrate and not config.database.exists():
        raise Error(
            Kind.UNAVAILABLE,
            f"{config.data} is not a data directory. Start one with `tunewarden serve --data {config.data}`.",
        )
    for directory in (config.data, config.run, config.blobs, config.keyring):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = SqliteDatabase(config.database, clock, migrate=migrate)
    disk = LocalDisk()
    blobs = DirectoryBlobs(disk, config.blobs)
    keyring = Keyring(disk, config.keyring)
    fence = KernelLockFence(config.run, clock)
    engine = EngineVerbs(config.engine_socket, scratch.location(config.scratch, config.data))
    limits = Limits(max_rank=config.rank_max, max_weights_bytes=config.adapter_bytes_max)
    # Late: the log loads OpenSSL, which a worker that deletes nothing does not need.
    open_log = cache(lambda: _open_log(config, database))
    log_mark = LogMark(config.keyring / LOG_MARK)
    steps = Steps(
        database=database,
        clock=clock,
        fence=fence,
        engines=(engine,),
        keyring=keyring,
        blobs=blobs,
        open_log=open_log,
        mark_log=log_mark.raise_to,
        fence_seconds=config.fence_seconds,
        evict_seconds=EVICT_SECONDS,
    )
    executor = Executor(
        database,
        steps,
        clock,
        config.run / "deletions.locks",
        bound_seconds=config.deletion_seconds,
    )
    drafts = Drafts(database, keyring, blobs, config.run / "imports.locks")
    imports = Imports(
        database,
        keyring,
        blobs,
        drafts,
        limits,
        scratch_may_be_a_disk=config.scratch_may_be_a_disk,
    )
    files = Files(database, keyring, blobs, drafts)
    uploads = Uploads(database, keyring, blobs, drafts, files, config.upload_bytes_max)
    return App(
        config,
        clock,
        database,
        blobs,
        keyring,
        fence,
        engine,
        drafts,
        imports,
        files,
        uploads,
        executor,
        open_log,
        log_mark,
    )


def serving(app: App) -> Operations:
    """Return what a gateway worker serves. It joins the fence: only for a process that serves."""
    app.fence.join()
    keys = app.config.engine_keys
    embedded = EmbeddedEngine(
        app.config.engine_socket,
        scratch_directory(app.config),
        lambda n, directory: app.imports.unseal(models.by_n(app.database, n), directory),
    )
    return Operations(
        config=app.config,
        clock=app.clock,
        database=app.database,
        executor=app.executor,
        imports=app.imports,
        files=app.files,
        uploads=app.uploads,
        admissions=Admissions(app.database, app.fence),
        gateway=Gateway(
            embedded,
            lambda base: RemoteEngine(base.location, engine_keys.read(keys, base.name)),
            per_engine_max=app.config.requests_per_engine_max,
            per_model_max=app.config.requests_per_model_max,
        ),
        usage=UsageCounter(app.database, app.clock),
        open_log=app.open_log,
    )


def training(app: App) -> Parts:
    """Return what fine-tuning jobs are run with. Only for the background runner."""
    config = app.config
    return Parts(
        database=app.database,
        clock=app.clock,
        imports=app.imports,
        files=app.files,
        states=saved_states(app),
        scratch=scratch_directory(config),
        lock_file=config.run / "jobs.locks",
        jobs_max=config.training_jobs_max,
        threads=config.training_threads,
        rank=min(config.training_rank, config.rank_max),
        state_seconds=config.trainer_state_seconds,
    )


def saved_states(app: App) -> SavedStates:
    """Return what jobs go on from after a crash."""
    may = app.config.scratch_may_be_a_disk
    return SavedStates(app.database, app.keyring, app.blobs, app.drafts, scratch_may_be_a_disk=may)


def recover(app: App) -> None:
    """Settle what a crash left, before anything serves (D10). Deletions are resumed by the runner.

    Raises Error(UNAVAILABLE) where something cannot be trusted, with what to do.
    """
    app.keyring.recover()
    app.blobs.recover()
    app.open_log()[0].recover()
    settled = recovery(app).settle()
    app.fence.sweep()
    app.drafts.sweep()
    saved_states(app).sweep()
    scratch.sweep(scratch_directory(app.config))
    if settled.replayed or settled.without_key:
        logger.warning(
            "restored parts were found: %d deletions of the log are applied again, and %d models whose"
            " key is gone are being deleted",
            settled.replayed,
            settled.without_key,
        )


def inventory(app: App) -> Inventory:
    """Return the places where a model can be, for looking at and for sweeping."""
    return Inventory(
        app.database,
        app.keyring,
        app.blobs,
        scratch_directory(app.config),
        app.config.data,
        app.engine.models,
    )


def expiry(app: App) -> Expiry:
    """Return what ends files and uploads in time: for the one process that does (the runner)."""
    # Late, as above: `open_log` is asked when something is due.
    return Expiry(app.database, app.uploads, lambda: app.open_log()[0].size())  # noqa: PLW0108


def recovery(app: App) -> Recovery:
    """Return the check of restored parts (I10)."""
    log, signer = app.open_log()
    return Recovery(app.database, app.keyring, log, signer, app.log_mark)


@contextmanager
def with_no_server(config: Config) -> Iterator[None]:
    """Be the only one that runs on a data directory. Raises Error(CONFLICT) if a server does."""
    for directory in (config.data, config.run):  # `mode` is for the last one of a path only
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = ByteLocks(config.run / "server.lock")
    try:
        if not lock.try_exclusive(0):
            raise Error(Kind.CONFLICT, f"A server is already running on {config.data}.")
        yield
    finally:
        lock.close()


def scratch_directory(config: Config) -> Path:
    """Return where plain weights may be for a moment. Raises Error(UNAVAILABLE)."""
    return scratch.prepare(config.scratch, config.data, may_be_a_disk=config.scratch_may_be_a_disk)


def _open_log(config: Config, database: Database) -> tuple[Log, LogSigner]:
    """Open the log; make it only where nothing was ever deleted. Its name stands in its checkpoint."""
    checkpoint = config.log / "checkpoint"
    if checkpoint.exists():
        name = checkpoint.read_text("utf-8").partition("\n")[0]
        signer = LogSigner.create_or_load(config.signing_key, name)
        return Log(config.log, signer), signer
    was_written = LogMark(config.keyring / LOG_MARK).read() or seen.log_size(database)
    if was_written or database.peek("SELECT 1 FROM deletions LIMIT 1"):
        raise Error(
            Kind.UNAVAILABLE,
            "The deletion log is missing although models were deleted. Restore the newest copy of"
            f" {config.log.name}/ and {config.signing_key.name}, then start again.",
        )
    signer = LogSigner.create_or_load(config.signing_key, f"tunewarden.local/{token(12)}")
    return Log.create(config.log, signer), signer
