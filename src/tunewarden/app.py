"""The composition root: Config -> App, whose fields are ports. Only `open_app` names drivers."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, partial
from pathlib import Path

from tunewarden.api.operations import Operations
from tunewarden.artifacts.adapters import Limits
from tunewarden.artifacts.blobs import ErasableBlobs
from tunewarden.artifacts.directory import DirectoryBlobs
from tunewarden.artifacts.directory_keyring import DirectoryKeyring
from tunewarden.artifacts.disk import LocalDisk
from tunewarden.artifacts.keyring import Keyring
from tunewarden.artifacts.plain_memory import PlainMemory
from tunewarden.clock import Clock, SystemClock
from tunewarden.config import Config
from tunewarden.db.database import Database, Tx
from tunewarden.db.sqlite import SqliteDatabase
from tunewarden.deletion.bulk.bulk_deletions import BulkDeletions
from tunewarden.deletion.executor import Executor
from tunewarden.deletion.holders import Holders, NewControl
from tunewarden.deletion.inventory import Inventory
from tunewarden.deletion.log_opening import LogOpening
from tunewarden.deletion.recovery import HighWaterMark, LogMark
from tunewarden.deletion.reserve import Reserve
from tunewarden.deletion.retention.expiry import Expiry
from tunewarden.deletion.retention.expiry_pause import ClockWatch
from tunewarden.deletion.retention.retention_runs import Retention
from tunewarden.deletion.steps import Steps
from tunewarden.engines import scratch
from tunewarden.engines.adapter_states import AdapterStates
from tunewarden.engines.embedded import EmbeddedEngine
from tunewarden.engines.embedded_control import EngineVerbs
from tunewarden.engines.lease_agent import LeaseAgent
from tunewarden.engines.port import Engine, EngineControl, NoteLoad, Unseal
from tunewarden.engines.remote import RemoteEngines
from tunewarden.exclusive_use import check_exists
from tunewarden.finetuning.context import TrainingContext
from tunewarden.finetuning.saved_state import SavedStates
from tunewarden.gateway.routing import Gateway
from tunewarden.identity.policy import Caller
from tunewarden.registry import models, replicas, restore_marks
from tunewarden.registry.aliases import Aliases
from tunewarden.registry.bases import Base
from tunewarden.registry.drafts import Drafts
from tunewarden.registry.exports import Exports
from tunewarden.registry.files import Files
from tunewarden.registry.holds import Holds
from tunewarden.registry.imports import Imports
from tunewarden.registry.model_changes import ModelChanges
from tunewarden.registry.model_lookup import Target
from tunewarden.registry.quota import ProjectQuota, Quota
from tunewarden.registry.rate_limits import RateLimits
from tunewarden.registry.replicas import Replica
from tunewarden.registry.retention_rules import RetentionRules
from tunewarden.registry.uploads import Uploads
from tunewarden.registry.usage_counter import UsageCounter
from tunewarden.serving.admission import Admissions
from tunewarden.serving.fence import Fence
from tunewarden.serving.kernel_locks import KernelLockFence
from tunewarden.space import Ballast, Floor, Room
from tunewarden.token_buckets.buckets import Buckets, Metered
from tunewarden.token_buckets.memory import Memory
from tunewarden.transparency.audit_digests import AuditDigests
from tunewarden.transparency.directory_log import DirectoryLog
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.log import Log
from tunewarden.webhooks import wiring

EVICT_SECONDS = 5.0
LOG_MARK = "log.mark"
TIME_MARK = "time.mark"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drivers:
    """The drivers, typed by their ports. Floor and ballast are this machine's disk: they have no second driver."""

    clock: Clock
    floor: Floor
    ballast: Ballast
    database: Database
    blobs: ErasableBlobs
    keyring: Keyring
    open_log: Callable[[], tuple[Log, LogSigner]]
    log_opening: LogOpening  # rotates its key
    fence: Fence
    engine: EngineControl
    # A replica that adapters are pushed to, as deletion knows it.
    remote_control: NewControl
    new_embedded: Callable[[Path, Unseal, NoteLoad], Engine]
    new_remote: Callable[[Base, Replica, Unseal, NoteLoad], Engine]
    new_lease_agent: Callable[[Base, Replica], LeaseAgent]


@dataclass(frozen=True, slots=True, kw_only=True)
class App(_Drivers):
    """Everything that runs on one data directory, wired together."""

    config: Config
    memory: PlainMemory
    drafts: Drafts
    imports: Imports
    files: Files
    uploads: Uploads
    executor: Executor
    log_mark: LogMark
    usage: UsageCounter


def open_app(config: Config, *, migrate: bool = False) -> App:
    """Open a data directory. Only the process that starts the server sets `migrate`. Raises Error(UNAVAILABLE)."""
    clock = SystemClock()
    _make_directories(config, is_new=migrate)
    ballast = Ballast(config.data)
    floor = Floor(config.data, config.disk_floor_bytes, ballast=ballast)
    if migrate:
        ballast.restore()
    open_database = partial(
        SqliteDatabase,
        config.database,
        clock,
        migrate=migrate,
        check_room=floor.check,
        wal_bytes_max=Room.on(config.data).wal_bytes,
    )
    database = ballast.run(open_database)  # on a full disk, releases ballast
    disk = LocalDisk()
    alive_seconds = min(config.fence_alive_seconds, config.deletion_seconds)
    plain = scratch.location(config.scratch, config.data)
    remotes = RemoteEngines(config, database, clock, plain)
    mark = _log_mark(config)
    log_opening = LogOpening(config, database, mark, DirectoryLog, DirectoryLog.create)
    drivers = _Drivers(
        clock=clock,
        floor=floor,
        ballast=ballast,
        database=database,
        blobs=DirectoryBlobs(disk, config.blobs, floor),
        keyring=DirectoryKeyring(disk, config.keyring),
        # Lazy: the log loads OpenSSL, which a worker without deletions does not need.
        open_log=cache(log_opening.open),
        log_opening=log_opening,
        fence=KernelLockFence(config.run, clock, alive_seconds=alive_seconds),
        engine=EngineVerbs(config.engine_socket, plain, clock, alive_seconds=alive_seconds),
        new_embedded=partial(EmbeddedEngine, config.engine_socket),
        remote_control=remotes.control,
        new_remote=remotes.engine,
        new_lease_agent=remotes.lease_agent,
    )
    return _wired(config, drivers)


def _wired(config: Config, of: _Drivers) -> App:
    """Assemble the operations on these drivers."""
    database, keyring, blobs = of.database, of.keyring, of.blobs
    log_mark = _log_mark(config)
    memory = PlainMemory(config.swap_may_hold_plain_weights)
    usage = UsageCounter(database, of.clock)
    steps = Steps(
        database=database,
        clock=of.clock,
        fence=of.fence,
        engines_of=Holders(database, of.engine, of.remote_control).of,
        keyring=keyring,
        blobs=blobs,
        open_log=of.open_log,
        mark_log=log_mark.raise_to,
        fence_seconds=config.fence_seconds,
        evict_seconds=EVICT_SECONDS,
        memory=lambda tx, n: memory.state(was_swappable=restore_marks.was_swappable(tx, n)),
        has_unwritten_use=usage.has_unwritten,
    )
    executor = Executor(
        database,
        steps,
        of.clock,
        config.deletion_locks,
        bound_seconds=config.deletion_seconds,
        ballast=of.ballast,
    )
    quota = Quota(
        ProjectQuota(config.project_bytes_max, config.project_files_max, config.project_models_max),
        config.organization_bytes_max,
    )
    drafts = Drafts(database, keyring, blobs, config.run / "imports.locks", quota)
    limits = Limits(max_rank=config.rank_max, max_weights_bytes=config.adapter_bytes_max)
    may = config.scratch_may_be_a_disk
    files = Files(database, keyring, blobs, drafts, memory)
    return App(
        config=config,
        **{field.name: getattr(of, field.name) for field in fields(of)},
        memory=memory,
        drafts=drafts,
        imports=Imports(
            database, keyring, blobs, drafts, limits, memory, scratch_may_be_a_disk=may
        ),
        files=files,
        uploads=Uploads(database, keyring, blobs, drafts, files, config.upload_bytes_max),
        executor=executor,
        log_mark=log_mark,
        usage=usage,
    )


def _log_mark(config: Config) -> LogMark:
    return LogMark(config.keyring / LOG_MARK)


def _time_mark(config: Config) -> HighWaterMark:
    return HighWaterMark(config.keyring / TIME_MARK)


def _make_directories(config: Config, *, is_new: bool) -> None:
    if not is_new:
        check_exists(config)
    for directory in (config.data, config.run, config.blobs, config.keyring):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def serving(app: App, counted_in: Memory | None = None) -> Operations:
    """Return the operations of a gateway worker. Joins the fence: only for processes that serve."""
    app.fence.join()
    return _operations(app, scratch_directory(app.config), counted_in or Memory.create())


def answering(app: App) -> Operations:
    """Return the operations of a command. It serves no model, so it does not join the fence."""
    plain = scratch.location(app.config.scratch, app.config.data)
    return _operations(app, plain, Memory.create())


def _operations(app: App, plain: Path, counted_in: Memory) -> Operations:
    """Return the operations; `plain` is the scratch directory, `counted_in` the memory of rate limits."""
    config = app.config
    buckets = Buckets(counted_in)
    rate_limits = RateLimits.of(config)

    def read_limits(tx: Tx, caller: Caller, target: Target) -> Metered | None:
        limits = rate_limits.of_request(
            tx,
            organization_id=caller.organization_id,
            project_id=caller.project_id,
            base=target.base.name,
            key_id=caller.key_id,
        )
        return buckets.metered(limits)

    def unseal(n: int, directory: Path) -> None:
        app.imports.unseal(models.by_n(app.database, n), directory)

    def note_load(n: int, incarnation: str, is_loaded: bool) -> str:  # noqa: FBT001  the port's
        return models.note_load(app.database, n, incarnation, is_loaded=is_loaded)

    def new_remote(base: Base, replica: Replica) -> Engine:
        def note(n: int, incarnation: str, is_loaded: bool) -> str:  # noqa: FBT001  the port's
            return replicas.note_load(app.database, replica.n, n, incarnation, is_loaded=is_loaded)

        return app.new_remote(base, replica, unseal, note)

    return Operations(
        config=config,
        clock=app.clock,
        floor=app.floor,
        database=app.database,
        executor=app.executor,
        bulk_deletions=BulkDeletions(app.database, app.executor),
        retention_rules=RetentionRules(app.database),
        retention=retention_runner(app),
        memory=app.memory,
        imports=app.imports,
        exports=exports(app),
        files=app.files,
        holds=Holds(app.database, app.keyring),
        aliases=Aliases(app.database),
        webhooks=wiring.endpoints(app.database, app.clock, config, app.open_log),
        model_changes=ModelChanges(app.database, app.keyring),
        uploads=app.uploads,
        admissions=Admissions(app.database, app.fence, app.clock, read_limits),
        gateway=Gateway(
            app.new_embedded(plain, unseal, note_load),
            new_remote,
            per_engine_max=config.requests_per_engine_max,
            per_model_max=config.requests_per_model_max,
        ),
        buckets=buckets,
        quota=app.drafts.quota,
        rate_limits=rate_limits,
        usage=app.usage,
        adapter_states=AdapterStates(app.database, app.engine, app.remote_control),
        open_log=app.open_log,
    )


def exports(app: App) -> Exports:
    """Return the export operation."""
    mark = app.log_mark.raise_to
    return Exports(app.database, app.keyring, app.blobs, app.memory, app.open_log, mark)


def training(app: App) -> TrainingContext:
    """Return the dependencies of fine-tuning jobs. Only for the background runner."""
    config = app.config
    return TrainingContext(
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
    """Return the saved states that jobs resume from."""
    may = app.config.scratch_may_be_a_disk
    return SavedStates(app.database, app.keyring, app.blobs, app.drafts, scratch_may_be_a_disk=may)


def inventory(app: App) -> Inventory:
    """Return the inventory of all places where a model can be."""
    return Inventory(
        app.database,
        app.keyring,
        app.blobs,
        scratch_directory(app.config),
        app.config.data,
        Holders(app.database, app.engine, app.remote_control).models,
        app.database.must_be_rewritten,
    )


def reserve(app: App) -> Reserve:
    """Return the disk reserve for deletions. Only for the runner."""
    spares = 2 * app.config.workers + 2
    return Reserve(
        floor=app.floor,
        ballast=app.ballast,
        room=Room.on(app.config.data),
        database=app.database,
        keyring=app.keyring,
        reserve_workers=lambda: app.fence.reserve(spares),
        reserve_mark=app.log_mark.reserve,
        lock_file=app.config.deletion_locks,
        log_directory=app.config.log,
        log_size=lambda: app.open_log()[0].size(),  # noqa: PLW0108 - late, as above
    )


def expiry(app: App) -> Expiry:
    """Return the expiry of files and uploads. Only for the runner."""
    return Expiry(app.database, app.uploads, lambda: app.open_log()[0].size(), clock_watch(app))  # noqa: PLW0108  late, as above


def clock_watch(app: App) -> ClockWatch:
    """Return what compares the clocks. Only for the runner."""
    return ClockWatch(app.database, app.clock, _time_mark(app.config))


def retention_runner(app: App) -> Retention:
    """Return what runs retention rules."""
    return Retention(app.database, app.clock, app.executor, _time_mark(app.config))


def audit_digests(app: App) -> AuditDigests:
    """Return the maker of the audit log's digests. Only for the runner."""
    return AuditDigests(
        app.database, app.clock, app.open_log, app.log_mark.raise_to, restore_marks.see_log
    )


def scratch_directory(config: Config) -> Path:
    """Return the tmpfs directory for plaintext weights. Raises Error(UNAVAILABLE)."""
    return scratch.prepare(config.scratch, config.data, may_be_a_disk=config.scratch_may_be_a_disk)
